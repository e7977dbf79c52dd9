/* Open files. A handle is one open file description; one opened for writing has a session: a
 * transaction of libsop with the item's value open in it, which is its private view.
 *
 * Between a commit and the next use a session that has never read is idle: it has no transaction
 * and pins nothing; one that has read goes on from the version it has committed, on which it
 * depends. An item that has no name any more keeps its transaction to the end, as it could not be
 * opened again.
 *
 * A session that creates its item has the creation in its transaction, and is item->provisional.
 * When somebody else needs the item to be there (a second writer, a rename or a link by another
 * process), it is materialised: committed as the empty file that others see, and what the creator
 * has written so far is carried into a new transaction. */
#ifndef SOPFS_SESSION_H
#define SOPFS_SESSION_H

#include "fs/notify.h"

#define SOPFS_WRITERS 4

struct sopfs_session {
	struct sopfs_session *next; /* of the item; sopfs.lock */
	/* Set under lock and sopfs.lock; NULL: it has ended, and somebody looks at it still. */
	struct sopfs_item *item;
	struct sopfs_view *view;
	unsigned handles, refs; /* sopfs.lock; refs: handles and those who look at it meanwhile */
	pthread_mutex_t lock;
	/* under lock: */
	struct sop_txn *txn;
	struct sop_value *value;
	uint64_t base; /* the value version it began on */
	uint64_t lsn;  /* of its last commit */
	int opener;    /* the process, as writers */
	int writers[SOPFS_WRITERS];
	int last_writer; /* TID */
	unsigned writer_count;
	bool creating, truncating; /* its commit does */
	bool changed;		   /* written, truncated or punched since the last commit */
	bool blind_all;		   /* began empty: what it shows is all there is */
	int flags;		   /* it was opened with */
	bool append, reads, ever_read;
	bool temporary;	   /* O_EXCL and O_RDWR, as mkstemp does: see views.c; set when created */
	bool closed;	   /* since a process last wrote by a call */
	_Atomic bool idle; /* between a commit and the next use */
	_Atomic bool live; /* it never has a transaction again: its handles are as direct ones
			      (companion.h) */
	int dead;	   /* it was rolled back: the code that says why, or -EIO */
	bool told;	   /* and somebody was told */
	bool has_xattr;	   /* set while creating */
	unsigned set_mask; /* times set by hand, to go with the commit */
	struct sop_attr set;
	struct sopfs_where *hidden; /* O_TMPFILE: the name it has in its transaction only */
	/* Between mounters: the grant of the first lock taken through it since it held none; 0:
	 * none */
	_Atomic uint64_t grant;
	/* append_commit=: the ticker's */
	struct sopfs_session *tick_next;
	uint64_t due_ms;
	bool ticking;
};

/* What a reader reads: a value at one version, shared by handles that cannot open it any more. */
struct sopfs_snap {
	unsigned refs; /* sopfs.lock */
	pthread_mutex_t lock;
	struct sop_value *value; /* NULL: empty */
	struct sop_attr attr;
};

struct sopfs_handle {
	struct sopfs_view *view;
	struct sopfs_session *session;		  /* NULL: a reader's, or direct */
	struct sopfs_snap *snap;		  /* readers; direct: what is read from */
	struct sopfs_handle *next;		  /* of the view's readers */
	struct sopfs_handle *all_next, *all_prev; /* sopfs.handles */
	int flags;
	_Atomic unsigned dropped[2]; /* by an ordinary user's, by root's writes: ops_xattr.c */
	bool direct;		     /* session=write */
	bool companion;		     /* counted in sopfs.companions */
	uint64_t snap_version;	     /* direct: of snap; snap.lock's owner is direct_lock */
	pthread_mutex_t direct_lock;
	bool quiet;		     /* locks_lock: its closes send no FLUSH */
	uint64_t flushed_ms;	     /* locks_lock: when one of its descriptors was closed last */
	char *text;		     /* files of .sop: what they say, made at open */
	struct sopfs_stream *stream; /* of .sop/events: stream.h */
	size_t text_len;
};

static inline bool sopfs_handle_direct(const struct sopfs_handle *h)
{
	return h->direct || (h->session && atomic_load(&h->session->live));
}

/* Appends go past the kernel's pages: it would at times make two requests of one write(2), where it
 * cannot copy all of it at once, and a commit might come between them. */
static inline bool sopfs_session_unpaged(const struct sopfs_session *s)
{
	return s && s->append && !s->reads;
}

/* ---- life ---- */
/* process: who opens it. */
struct sopfs_session *sopfs_session_new(
	struct sopfs *f, struct sopfs_item *item, int process, int flags);
/* A reference less, taking sopfs.lock; with the last, what is open is rolled back and it is freed.
 */
void sopfs_session_put(struct sopfs *f, struct sopfs_session *s);
/* What sopfs_session_begin gives for a session that has become live. */
#define SOPFS_LIVE (-EDEADLK)
/* s.lock held. A transaction and a value for the item's committed state, unless there is one.
 * -ESTALE: it has ended, or its item has no name. truncate: begin empty. notes (NULL at open): the
 * kernel's pages may have to go. */
int sopfs_session_begin(struct sopfs *f, struct sopfs_session *s, bool truncate,
	struct sopfs_notes *notes, struct sop_err *e);
static inline bool sopfs_session_pending(const struct sopfs_session *s)
{
	return s->creating || s->truncating || s->changed || s->set_mask;
}
/* Is what its size and its holes are something of others too? One that creates its file will have
 * seen that it was empty, should it be materialised. */
static inline bool sopfs_session_sees(const struct sopfs_session *s)
{
	return !s->blind_all || s->creating;
}
/* item.lock and s.lock held. Commits what is pending. Afterwards the session goes on on top of what
 * it has committed if it has ever read, else it is idle; after a failure it is dead. */
int sopfs_session_commit(
	struct sopfs *f, struct sopfs_session *s, struct sopfs_notes *notes, struct sop_err *e);
/* The same in steps, for what goes with it (a rename): the transaction, which is no more then, and
 * what follows if it stands. */
int sopfs_session_commit_txn(struct sopfs *f, struct sopfs_session *s, struct sop_err *e);
void sopfs_session_committed(struct sopfs *f, struct sopfs_session *s, struct sopfs_notes *notes);
/* The same locks: its commit failed, with rc. Counted, and rolled back. */
void sopfs_session_failed(struct sopfs *f, struct sopfs_session *s, int rc, const struct sop_err *e,
	struct sopfs_notes *notes);
/* item.lock and s.lock held. It never happened: logged, and kept for status (recent.h). why: what
 * its users are told from now on; reason: the same for people. */
void sopfs_session_rollback(struct sopfs *f, struct sopfs_session *s, int why, const char *reason,
	struct sopfs_notes *notes);
/* item.lock held. The item is committed as an empty file, and its creator goes on. */
int sopfs_materialise(struct sopfs *f, struct sopfs_item *item, struct sop_err *e);
/* item.lock held (sopfs.lock not): a dirty session of the item that belongs to the process of tid.
 * Its lock is taken, and a reference, to be put. NULL: none. */
struct sopfs_session *sopfs_session_of_process(struct sopfs *f, struct sopfs_item *item, int tid);

typedef int (*sopfs_session_fn)(
	struct sopfs *f, struct sopfs_session *s, void *arg, struct sop_err *e);
/* item.lock held: fn with each session of the item, its lock held, until one fails. */
int sopfs_each_session(struct sopfs *f, struct sopfs_item *item, sopfs_session_fn fn, void *arg,
	struct sop_err *e);

/* ---- requests by handle ---- */
ssize_t sopfs_read(struct sopfs *f, struct sopfs_handle *h, void *buf, size_t len, uint64_t off,
	struct sop_err *e);
ssize_t sopfs_write(struct sopfs *f, struct sopfs_handle *h, int tid, uid_t uid, const void *buf,
	size_t len, uint64_t off, struct sopfs_notes *notes, struct sop_err *e);
int sopfs_session_truncate(struct sopfs *f, struct sopfs_handle *h, uint64_t size,
	struct sopfs_notes *notes, struct sop_err *e);
/* By the session's nodeid, without a handle of it. Part of the session; but where only a mapping is
 * left of that, there is no close to come, and it is committed with what the mapping has written.
 * -ESTALE: it has ended. */
int sopfs_session_resize(struct sopfs *f, struct sopfs_view *v, struct sopfs_session *s,
	uint64_t size, struct sopfs_notes *notes, struct sop_err *e);
int sopfs_fallocate(struct sopfs *f, struct sopfs_handle *h, int mode, uint64_t off, uint64_t len,
	struct sopfs_notes *notes, struct sop_err *e);
/* From one handle to another, by reference where it can be: a count, perhaps short. */
ssize_t sopfs_copy(struct sopfs *f, struct sopfs_handle *in, uint64_t off_in,
	struct sopfs_handle *out, uint64_t off_out, uint64_t len, int tid,
	struct sopfs_notes *notes, struct sop_err *e);
int64_t sopfs_seek(
	struct sopfs *f, struct sopfs_handle *h, uint64_t off, bool hole, struct sop_err *e);
/* locked: a write lock of the process goes with it. */
int sopfs_flush(struct sopfs *f, struct sopfs_handle *h, int tid, bool locked,
	struct sopfs_notes *notes, struct sop_err *e);
int sopfs_fsync(
	struct sopfs *f, struct sopfs_handle *h, struct sopfs_notes *notes, struct sop_err *e);
void sopfs_release(struct sopfs *f, struct sopfs_handle *h, struct sopfs_notes *notes);
/* The same in steps. Its part in what it reads and writes through ends, with the last one's the
 * session; and then it is no more. */
void sopfs_handle_leave(struct sopfs *f, struct sopfs_handle *h, struct sopfs_notes *notes);
void sopfs_handle_end(struct sopfs *f, struct sopfs_handle *h);
/* A lock was granted on the file: a session with nothing written moves to the newest version. */
int sopfs_session_refresh(
	struct sopfs *f, struct sopfs_handle *h, struct sopfs_notes *notes, struct sop_err *e);
/* A lock was given back: what was written is committed. */
int sopfs_session_unlock(
	struct sopfs *f, struct sopfs_handle *h, struct sopfs_notes *notes, struct sop_err *e);

/* What a request does to a value. */
enum sopfs_change { SOPFS_WRITE, SOPFS_SIZE, SOPFS_ALLOCATE, SOPFS_PUNCH, SOPFS_ZERO, SOPFS_COPY };
struct sopfs_op {
	enum sopfs_change change;
	const void *buf;
	uint64_t off, len;	     /* SOPFS_SIZE: len */
	const struct sop_clip *clip; /* SOPFS_COPY */
	bool keep_size;
	bool kill_suid; /* SOPFS_SIZE: by somebody who must not keep set-ID bits */
	bool leftover;	/* of a session that was closed: what was written in a mapping, whenever the
			   kernel brings it, and what goes with that */
};
/* A count for SOPFS_WRITE and SOPFS_COPY, else 0. */
ssize_t sopfs_apply(struct sop_value *value, const struct sopfs_op *op, struct sop_err *e);

/* ---- session=write: every write a transaction (direct.c) ---- */
/* item.lock held. *version: of the value, when the caller wants to know. */
ssize_t sopfs_change_now(struct sopfs *f, struct sopfs_item *item, bool append,
	const struct sopfs_op *op, uint64_t *version, struct sop_err *e);
ssize_t sopfs_direct_read(struct sopfs *f, struct sopfs_handle *h, void *buf, size_t len,
	uint64_t off, struct sop_err *e);
/* The last byte of the newest version, if that is as long as these attributes say. */
bool sopfs_direct_last(
	struct sopfs *f, struct sopfs_item *item, const struct sop_attr *a, char *last);
int sopfs_direct_clip(struct sopfs *f, struct sopfs_handle *h, struct sop_clip **clip, uint64_t off,
	uint64_t len, struct sop_err *e);
int64_t sopfs_direct_seek(
	struct sopfs *f, struct sopfs_handle *h, uint64_t off, bool hole, struct sop_err *e);
/* item.lock held; the item is about to lose its last name: its bytes live on in a session that is
 * never committed. */
int sopfs_direct_orphan(struct sopfs *f, struct sopfs_item *item, struct sop_err *e);
/* The same in two steps. *out NULL: none is needed; who does not go on puts it. */
int sopfs_direct_orphan_new(
	struct sopfs *f, struct sopfs_item *item, struct sopfs_session **out, struct sop_err *e);
void sopfs_direct_orphan_set(struct sopfs *f, struct sopfs_item *item, struct sopfs_session *o);
void sopfs_direct_release(struct sopfs *f, struct sopfs_handle *h);
/* Set the size of the committed item in a transaction of its own; item.lock held. */
int sopfs_truncate_now(struct sopfs *f, struct sopfs_item *item, uint64_t size, uint64_t *version,
	struct sop_err *e);

/* ---- snapshots (views.c) ---- */
int sopfs_snap_new(
	struct sopfs *f, struct sopfs_item *item, struct sopfs_snap **out, struct sop_err *e);
void sopfs_snap_free(struct sopfs_snap *snap);
struct sopfs_handle *sopfs_handle_new(struct sopfs *f, struct sopfs_view *v, int flags);
void sopfs_handle_free(struct sopfs *f, struct sopfs_handle *h);

/* The thread that commits append sessions in time. */
int sopfs_ticker_start(struct sopfs *f, struct sop_err *e);
void sopfs_ticker_stop(struct sopfs *f);
void sopfs_ticker_add(struct sopfs *f, struct sopfs_session *s);
/* Call sopfs_lock_poll in a while, once. */
void sopfs_ticker_poll(struct sopfs *f);
void sopfs_ticker_poll_now(struct sopfs *f);
/* Call sopfs_memory_settle. */
void sopfs_ticker_settle(struct sopfs *f);
/* At the end: what is still open is ended, see file.c. */
void sopfs_handles_finish(struct sopfs *f);

#endif
