/* Who is closing? What a FLUSH can learn about the thread that sent it, from /proc.
 *
 * A thread that was killed sends FLUSH for its descriptors as it dies; nothing in the request tells
 * it from a close(). Reading /proc/TID/stat does, but takes a lock that a thread in execve holds
 * while it waits for our answer to the FLUSH of an O_CLOEXEC descriptor: both would hang, and every
 * ps with them. So statm is read first, which takes no such lock: all zeros says the thread has
 * given up its memory and is exiting, and only then is stat read.
 *
 * Any thread. Nothing here blocks. What cannot be seen (a foreign PID namespace, another user's
 * process for an unprivileged daemon) counts as a normal close. */
#ifndef SOPFS_CLOSER_H
#define SOPFS_CLOSER_H

#include "core/sop.h"

struct sopfs_closer {
	bool exiting; /* not an explicit close() */
	bool killed;  /* by a signal */
	int signal;   /* by which */
	int status;   /* exit code, when it exits by itself */
	int process;  /* as sopfs_closer_process */
};

void sopfs_closer_look(int tid, struct sopfs_closer *out);

/* The process that thread tid belongs to (its thread group's number, to be asked for while it
 * lives); tid itself when that cannot be seen, 0 for 0. */
int sopfs_closer_process(int tid);

/* The process that has started this one; 0 when that cannot be seen. */
int sopfs_closer_parent(int process);

/* How many descriptors of the file with this inode number a process holds; access: O_RDONLY,
 * O_WRONLY or O_RDWR, of those opened so alone, or -1. Negative: it cannot be looked at. After a
 * few thousand descriptors it stops looking, and says that there are very many. */
int sopfs_closer_descriptors(int process, uint64_t ino, int access);

/* The numbers of at most max such descriptors, of a thread's; how many there are. */
unsigned sopfs_closer_list(int tid, uint64_t ino, int *fd, unsigned max);
/* Has one that it had been closed, as far as can be seen? */
bool sopfs_closer_closed(int process, int fd, uint64_t ino);

/* What lock a thread asks for that waits for our answer. OFD: one of the description. */
enum sopfs_lock_kind { SOPFS_LOCK_UNKNOWN, SOPFS_LOCK_POSIX, SOPFS_LOCK_OFD };
enum sopfs_lock_kind sopfs_closer_lock_kind(int tid);

/* Pure parts. syscall: of /proc/TID/syscall. */
enum sopfs_lock_kind sopfs_closer_parse_syscall(const char *text);
/* statm: true when all numbers are 0. stat: flags (field 9) and exit_code (field 52); false
 * when the line is not understood. */
bool sopfs_closer_statm_empty(const char *text, size_t len);
bool sopfs_closer_parse_stat(const char *text, size_t len, unsigned long *flags, int *exit_code);

#endif
