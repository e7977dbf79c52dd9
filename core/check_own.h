/* What the files of a check share: check.c (the walk and the accounts), check_names.c (inodes and
 * the names that lead to them), check_text.c (paths and sentences). Private to these. */
#ifndef SOP_CHECK_OWN_H
#define SOP_CHECK_OWN_H

#include "core/check.h"

struct met { /* a blob met, and how often */
	struct sop_blobref ref;
	uint32_t times;
	bool used;
	bool counted; /* its references are as SHARED says */
	uint8_t lost; /* 1: too few shards are left; 2: there is no such blob */
};

struct name {
	struct name *next;
	uint64_t store;
	size_t len;
	uint8_t key[];
};

struct inode { /* of MASTER, or named by a link */
	struct inode *next;
	uint64_t ino;
	uint64_t parent; /* as a directory's record says */
	uint64_t nlink;
	uint64_t links;	    /* names met */
	struct name *names; /* the same */
	bool here, dir;
	bool entries;	  /* a directory that is not here, and whose tree is */
	uint64_t reached; /* number of the search that came by */
};

struct who { /* the entry that is being looked at */
	uint64_t store, ino;
	const void *key;
	size_t klen;
	bool tree;
};

struct todo {
	uint64_t store;
	bool extents;
	struct who who; /* extents: whose; key malloc'ed */
	uint64_t size;
};

/* Which inode numbers have been met: a bit for each. They are given out one after the other. */
#define NUMBERS_PAGE 4096u
struct numbers {
	struct numbers *next;
	uint64_t page; /* number / NUMBERS_PAGE / 8 */
	uint8_t bits[NUMBERS_PAGE];
};

struct dead_page { /* as DEAD counts it */
	uint64_t segment, page;
	uint32_t bytes;
};

struct sop_check {
	struct sop_volume *v;
	struct sop_check_opts o;
	struct sop_err *e;
	struct sop_check_report r;
	struct sop_check_record *rec;
	size_t n_rec, cap_rec;
	struct met *met;
	size_t n_met, cap_met; /* cap: a power of two */
	struct todo *todo;
	size_t n_todo, cap_todo;
	struct inode **inode;
	size_t n_inode, cap_inode;
	struct sop_frozen *changed; /* nodes that the registry has as they were, or not yet */
	size_t n_changed;
	struct dead_page *dead; /* in order */
	size_t n_dead, cap_dead;
	struct numbers *numbers[1024];
	uint64_t ino_max; /* the highest number of an inode or a store met */
	struct who who;
	uint64_t store;		/* being walked */
	uint64_t seen, subdirs; /* entries of it */
	uint64_t items;
	uint64_t extent_end; /* of the extent before, in an extent tree */
	uint64_t size;	     /* of the value whose extent tree is walked */
	uint64_t done_bytes, total_bytes;
	bool incomplete; /* something could not be reached */
	bool tree_lost;	 /* ... of the tree that is being walked */
};

/* A new record about the entry being looked at; NULL: no memory. */
struct sop_check_record *sop_check_found(struct sop_check *c, enum sop_check_kind kind);
int sop_check_no_memory(struct sop_check *c); /* -ENOMEM, said */

/* check_names.c */
struct inode *sop_check_inode(const struct sop_check *c, uint64_t ino); /* NULL: not met */
int sop_check_inode_get(
	struct sop_check *c, uint64_t ino, struct inode **out); /* made if need be */
/* The entry being looked at is a name of that inode. */
int sop_check_link_met(struct sop_check *c, uint64_t ino, bool dir);
/* All names have been met: do they agree with the inodes? */
int sop_check_names(struct sop_check *c);
void sop_check_names_release(struct sop_check *c);
/* An item's number has been met: 1 when it was before, 0, or negative. */
int sop_check_number_met(struct sop_check *c, uint64_t ino);

/* check_text.c */
void sop_check_report_all(
	const struct sop_check *c, void (*report)(void *arg, const char *line), void *arg);

#endif
