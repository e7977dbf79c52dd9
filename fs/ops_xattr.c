#include "fs/ops.h"

#include <stdio.h>
#include <sys/xattr.h>

#include "fs/acl.h"
#include "fs/attic.h"
#include "fs/layout.h"
#include "fs/posix.h"
#include "fs/range_view.h"
#include "fs/store_attr.h"

#define XATTR_NAME_LEN_MAX 255

/* Where an item's extended attributes are found: in the newest state, or, while it is not
 * committed, in the transaction that creates it. */
struct place {
	struct sopfs_session *s; /* locked and referenced, or NULL */
	struct sop_txn *txn;
	struct sopfs_where w;
	struct sop_name name;
	bool none; /* there are none */
	bool locked, change, uncommitted;
	struct sopfs_item *attic; /* a file without a name, locked for us */
};

static void place_open_attic(struct sopfs *f, struct sopfs_item *item, struct place *p)
{
	struct sop_txn *t;

	if (!p->locked) {
		pthread_mutex_lock(&item->lock);
		p->attic = item;
	}
	/* No room to make one: as if there was none. */
	if (sopfs_attic_open(f, item, p->change, &t, &p->name, NULL) || !t)
		return;
	p->txn = t;
	p->none = false;
	p->uncommitted = true;
}

/* locked: item.lock is held; change: it is, and the attributes are to be changed. */
static void place_open(
	struct sopfs *f, struct sopfs_view *v, bool locked, bool change, struct place *p)
{
	struct sopfs_item *item = v->item;

	p->s = NULL;
	p->attic = NULL;
	p->none = p->uncommitted = false;
	p->locked = locked;
	p->change = change;
	p->txn = f->latest;
	pthread_mutex_lock(&f->lock);
	if (item->type == S_IFDIR) {
		p->name = SOP_SELF(item->ino);
		p->none = item->nameless;
	} else if (sopfs_item_where(item, &p->w)) {
		p->s = item->provisional;
		p->name = sopfs_where_name(&p->w);
	} else if (v->session && v->session->hidden) {
		p->s = v->session;
		p->w = *p->s->hidden;
		p->name = sopfs_where_name(&p->w);
	} else {
		p->none = true;
	}
	if (p->s)
		p->s->refs++;
	pthread_mutex_unlock(&f->lock);
	if (!p->s) {
		if (p->none && item->type != S_IFDIR)
			place_open_attic(f, item, p);
		return;
	}
	pthread_mutex_lock(&p->s->lock);
	if (p->s->creating && p->s->txn) {
		p->txn = p->s->txn;
		return;
	}
	/* Committed since. */
	pthread_mutex_unlock(&p->s->lock);
	sopfs_session_put(f, p->s);
	p->s = NULL;
}

static void place_close(struct sopfs *f, struct place *p)
{
	if (p->attic)
		pthread_mutex_unlock(&p->attic->lock);
	if (!p->s)
		return;
	pthread_mutex_unlock(&p->s->lock);
	sopfs_session_put(f, p->s);
}

/* Has the item lost the name that it was looked at by? */
static bool place_lost(struct sopfs *f, const struct sopfs_item *item, const struct place *p)
{
	struct sop_attr a;
	bool known;

	if (p->s || p->none || p->uncommitted || item->type == S_IFDIR || p->w.self)
		return false;
	if (f->shared)
		return sop_lookup(p->txn, p->name, &a, NULL) || a.ino != item->ino;
	pthread_mutex_lock(&f->lock);
	known = sopfs_name_known(item, p->w.store, p->w.text, p->w.len);
	pthread_mutex_unlock(&f->lock);
	return !known;
}

/* ---- sop.*: readable, never listed ---- */

static bool is_own(const char *name)
{
	return strncmp(name, "sop.", 4) == 0;
}

static ssize_t copy_out(char *buf, size_t size, const char *text)
{
	size_t len = strlen(text);

	if (size && len > size)
		return -ERANGE;
	if (size)
		memcpy(buf, text, len);
	return (ssize_t)len;
}

static ssize_t layout_get(
	struct sopfs *f, struct sopfs_item *item, char *buf, size_t size, struct sop_err *e)
{
	sop_autofree char *text = NULL;
	int rc = sopfs_layout_text(f, item, &text, e);

	return rc ? rc : copy_out(buf, size, text);
}

static ssize_t own_get(struct sopfs *f, struct sopfs_view *v, const char *name, char *buf,
	size_t size, struct sop_err *e)
{
	struct sop_store_opts o = {0};
	struct sop_volume_stat vs;
	struct sop_attr a;
	char text[SOP_STORE_INFO_BYTES] = "", strings[SOP_STORE_INFO_BYTES];
	int rc = sopfs_item_attr(f, v->item, &a, e), n = -1;
	bool dir = v->item->type == S_IFDIR;

	if (!rc && dir)
		rc = sop_store_info(f->latest, v->item->ino, &o, strings, sizeof(strings), e);
	if (rc)
		return rc;
	if (v->item == f->root && strcmp(name, "sop.options") == 0)
		return copy_out(buf, size, f->o.settings ? f->o.settings : "");
	if (strcmp(name, "sop.layout") == 0 && v->item->type == S_IFREG)
		return layout_get(f, v->item, buf, size, e);
	if (strcmp(name, "sop.version") == 0) {
		n = snprintf(text, sizeof(text), "%llu", (unsigned long long)a.version);
	} else if (strcmp(name, "sop.count") == 0 && dir) {
		n = snprintf(text, sizeof(text), "%llu", (unsigned long long)a.count);
	} else if (strcmp(name, "sop.session") == 0 && dir) {
		n = snprintf(
			text, sizeof(text), "%s", sopfs_dir_direct(f, v->item) ? "write" : "close");
	} else if (strcmp(name, "sop.daemon") == 0 && v->item == f->root) {
		n = snprintf(text, sizeof(text), "%ld", (long)getpid());
	} else if (strcmp(name, "sop.ec") == 0) {
		sop_volume_stat(f->v, &vs);
		n = dir && o.profile ? snprintf(text, sizeof(text), "%s", o.profile)
				     : snprintf(text, sizeof(text), "%u+%u", vs.k, vs.m);
	} else if (dir) {
		n = sopfs_store_attr_get(f, v->item->ino, name, text, sizeof(text), e);
	}
	return n < 0 ? -ENODATA : copy_out(buf, size, text);
}

/* ---- requests ---- */

/* The families there are, as on ext4: -EOPNOTSUPP for another, -EINVAL for one without a name. */
static int check_family(const char *name)
{
	static const char *const families[] = {"user.", "trusted.", "security."};

	if (strcmp(name, SOPFS_ACL_ACCESS) == 0 || strcmp(name, SOPFS_ACL_DEFAULT) == 0 ||
		is_own(name))
		return 0;
	for (size_t i = 0; i < SOP_ARRAY_LEN(families); i++) {
		size_t len = strlen(families[i]);

		if (strncmp(name, families[i], len) == 0)
			return name[len] ? 0 : -EINVAL;
	}
	return -EOPNOTSUPP;
}

/* Names that only root may see are taken out of the list, in place; its length. */
static size_t hide_trusted(char *list, size_t len)
{
	size_t kept = 0;

	for (size_t i = 0, n; i < len; i += n) {
		n = strlen(list + i) + 1;
		if (strncmp(list + i, "trusted.", 8) == 0)
			continue;
		memmove(list + kept, list + i, n);
		kept += n;
	}
	return kept;
}

static ssize_t list_names(struct place *p, bool root, char *buf, size_t size, struct sop_err *e)
{
	sop_autofree char *all = NULL;
	ssize_t n = sop_xattr_list(p->txn, p->name, NULL, 0, e);

	if (n <= 0)
		return n;
	all = malloc((size_t)n);
	if (!all)
		return -ENOMEM;
	n = sop_xattr_list(p->txn, p->name, all, (size_t)n, e);
	if (n < 0)
		return n;
	if (!root)
		n = (ssize_t)hide_trusted(all, (size_t)n);
	if (size && (size_t)n > size)
		return -ERANGE;
	if (size)
		memcpy(buf, all, (size_t)n);
	return n;
}

struct read_call {
	const char *attr; /* NULL: the names of all */
	bool root;
	char *buf;
	size_t size;
};

static ssize_t read_once(struct sopfs *f, struct sopfs_view *v, const struct read_call *c,
	bool locked, bool *lost, struct sop_err *e)
{
	struct place p;
	ssize_t n;

	place_open(f, v, locked, false, &p);
	/* The kernel asks for the capabilities of each file that is written: a new one has none but
	 * by a setxattr in its own transaction. */
	if (p.none || (p.s && !p.s->has_xattr))
		n = c->attr ? -ENODATA : 0;
	else if (c->attr)
		n = sop_xattr_get(p.txn, p.name, c->attr, c->buf, c->size, e);
	else
		n = list_names(&p, c->root, c->buf, c->size, e);
	*lost = place_lost(f, v->item, &p);
	place_close(f, &p);
	return n;
}

/* While the item is renamed its name may be nobody's, or another's: then again, when it is done. */
static ssize_t read_xattr(
	struct sopfs *f, struct sopfs_view *v, const struct read_call *c, struct sop_err *e)
{
	bool lost;
	ssize_t n = read_once(f, v, c, false, &lost, e);

	if (!lost && n != -ENOENT)
		return n;
	pthread_mutex_lock(&v->item->lock);
	n = read_once(f, v, c, true, &lost, e);
	pthread_mutex_unlock(&v->item->lock);
	/* To another mounter. */
	return lost ? -ESTALE : n;
}

static void reply_bytes(struct sopfs *f, fuse_req_t req, ssize_t n, const char *buf, size_t size,
	const struct sop_err *e)
{
	if (n < 0)
		sopfs_reply_rc(f, req, (int)n, e);
	else if (!size)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

/* The access list of a directory that stands for another is the other's. */
static bool stands_for_list(struct sopfs_view **v, const char *name, struct sopfs_view *by)
{
	struct sop_range within;
	bool plain;

	if (!sopfs_is_range((*v)->item) || strcmp(name, SOPFS_ACL_ACCESS))
		return false;
	*by = (struct sopfs_view){.item = sopfs_range_store((*v)->item, &within, &plain)};
	*v = by;
	return true;
}

void sopfs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_view *v = sopfs_view_of(f, ino), by;
	sop_autofree char *buf = size ? malloc(SOP_MIN(size, (size_t)SOPFS_XATTR_MAX)) : NULL;
	struct sop_err e = {0};
	ssize_t n;

	size = SOP_MIN(size, (size_t)SOPFS_XATTR_MAX);
	if (size && !buf) {
		n = -ENOMEM;
	} else if (sopfs_is_ctl(v) && !stands_for_list(&v, name, &by)) {
		n = -ENODATA;
	} else if (is_own(name)) {
		n = own_get(f, v, name, buf, size, &e);
	} else {
		n = check_family(name);
		if (n) {
			reply_bytes(f, req, n, buf, size, &e);
			return;
		}
		n = read_xattr(
			f, v, &(struct read_call){.attr = name, .buf = buf, .size = size}, &e);
		/* ls asks for it of every file, but no more once it is told that there are none
		 * here. */
		if (n == -ENODATA && strcmp(name, "security.selinux") == 0)
			n = -EOPNOTSUPP;
	}
	reply_bytes(f, req, n, buf, size, &e);
}

void sopfs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_view *v = sopfs_view_of(f, ino);
	struct read_call c = {.root = fuse_req_ctx(req)->uid == 0};
	sop_autofree char *buf = NULL;
	struct sop_err e = {0};
	ssize_t n;

	size = SOP_MIN(size, (size_t)SOPFS_XATTR_MAX);
	buf = size ? malloc(size) : NULL;
	if (size && !buf) {
		n = -ENOMEM;
	} else if (sopfs_is_ctl(v)) {
		n = 0;
	} else {
		c.buf = buf;
		c.size = size;
		n = read_xattr(f, v, &c, &e);
	}
	reply_bytes(f, req, n, buf, size, &e);
}

struct xattr_call {
	struct sop_name name;
	uint64_t ino;
	const char *attr;
	const void *val; /* NULL: remove */
	size_t len;
	unsigned flags;
	mode_t mode; /* to go with an access control list; 0: none */
	bool gone;   /* an access list that is taken away, or says no more than the mode */
};

static int xattr_txn(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct xattr_call *c = arg;
	struct sop_attr now = {.ino = c->ino, .ctime = sopfs_now(), .mode = c->mode};
	int rc;

	if (c->val && !c->gone)
		rc = sop_xattr_set(t, c->name, c->attr, c->val, c->len, c->flags, e);
	else
		rc = sop_xattr_remove(t, c->name, c->attr, e);
	if (rc == -ENODATA && c->gone)
		rc = 0;
	if (rc)
		return rc;
	return sop_setattr(t, c->name, &now,
		SOP_ATTR_SAME_INO | SOP_ATTR_CTIME | (c->mode ? SOP_ATTR_MODE : 0), e);
}

/* The caller, by his own groups; root is in all. */
static bool in_group(fuse_req_t req, gid_t gid)
{
	const struct fuse_ctx *c = fuse_req_ctx(req);
	gid_t groups[64];
	int n;

	if (c->uid == 0 || c->gid == gid)
		return true;
	n = fuse_req_getgroups(req, SOP_ARRAY_LEN(groups), groups);
	for (int i = 0; i < SOP_MIN(n, (int)SOP_ARRAY_LEN(groups)); i++)
		if (groups[i] == gid)
			return true;
	return false;
}

/* Who is not in the group may not leave the bit that makes programs run as it. */
static mode_t for_group(fuse_req_t req, mode_t mode, gid_t gid)
{
	return mode & S_ISGID && !in_group(req, gid) ? mode & ~(mode_t)S_ISGID : mode;
}

/* An access list and the mode are two forms of one thing, and change together. item.lock held. */
static int acl_prepare(
	fuse_req_t req, struct sopfs_item *item, struct xattr_call *c, struct sop_err *e)
{
	bool access = strcmp(c->attr, SOPFS_ACL_ACCESS) == 0;
	struct sopfs *f = sopfs_of(req);
	struct sop_attr a;
	int rc;

	if (!access && strcmp(c->attr, SOPFS_ACL_DEFAULT))
		return 0;
	if (!c->val) {
		c->gone = true;
		return 0;
	}
	if (sopfs_acl_check(c->val, c->len))
		return -EINVAL;
	if (!access)
		return item->type == S_IFDIR ? 0 : -EACCES;
	rc = sopfs_item_attr(f, item, &a, e);
	if (rc)
		return rc;
	c->mode = sopfs_acl_mode(c->val, c->len, a.mode);
	c->mode = for_group(req, c->mode, a.gid);
	c->gone = sopfs_acl_is_mode(c->val, c->len);
	return 0;
}

static int session_txn(struct sop_txn *t, void *arg, struct sop_err *e)
{
	const struct xattr_call *c = arg;
	const struct sop_store_opts o = {.session = !c->val			      ? 0
						    : memcmp(c->val, "write", c->len) ? 1
										      : 2};

	return sop_store_set(t, c->name.store, &o, SOP_STORE_SESSION, e);
}

/* Of a directory, by its owner: sop.session (removed, it is inherited), and the options of its
 * store. */
static int own_set(fuse_req_t req, struct sopfs_item *dir, struct xattr_call *c, struct sop_err *e)
{
	struct sopfs *f = sopfs_of(req);
	uid_t uid = fuse_req_ctx(req)->uid;
	struct sop_attr a;
	int rc;

	bool session = strcmp(c->attr, "sop.session") == 0;

	if (dir->type != S_IFDIR || (!session && !c->val))
		return -EPERM;
	if (f->o.read_only)
		return -EROFS;
	if (c->flags & SOP_XATTR_CREATE)
		return -EEXIST;
	if (session && c->val &&
		(c->len != 5 || (memcmp(c->val, "write", 5) && memcmp(c->val, "close", 5))))
		return -EINVAL;
	rc = sopfs_item_attr(f, dir, &a, e);
	if (!rc && uid && uid != a.uid)
		rc = -EPERM;
	if (!rc && a.nlink == 0)
		rc = -ENOENT;
	c->name.store = dir->ino;
	if (!rc && !session) {
		rc = sopfs_store_attr_set(f, dir->ino, c->attr, c->val, c->len, e);
		return rc == -ENODATA ? -EPERM : rc;
	}
	if (!rc)
		rc = sopfs_txn(f, session_txn, c, e);
	/* What lies below may have inherited it. */
	if (sopfs_stands(rc))
		atomic_fetch_add(&f->session_epoch, 1);
	return rc;
}

/* The change itself; c has been prepared (mode, gone), item.lock is held. */
static int apply_xattr(
	struct sopfs *f, struct sopfs_view *v, struct xattr_call *c, struct sop_err *e)
{
	struct place p;
	int rc;

	place_open(f, v, true, true, &p);
	c->name = p.name;
	c->ino = v->item->ino;
	if (p.none) {
		rc = -ENOENT;
	} else if (p.s) {
		rc = xattr_txn(p.txn, c, e);
		p.s->has_xattr = true;
	} else if (p.uncommitted) {
		rc = xattr_txn(p.txn, c, e);
	} else {
		rc = sopfs_name_lost(f, sopfs_txn(f, xattr_txn, c, e));
	}
	place_close(f, &p);
	return rc;
}

static void change_xattr(fuse_req_t req, fuse_ino_t ino, struct xattr_call *c)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_view *v = sopfs_view_of(f, ino);
	struct sopfs_notes notes = {0};
	struct sop_err e = {0};
	int rc;

	if (sopfs_is_ctl(v) || is_own(c->attr)) {
		rc = sopfs_is_ctl(v) ? -EPERM : own_set(req, v->item, c, &e);
		sopfs_reply_rc(f, req, rc, &e);
		return;
	}
	rc = check_family(c->attr);
	if (rc) {
		fuse_reply_err(req, -rc);
		return;
	}
	if (strlen(c->attr) > XATTR_NAME_LEN_MAX || c->len > SOPFS_XATTR_MAX) {
		fuse_reply_err(req, strlen(c->attr) > XATTR_NAME_LEN_MAX ? ERANGE : E2BIG);
		return;
	}
	pthread_mutex_lock(&v->item->lock);
	rc = acl_prepare(req, v->item, c, &e);
	if (!rc)
		rc = apply_xattr(f, v, c, &e);
	pthread_mutex_unlock(&v->item->lock);
	if (!strcmp(c->attr, "security.capability"))
		sopfs_privileges_granted();
	pthread_mutex_lock(&f->lock);
	v->item->default_acl = 0;
	if (sopfs_stands(rc) && v->item->last && c->mode)
		v->item->last->mode = c->mode;
	/* With an access list the mode has changed, and the kernel does not know of it. */
	if (sopfs_stands(rc))
		sopfs_note_attrs(f, &notes, v->item, c->mode || rc ? NULL : v);
	pthread_mutex_unlock(&f->lock);
	sopfs_notify_later(f, &notes);
	sopfs_reply_rc(f, req, rc, &e);
}

/* Grows whenever a file has got something that a write takes away: until then a handle whose writes
 * have been looked at need not be looked at again. */
static atomic_uint granted = 1;

void sopfs_privileges_granted(void)
{
	atomic_fetch_add(&granted, 1);
}

mode_t sopfs_mode_taken(fuse_req_t req, const struct sop_attr *a)
{
	return for_group(req, sopfs_mode_without_suid(a->mode), a->gid);
}

static int drop_mode(fuse_req_t req, struct sopfs_view *v, struct sopfs_handle *h,
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs *f = sopfs_of(req);
	struct sop_attr a;
	bool cache;
	int rc = sopfs_getattr(f, 0, v, h, &a, &cache, notes, e);
	mode_t mode = rc ? 0 : sopfs_mode_taken(req, &a);

	if (rc || mode == a.mode)
		return rc;
	a.mode = mode;
	a.ctime = sopfs_now();
	rc = sopfs_setattr(
		f, fuse_req_ctx(req)->pid, v, &a, SOP_ATTR_MODE | SOP_ATTR_CTIME, notes, e);
	/* The kernel did not ask for it. */
	pthread_mutex_lock(&f->lock);
	sopfs_note_attr(f, notes, v);
	pthread_mutex_unlock(&f->lock);
	return rc;
}

int sopfs_drop_privileges(fuse_req_t req, struct sopfs_view *v, struct sopfs_handle *h,
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct xattr_call c = {.attr = "security.capability"};
	bool root = fuse_req_ctx(req)->uid == 0;
	unsigned now = atomic_load(&granted);
	struct sopfs *f = sopfs_of(req);
	ssize_t n;
	int rc = 0;

	if (h && atomic_load(&h->dropped[root]) == now)
		return 0;
	/* Root's writes leave the bits. */
	if (!root)
		rc = drop_mode(req, v, h, notes, e);
	n = rc ? rc : read_xattr(f, v, &(struct read_call){.attr = c.attr}, e);
	if (n >= 0) {
		pthread_mutex_lock(&v->item->lock);
		n = apply_xattr(f, v, &c, e);
		pthread_mutex_unlock(&v->item->lock);
	}
	/* Of a file that is another's by now its commit tells. */
	if (!rc && n < 0 && n != -ENODATA && n != -ENOENT && n != -ESTALE)
		rc = (int)n;
	if (!rc && h)
		atomic_store(&h->dropped[root], now);
	return rc;
}

void sopfs_op_setxattr(
	fuse_req_t req, fuse_ino_t ino, const char *name, const char *val, size_t len, int flags)
{
	struct xattr_call c = {.attr = name, .val = val ? val : "", .len = len};

	if (flags & XATTR_CREATE)
		c.flags |= SOP_XATTR_CREATE;
	if (flags & XATTR_REPLACE)
		c.flags |= SOP_XATTR_REPLACE;
	change_xattr(req, ino, &c);
}

void sopfs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct xattr_call c = {.attr = name};

	change_xattr(req, ino, &c);
}
