/* Items and the nodeids the kernel knows them by.
 *
 * An item is one inode of the volume, by its number. The kernel may know it by several nodeids,
 * called views: one for the committed version (item->current), one for each writing session, and
 * old ones whose version was superseded while somebody still uses it. All have the same st_ino. A
 * nodeid is the address of its view (1 for the root); it lives until the kernel has forgotten it
 * and nothing here refers to it.
 *
 * Everything here is called with sopfs.lock held unless it says otherwise; nothing blocks. */
#ifndef SOPFS_INODE_H
#define SOPFS_INODE_H

#include "fs/state.h"

enum sopfs_view_kind {
	SOPFS_VIEW_COMMITTED, /* item->current: pages and attributes may be cached for ever */
	SOPFS_VIEW_SESSION,   /* of one writing session, or reserved for one */
	SOPFS_VIEW_OLD,	      /* superseded: only those who have it open still use it */
	SOPFS_VIEW_CTL,	      /* .sop */
};

/* What an empty file that is not committed shows. */
#define SOPFS_VERSION_EMPTY UINT64_MAX

struct sopfs_view {
	struct sopfs_item *item;
	struct sopfs_view *next; /* of the item */
	uint64_t nlookup;
	uint64_t version; /* the value version its pages show; 0: none yet */
	bool unsized;	  /* but the kernel may take it to be of another size, until it asks */
	unsigned untold;  /* notes on their way that say that it is not the committed one now */
	uint64_t generation;
	atomic_bool paged; /* the kernel has read or written it by pages: it may have some */
	enum sopfs_view_kind kind;
	unsigned handles; /* open file handles, of any kind */
	unsigned readers; /* of them, those that read a snapshot */
	unsigned marks;	  /* reservations (views.h) */
	unsigned direct;  /* of the handles, those with session=write */
	struct sopfs_session *session;
	struct sopfs_handle *first; /* handles that read a snapshot */
};

struct sopfs_alias {
	struct sopfs_alias *next;
	uint64_t store;
	uint16_t len;
	char text[];
};

struct sopfs_item {
	struct sopfs *fs; /* whose table it is in */
	uint64_t ino;
	struct sopfs_item *hash_next;
	mode_t type; /* S_IFREG, ... */
	unsigned refs;
	struct sopfs_alias *names; /* those we know of */
	struct sopfs_view view0;   /* the first view, in place; free when item is NULL */
	struct sopfs_view *views;
	struct sopfs_view *current;
	struct sopfs_session *sessions;
	uint64_t version; /* value version of the newest commit; 0: not seen yet */
	pthread_mutex_t lock;

	/* Attributes while the committed trees do not hold the item under a name we know: created
	 * but not committed, or unlinked. */
	struct sop_attr *last;
	bool nameless;	 /* removed */
	bool kept;	 /* the kernel may have a name of it that it does not ask about */
	uint8_t lookups; /* since it was last opened for writing; 2: two or more */
	unsigned untold; /* of its views, and of those that are gone */
	bool met;	 /* since the hand of sopfs_table_idle() passed */
	/* The session whose commit creates the item; its one name is in the overlay. */
	struct sopfs_session *provisional;
	struct sopfs_item *overlay_next, *list_next, *list_prev;

	struct sopfs_locks *locks;     /* locks.c; there from the first lock on */
	unsigned quiet;		       /* locks_lock: open descriptors that send no FLUSH */
	struct sopfs_cookies *cookies; /* dir.c */
	uint8_t session_mode;	       /* directories: 0 not known, 1 close, 2 write; */
	unsigned session_epoch;	       /* if it is sopfs.session_epoch */
	uint8_t default_acl;	       /* directories: 0 not known, 1 has none, 2 has one */
	unsigned direct;	       /* open handles with session=write, and of live sessions */
	struct sop_txn *attic;	       /* attic.h; under item.lock */
	struct sopfs_session *orphan;  /* session=write, unlinked: where their bytes live */
	atomic_bool telling;	       /* a write waits for what sopfs_notify_pages() tells */
	unsigned dropping; /* shared volumes: notes on their way by which pages of it are dropped */
};

/* In the nodeids of worlds (worlds.h): no address of a view has it. */
#define SOPFS_WORLD_BIT (UINT64_C(1) << 63)

/* Of .sop: numbers below the root's. */
static inline bool sopfs_is_ctl(const struct sopfs_view *v)
{
	return v->item->ino < SOP_ROOT;
}

int sopfs_table_init(struct sopfs *f, struct sop_err *e);
void sopfs_table_release(struct sopfs *f);

struct sopfs_view *sopfs_view_of(struct sopfs *f, uint64_t nodeid); /* no lock needed */
uint64_t sopfs_view_nodeid(const struct sopfs *f, const struct sopfs_view *v);

struct sopfs_item *sopfs_item_find(struct sopfs *f, uint64_t ino);
/* Found or made; NULL when there is no memory. The caller makes a view or takes a reference before
 * it lets go of the lock. */
struct sopfs_item *sopfs_item_obtain(struct sopfs *f, uint64_t ino, mode_t type);
/* Nodeids that the kernel knows and nobody uses, as far as can be told from here: at most max of
 * them, from where the last call stopped. An item that was looked up since then is passed over,
 * once. */
size_t sopfs_table_idle(struct sopfs *f, uint64_t *nodeids, size_t max);
static inline void sopfs_item_ref(struct sopfs_item *item)
{
	item->refs++;
}
void sopfs_item_unref(struct sopfs *f, struct sopfs_item *item);
/* The same, taking the lock itself. NULL is fine. */
void sopfs_item_put(struct sopfs *f, struct sopfs_item *item);

struct sopfs_view *sopfs_view_add(
	struct sopfs *f, struct sopfs_item *item, enum sopfs_view_kind kind);
/* Free it when nobody refers to it, and its item then too. */
void sopfs_view_reap(struct sopfs *f, struct sopfs_view *v);
/* The one of the committed version, made when missing. */
struct sopfs_view *sopfs_view_current(struct sopfs *f, struct sopfs_item *item);
/* This one is it from now on; there must be none. What the kernel has of its size must be right:
 * its answer to a question for it is thrown away if a note comes in between, and then a read ends
 * where the file ended before. */
void sopfs_view_becomes_current(struct sopfs_item *item, struct sopfs_view *v);
/* This version from now on; the kernel has heard, if anything, of the size of the one before. */
static inline void sopfs_view_shows(struct sopfs_view *v, uint64_t version)
{
	v->unsized = v->unsized || v->version != version;
	v->version = version;
}

bool sopfs_name_known(const struct sopfs_item *item, uint64_t store, const char *name, size_t len);
int sopfs_name_add(struct sopfs_item *item, uint64_t store, const char *name, size_t len);
void sopfs_name_remove(struct sopfs_item *item, uint64_t store, const char *name, size_t len);
/* False when the item has no name. One of several names, of which we know none that is left, is
 * found by its number. */
bool sopfs_item_where(const struct sopfs_item *item, struct sopfs_where *w);

/* Where it lies below the mount, by one of its names ("/a/b"); what is not known of it begins with
 * "...". */
void sopfs_item_path(struct sopfs *f, const struct sopfs_item *item, char *buf, size_t size);

/* Names that are not committed. */
struct sopfs_item *sopfs_overlay_find(
	struct sopfs *f, uint64_t store, const char *name, size_t len);
void sopfs_overlay_add(struct sopfs *f, struct sopfs_item *item); /* by its one name */
void sopfs_overlay_remove(struct sopfs *f, struct sopfs_item *item);
bool sopfs_overlay_has_store(struct sopfs *f, uint64_t store);

#endif
