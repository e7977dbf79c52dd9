/* Descriptors 0, 1 and 2, for programs that open disks. */
#ifndef SOP_STDFDS_H
#define SOP_STDFDS_H

/* First thing in main(): those that came closed are taken, or the next file that is opened would be
 * one of them, and what is printed would go into it. Reading and writing still fail with EBADF, and
 * programs that are run find them closed. */
void sop_stdfds_take(void);

#endif
