/* Lanes are socket pairs: each carries one message there and its result back, and has a thread at
 * the other end. One more pair carries the descriptor, and by its end tells that the daemon has
 * gone. */
#include "fs/messenger.h"
#include "fs/fdpass.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define LANES	    5 /* a worker and the notifier's two threads write; more would wait their turn */
#define PAGES_LANE  0
#define PAIRS	    (LANES + 1)
#define CONTROL	    LANES
#define MESSAGE_MAX 1024
#define REQUEST_MAX ((size_t)2 << 20) /* more than max_write and its headers */
#define REFUSE_MS   20

struct sopfs_messenger {
	pid_t pid;
	int fd[PAIRS];
	pthread_mutex_t lock;
	pthread_cond_t freed;
	bool busy[LANES]; /* under lock */
	bool attached;	  /* set before the first send */
};

/* ---- the other process -------------------------------------------------------------------------
 */

struct carrier {
	int lane[LANES];
	int fuse;
	atomic_bool ending;
	atomic_int writing;
};

struct lane {
	struct carrier *c;
	int fd;
};

static void *carry(void *arg)
{
	struct lane *l = arg;
	char buf[MESSAGE_MAX];
	int32_t result;
	ssize_t n;

	for (;;) {
		n = recv(l->fd, buf, sizeof(buf), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return NULL;
		atomic_fetch_add(&l->c->writing, 1);
		if (atomic_load(&l->c->ending))
			result = -ENODEV;
		else
			result = (int32_t)write(l->c->fuse, buf, (size_t)n) < 0 ? -errno
										: (int32_t)n;
		atomic_fetch_sub(&l->c->writing, 1);
		if (send(l->fd, &result, sizeof(result), MSG_NOSIGNAL) < 0)
			return NULL;
	}
}

/* The daemon is gone. Requests that nobody will read any more may be what a lane waits for: answer
 * them all, until no lane sleeps. */
static void refuse_requests(struct carrier *c)
{
	struct pollfd p = {.fd = c->fuse, .events = POLLIN};
	struct fuse_in_header in;
	struct fuse_out_header answer;
	char *buf = malloc(REQUEST_MAX);
	ssize_t n;

	fcntl(c->fuse, F_SETFL, O_NONBLOCK);
	while (buf && atomic_load(&c->writing)) {
		n = read(c->fuse, buf, REQUEST_MAX);
		if (n < (ssize_t)sizeof(in)) {
			if (n < 0 && errno == ENODEV)
				return;
			poll(&p, 1, REFUSE_MS);
			continue;
		}
		memcpy(&in, buf, sizeof(in));
		if (in.opcode == FUSE_FORGET || in.opcode == FUSE_BATCH_FORGET ||
			in.opcode == FUSE_INTERRUPT)
			continue;
		answer = (struct fuse_out_header){
			.len = sizeof(answer), .error = -ENOTCONN, .unique = in.unique};
		if (write(c->fuse, &answer, sizeof(answer)) < 0 && errno == ENODEV)
			return;
	}
}

/* Nothing of the daemon may be kept open here: neither its report pipe nor its terminal. */
static void keep_only(const int *keep, unsigned n)
{
	int null = open("/dev/null", O_RDWR);
	unsigned low = 3, i, next;

	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
	}
	for (;;) {
		next = ~0u;
		for (i = 0; i < n; i++)
			if ((unsigned)keep[i] >= low && (unsigned)keep[i] < next)
				next = (unsigned)keep[i];
		if (next > low)
			close_range(low, next == ~0u ? next : next - 1, 0);
		if (next == ~0u)
			return;
		low = next + 1;
	}
}

static void __attribute__((noreturn)) carrier_main(const int *fd)
{
	struct carrier c = {.fuse = -1};
	struct lane lane[LANES];
	pthread_t thread;
	char byte;
	ssize_t n;
	int i;

	keep_only(fd, PAIRS);
	prctl(PR_SET_NAME, "sopfs-notify");
	if (chdir("/"))
		_exit(1);
	if (sopfs_fd_receive(&c.fuse, fd[CONTROL]) <= 0)
		_exit(0);
	for (i = 0; i < LANES; i++) {
		lane[i] = (struct lane){.c = &c, .fd = fd[i]};
		if (pthread_create(&thread, NULL, carry, &lane[i]))
			_exit(1);
	}
	do {
		n = recv(fd[CONTROL], &byte, 1, 0);
	} while (n > 0 || (n < 0 && errno == EINTR));
	atomic_store(&c.ending, true);
	refuse_requests(&c);
	_exit(0);
}

/* ---- the daemon's side -------------------------------------------------------------------------
 */

int sopfs_messenger_start(struct sopfs_messenger **out, struct sop_err *e)
{
	struct sopfs_messenger *m = calloc(1, sizeof(*m));
	int theirs[PAIRS], pair[2], n, rc = 0;

	if (!m)
		return sop_fail(e, -ENOMEM, "messenger");
	for (n = 0; n < PAIRS; n++) {
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
			rc = sop_fail(e, -errno, "messenger");
			break;
		}
		m->fd[n] = pair[0];
		theirs[n] = pair[1];
	}
	if (!rc) {
		m->pid = fork();
		if (!m->pid)
			carrier_main(theirs);
		if (m->pid < 0)
			rc = sop_fail(e, -errno, "messenger");
	}
	while (n--) {
		close(theirs[n]);
		if (rc)
			close(m->fd[n]);
	}
	if (rc) {
		free(m);
		return rc;
	}
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->freed, NULL);
	*out = m;
	return 0;
}

int sopfs_messenger_attach(struct sopfs_messenger *m, int fuse_fd, struct sop_err *e)
{
	sop_autoclose int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	uint32_t of = (uint32_t)fuse_fd;
	int rc;

	if (clone < 0)
		return sop_fail(e, -errno, "/dev/fuse");
	if (ioctl(clone, FUSE_DEV_IOC_CLONE, &of))
		return sop_fail(e, -errno, "/dev/fuse: clone");
	rc = sopfs_fd_send(m->fd[CONTROL], clone);
	if (rc)
		return sop_fail(e, rc, "messenger");
	m->attached = true;
	return 0;
}

/* What concerns pages alone must get through while all others wait for one directory: a write may
 * wait for it, and the directory's holder for the write's file. */
static bool for_pages(const struct iovec *iov)
{
	struct fuse_out_header head = {0};

	memcpy(&head, iov->iov_base, SOP_MIN(iov->iov_len, sizeof(head)));
	return head.error == FUSE_NOTIFY_INVAL_INODE || head.error == FUSE_NOTIFY_STORE;
}

static int take_lane(struct sopfs_messenger *m, bool pages)
{
	int i;

	pthread_mutex_lock(&m->lock);
	for (;;) {
		for (i = pages ? PAGES_LANE : PAGES_LANE + 1; i < LANES && m->busy[i]; i++)
			;
		if (i < LANES)
			break;
		pthread_cond_wait(&m->freed, &m->lock);
	}
	m->busy[i] = true;
	pthread_mutex_unlock(&m->lock);
	return i;
}

static void give_lane(struct sopfs_messenger *m, int lane)
{
	pthread_mutex_lock(&m->lock);
	m->busy[lane] = false;
	pthread_cond_broadcast(&m->freed);
	pthread_mutex_unlock(&m->lock);
}

/* One message, and the wait for its result: one lane is never used by two at a time. */
static bool exchange(int fd, struct msghdr *msg, int32_t *result)
{
	ssize_t n;

	do {
		n = sendmsg(fd, msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return false;
	do {
		n = recv(fd, result, sizeof(*result), 0);
	} while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(*result);
}

bool sopfs_messenger_send(
	struct sopfs_messenger *m, const struct iovec *iov, int count, ssize_t *result)
{
	struct iovec copy[8];
	struct msghdr msg = {.msg_iov = copy, .msg_iovlen = (size_t)count};
	size_t total = 0;
	int32_t rc;
	int lane, i;
	bool done;

	if (!m || !m->attached || count > (int)SOP_ARRAY_LEN(copy))
		return false;
	for (i = 0; i < count; i++) {
		copy[i] = iov[i];
		total += iov[i].iov_len;
	}
	if (total > MESSAGE_MAX)
		return false;
	lane = take_lane(m, for_pages(iov));
	done = exchange(m->fd[lane], &msg, &rc);
	give_lane(m, lane);
	if (!done)
		return false;
	if (rc < 0)
		errno = -rc;
	*result = rc < 0 ? -1 : rc;
	return true;
}

void sopfs_messenger_stop(struct sopfs_messenger *m)
{
	int i;

	if (!m)
		return;
	for (i = 0; i < PAIRS; i++)
		close(m->fd[i]);
	while (waitpid(m->pid, NULL, 0) < 0 && errno == EINTR)
		;
	pthread_cond_destroy(&m->freed);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
