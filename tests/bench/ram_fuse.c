/* The floor: a FUSE file system that keeps everything in memory and stores nothing. What it cannot
 * do faster, no FUSE file system can: requests and copies are all it costs.
 *
 *     ram_fuse MOUNTPOINT        (in the foreground; ends when it is unmounted)
 *
 * It answers as sopfs does where that decides what is asked: long timeouts, kept caches, FLUSH
 * handled, extended attributes looked up and not found (ENOSYS would spare the kernel a request per
 * write). Nodes live in one table under one lock; a file is one buffer that doubles. */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS (1u << 18)
#define TIMEOUT 3600.0

struct node {
	struct node *hash_next;	   /* by (parent, name) */
	struct node *next, *prev;  /* among its parent's children, newest last */
	struct node *first, *last; /* children */
	struct node *parent;
	uint64_t nlookup, seq; /* seq: the readdir offset that follows it */
	uint64_t next_seq;     /* directories: the one its next child gets */
	struct stat st;
	char *data;
	size_t cap;
	bool linked;
	char name[256];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct node *table[BUCKETS];
static struct node root;
static uint64_t last_ino = FUSE_ROOT_ID;
static uint64_t node_count = 1;

static struct node *node_of(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &root : (struct node *)(uintptr_t)ino;
}

static fuse_ino_t ino_of(struct node *n)
{
	return n == &root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)n;
}

static uint32_t hash(const struct node *parent, const char *name)
{
	uint64_t h = (uint64_t)(uintptr_t)parent * 0x9e3779b97f4a7c15u;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 0x100000001b3u;
	return (uint32_t)(h >> 32) % BUCKETS;
}

static struct node *find(struct node *parent, const char *name)
{
	struct node *n = table[hash(parent, name)];

	while (n && (n->parent != parent || strcmp(n->name, name)))
		n = n->hash_next;
	return n;
}

static void attach(struct node *parent, struct node *n, const char *name)
{
	uint32_t h = hash(parent, name);

	snprintf(n->name, sizeof(n->name), "%s", name);
	n->parent = parent;
	n->hash_next = table[h];
	table[h] = n;
	n->prev = parent->last;
	n->next = NULL;
	*(parent->last ? &parent->last->next : &parent->first) = n;
	parent->last = n;
	n->seq = ++parent->next_seq;
	n->linked = true;
}

static void detach(struct node *n)
{
	struct node **p = &table[hash(n->parent, n->name)];

	while (*p != n)
		p = &(*p)->hash_next;
	*p = n->hash_next;
	*(n->prev ? &n->prev->next : &n->parent->first) = n->next;
	*(n->next ? &n->next->prev : &n->parent->last) = n->prev;
	n->linked = false;
}

static void free_if_unused(struct node *n)
{
	if (n == &root || n->linked || n->nlookup)
		return;
	free(n->data);
	free(n);
	node_count--;
}

static struct node *make(
	struct node *parent, const char *name, mode_t mode, const struct fuse_ctx *ctx)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->st.st_ino = ++last_ino;
	n->st.st_mode = mode;
	n->st.st_nlink = S_ISDIR(mode) ? 2 : 1;
	n->st.st_uid = ctx->uid;
	n->st.st_gid = ctx->gid;
	n->st.st_blksize = 1 << 17;
	clock_gettime(CLOCK_REALTIME, &n->st.st_mtim);
	n->st.st_atim = n->st.st_ctim = n->st.st_mtim;
	attach(parent, n, name);
	node_count++;
	return n;
}

static struct fuse_entry_param entry(struct node *n)
{
	return (struct fuse_entry_param){
		.ino = ino_of(n), .attr = n->st, .attr_timeout = TIMEOUT, .entry_timeout = TIMEOUT};
}

static void ram_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->want |= FUSE_CAP_ATOMIC_O_TRUNC & conn->capable;
	conn->want |= FUSE_CAP_EXPLICIT_INVAL_DATA & conn->capable;
	conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ |
				  FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
				  FUSE_CAP_WRITEBACK_CACHE);
#ifdef FUSE_CAP_PARALLEL_DIROPS
	conn->want |= FUSE_CAP_PARALLEL_DIROPS & conn->capable;
#endif
	conn->max_write = 1 << 20;
}

static void ram_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = {0};
	struct node *n;

	pthread_mutex_lock(&lock);
	n = find(node_of(parent), name);
	if (n) {
		n->nlookup++;
		e = entry(n);
	}
	pthread_mutex_unlock(&lock);
	if (n)
		fuse_reply_entry(req, &e);
	else
		fuse_reply_err(req, ENOENT);
}

static void ram_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	struct node *n = node_of(ino);

	pthread_mutex_lock(&lock);
	if (n != &root) {
		n->nlookup -= nlookup;
		free_if_unused(n);
	}
	pthread_mutex_unlock(&lock);
	fuse_reply_none(req);
}

static void ram_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	pthread_mutex_lock(&lock);
	st = node_of(ino)->st;
	pthread_mutex_unlock(&lock);
	fuse_reply_attr(req, &st, TIMEOUT);
}

/* filled: the caller writes all that is new itself, up to the new end. */
static int resize(struct node *n, size_t size, bool filled)
{
	size_t cap = n->cap ? n->cap : 4096;
	char *p;

	while (cap < size)
		cap *= 2;
	if (cap > n->cap) {
		p = realloc(n->data, cap);
		if (!p)
			return ENOMEM;
		n->data = p;
		n->cap = cap;
	}
	if (!filled && size > (size_t)n->st.st_size)
		memset(n->data + n->st.st_size, 0, size - (size_t)n->st.st_size);
	n->st.st_size = (off_t)size;
	n->st.st_blocks = (blkcnt_t)((size + 511) / 512);
	return 0;
}

static void ram_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set, struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	struct stat st;
	int rc = 0;

	(void)fi;
	pthread_mutex_lock(&lock);
	if (set & FUSE_SET_ATTR_MODE)
		n->st.st_mode = (n->st.st_mode & S_IFMT) | (attr->st_mode & 07777);
	if (set & FUSE_SET_ATTR_UID)
		n->st.st_uid = attr->st_uid;
	if (set & FUSE_SET_ATTR_GID)
		n->st.st_gid = attr->st_gid;
	if (set & FUSE_SET_ATTR_MTIME)
		n->st.st_mtim = attr->st_mtim;
	if (set & FUSE_SET_ATTR_SIZE)
		rc = resize(n, (size_t)attr->st_size, false);
	st = n->st;
	pthread_mutex_unlock(&lock);
	if (rc)
		fuse_reply_err(req, rc);
	else
		fuse_reply_attr(req, &st, TIMEOUT);
}

static void ram_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct fuse_entry_param e = {0};
	struct node *n;

	pthread_mutex_lock(&lock);
	n = make(node_of(parent), name, S_IFDIR | (mode & 07777), fuse_req_ctx(req));
	if (n) {
		n->nlookup++;
		e = entry(n);
	}
	pthread_mutex_unlock(&lock);
	if (n)
		fuse_reply_entry(req, &e);
	else
		fuse_reply_err(req, ENOMEM);
}

static void ram_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param e = {0};
	struct node *n;

	pthread_mutex_lock(&lock);
	n = make(node_of(parent), name, S_IFREG | (mode & 07777), fuse_req_ctx(req));
	if (n) {
		n->nlookup++;
		e = entry(n);
	}
	pthread_mutex_unlock(&lock);
	fi->keep_cache = 1;
	if (n)
		fuse_reply_create(req, &e, fi);
	else
		fuse_reply_err(req, ENOMEM);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *n;
	int rc = 0;

	pthread_mutex_lock(&lock);
	n = find(node_of(parent), name);
	if (!n) {
		rc = ENOENT;
	} else if (n->first) {
		rc = ENOTEMPTY;
	} else {
		detach(n);
		n->st.st_nlink = 0;
		free_if_unused(n);
	}
	pthread_mutex_unlock(&lock);
	fuse_reply_err(req, rc);
}

static void ram_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
	const char *to_name, unsigned flags)
{
	struct node *n, *old;
	int rc = 0;

	pthread_mutex_lock(&lock);
	n = find(node_of(parent), name);
	old = find(node_of(to_parent), to_name);
	if (flags || !n) {
		rc = flags ? EINVAL : ENOENT;
	} else if (old && old->first) {
		rc = ENOTEMPTY;
	} else if (n != old) {
		if (old) {
			detach(old);
			free_if_unused(old);
		}
		detach(n);
		attach(node_of(to_parent), n, to_name);
	}
	pthread_mutex_unlock(&lock);
	fuse_reply_err(req, rc);
}

static void ram_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (fi->flags & O_TRUNC) {
		pthread_mutex_lock(&lock);
		resize(node_of(ino), 0, true);
		pthread_mutex_unlock(&lock);
	}
	fi->keep_cache = 1;
	if ((fi->flags & O_ACCMODE) == O_RDONLY)
		fi->noflush = 1;
	fuse_reply_open(req, fi);
}

static void ram_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	size_t have;

	(void)fi;
	pthread_mutex_lock(&lock);
	have = off < n->st.st_size ? (size_t)(n->st.st_size - off) : 0;
	fuse_reply_buf(req, have ? n->data + off : NULL, have < size ? have : size);
	pthread_mutex_unlock(&lock);
}

static void ram_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	struct node *n = node_of(ino);
	size_t end = (size_t)off + size;
	int rc = 0;

	(void)fi;
	pthread_mutex_lock(&lock);
	if (end > (size_t)n->st.st_size)
		rc = resize(n, end, off <= n->st.st_size);
	if (!rc) {
		memcpy(n->data + off, buf, size);
		clock_gettime(CLOCK_REALTIME_COARSE, &n->st.st_mtim);
	}
	pthread_mutex_unlock(&lock);
	if (rc)
		fuse_reply_err(req, rc);
	else
		fuse_reply_write(req, size);
}

static void ram_ok(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

static void ram_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	ram_ok(req, ino, fi);
}

static void ram_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	(void)ino;
	(void)name;
	(void)size;
	fuse_reply_err(req, ENODATA);
}

static void ram_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->fh = 0; /* the node at which the last READDIR ended */
	fi->cache_readdir = 1;
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

/* The child after the given offset. Children are in the order of their offsets. */
static struct node *child_after(struct node *dir, uint64_t off)
{
	struct node *n;

	if (dir->last && off >= dir->last->seq)
		return NULL;
	for (n = dir->last; n && n->seq > off && n->prev && n->prev->seq > off; n = n->prev)
		if (off == 0)
			return dir->first;
	return n;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	static _Thread_local struct {
		fuse_ino_t dir;
		uint64_t off;
		struct node *next;
	} cursor; /* where this worker left off: no search while nobody removes names */
	struct node *dir = node_of(ino), *n;
	char *buf = malloc(size);
	size_t used = 0, need;

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&lock);
	n = cursor.dir == ino && off && cursor.off == (uint64_t)off
		    ? cursor.next
		    : child_after(dir, (uint64_t)off);
	for (; n; n = n->next) {
		struct fuse_entry_param e = entry(n);

		need = plus ? fuse_add_direntry_plus(
				      req, buf + used, size - used, n->name, &e, (off_t)n->seq)
			    : fuse_add_direntry(
				      req, buf + used, size - used, n->name, &n->st, (off_t)n->seq);
		if (need > size - used)
			break;
		if (plus)
			n->nlookup++;
		used += need;
		off = (off_t)n->seq;
	}
	cursor.dir = ino;
	cursor.off = (uint64_t)off;
	cursor.next = n;
	pthread_mutex_unlock(&lock);
	fuse_reply_buf(req, buf, used);
	free(buf);
}

static void ram_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, false);
}

static void ram_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, true);
}

static void ram_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const struct statvfs s = {.f_bsize = 4096,
		.f_frsize = 4096,
		.f_blocks = 1 << 22,
		.f_bfree = 1 << 21,
		.f_bavail = 1 << 21,
		.f_files = node_count,
		.f_namemax = 255};

	(void)ino;
	fuse_reply_statfs(req, &s);
}

static const struct fuse_lowlevel_ops ram_ops = {
	.init = ram_init,
	.lookup = ram_lookup,
	.forget = ram_forget,
	.getattr = ram_getattr,
	.setattr = ram_setattr,
	.mkdir = ram_mkdir,
	.create = ram_create,
	.unlink = remove_name,
	.rmdir = remove_name,
	.rename = ram_rename,
	.open = ram_open,
	.read = ram_read,
	.write = ram_write,
	.flush = ram_ok,
	.release = ram_ok,
	.fsync = ram_fsync,
	.getxattr = ram_getxattr,
	.opendir = ram_opendir,
	.readdir = ram_readdir,
	.readdirplus = ram_readdirplus,
	.releasedir = ram_ok,
	.statfs = ram_statfs,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_loop_config *config;
	struct fuse_session *se;
	int rc;

	if (argc != 2) {
		fprintf(stderr, "usage: ram_fuse MOUNTPOINT\n");
		return 2;
	}
	root.st.st_ino = FUSE_ROOT_ID;
	root.st.st_mode = S_IFDIR | 0755;
	root.st.st_nlink = 2;
	root.st.st_uid = getuid();
	root.st.st_gid = getgid();
	root.linked = true;
	fuse_opt_add_arg(&args, "ram_fuse");
	fuse_opt_add_arg(&args, "-odefault_permissions,fsname=ram_fuse,subtype=ram_fuse");
	se = fuse_session_new(&args, &ram_ops, sizeof(ram_ops), NULL);
	config = fuse_loop_cfg_create();
	if (!se || !config || fuse_set_signal_handlers(se) || fuse_session_mount(se, argv[1]))
		return 1;
	fuse_loop_cfg_set_max_threads(config, 10);
	rc = fuse_session_loop_mt(se, config);
	fuse_session_unmount(se);
	fuse_remove_signal_handlers(se);
	fuse_session_destroy(se);
	fuse_loop_cfg_destroy(config);
	fuse_opt_free_args(&args);
	return rc ? 1 : 0;
}
