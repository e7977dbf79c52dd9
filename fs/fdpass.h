/* Descriptors passed over a socket between processes (SCM_RIGHTS), one at a time. */
#ifndef SOPFS_FDPASS_H
#define SOPFS_FDPASS_H

/* 0 or -errno. */
int sopfs_fd_send(int sock, int fd);
/* 1: *fd is the caller's, close-on-exec; 0: the other side ended, or sent none; -errno. */
int sopfs_fd_receive(int *fd, int sock);

#endif
