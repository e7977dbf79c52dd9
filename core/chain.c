#include "core/chain.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#include "core/ec.h"
#include "core/format.h"
#include "core/lock.h"
#include "core/patience.h"

/* Registers are files. A record is staged under a name that is never used twice (its file may have
 * become a register), written, synced, and linked to the register's name; then the first name goes.
 *
 * A crash leaves staged files, which whoever is alone next removes, and half-placed records, which
 * the next who reads the slot finishes. */

#define NAME   64
#define STAGE  SOP_PATH_SLOTS "/stage."
#define COMMIT SOP_PATH_SLOTS "/commit."
#define LIVE   SOP_PATH_SLOTS "/live."
#define IMAGE  SOP_PATH_SLOTS "/image."
#define FLOOR  SOP_PATH_FLOORS "/"
/* Records that one run can meet: its own, and those of others. Whoever put one into a round saw
 * none of the rounds before, so these are on replicas without which there is a majority. */
#define KNOWN (1 + (SOP_SLOT_REPLICAS + 1) / 2)

/* ---- records in memory, counted: a thread that hangs holds on to one ---- */

struct record {
	atomic_uint refs;
	struct sop_chain_record r; /* payload points behind raw's header */
	size_t len;
	uint8_t raw[]; /* the file */
};

static struct record *record_get(struct record *x)
{
	atomic_fetch_add(&x->refs, 1);
	return x;
}

static void record_put(struct record *x)
{
	if (x && atomic_fetch_sub(&x->refs, 1) == 1)
		free(x);
}

static struct record *record_new(const struct sop_uuid *volume, const struct sop_chain_record *r)
{
	struct sop_disk_commit h;
	struct record *x;

	if (r->len > SOP_SLOT_RECORD_MAX)
		return NULL;
	x = calloc(1, sizeof(*x) + sizeof(h) + r->len);
	if (!x)
		return NULL;
	sop_slot_header_encode(&h, r, volume);
	atomic_init(&x->refs, 1);
	x->len = sizeof(h) + r->len;
	memcpy(x->raw, &h, sizeof(h));
	if (r->len)
		memcpy(x->raw + sizeof(h), r->payload, r->len);
	x->r = *r;
	x->r.payload = x->raw + sizeof(h);
	return x;
}

/* ---- operations on one replica, on its thread ---- */

enum verb { DO_SLOT, DO_MAKE, DO_PROBE, DO_TRIM, DO_FLOOR, DO_ENTER, DO_ALIVE, DO_END };

/* What a file system lacks. */
enum unfit { FIT, NO_LINK, LINK_REPLACES, NO_LOCK, LOCK_TWICE };

struct op {
	enum verb verb;
	enum sop_slot_op slot_op;
	uint64_t slot; /* TRIM: the floor */
	uint64_t who;  /* TRIM: made its image; ALIVE: the mounter */
	unsigned round;
	bool alone;
	struct record *record; /* STAGE, LINK */
	unsigned stage;	       /* number of the staged file */
	/* answers */
	int rc;
	struct sop_slot_id value;
	struct sop_image floor;
	struct record *got; /* READ */
	enum unfit unfit;   /* PROBE */
};

struct replica {
	struct sop_disk *disk; /* held; NULL: is not there */
	struct sop_uuid volume;
	uint64_t who;
	/* The thread's; refs under lock: the chain and the thread. */
	struct sop_lock lock;
	pthread_cond_t cond;
	pthread_t thread;
	bool threaded, busy, stop;
	bool late; /* nobody waits for what it does any more */
	int refs;
	struct op op;
	char staged[2][NAME];  /* the record's file, NIL's: to be linked, or removed */
	struct sop_file *live; /* locked as long as this mounter lives; or NULL */
};

static void register_path(char path[NAME], uint64_t slot, unsigned round)
{
	if (round)
		snprintf(path, NAME, COMMIT "%016" PRIx64 ".%u", slot, round);
	else
		snprintf(path, NAME, COMMIT "%016" PRIx64, slot);
}

static int read_register(struct replica *p, struct op *o)
{
	sop_autofree void *raw = NULL;
	struct sop_chain_record r;
	char path[NAME];
	size_t len;
	int rc;

	register_path(path, o->slot, o->round);
	rc = sop_disk_read_file(p->disk, path, &raw, &len,
		sizeof(struct sop_disk_commit) + SOP_SLOT_RECORD_MAX, NULL);
	if (!rc)
		rc = sop_slot_record_decode(&r, raw, len, &p->volume, o->slot);
	if (rc)
		return rc;
	o->got = record_new(&p->volume, &r);
	o->value = r.id;
	return o->got ? 0 : -ENOMEM;
}

/* The header says whose it is; the payload was looked at when it was read. */
static int read_header(struct replica *p, struct op *o)
{
	struct sop_disk_commit h;
	struct iovec iov = {&h, sizeof(h)};
	struct sop_chain_record r;
	struct sop_file *f;
	char path[NAME];
	ssize_t n;
	int rc;

	register_path(path, o->slot, o->round);
	rc = p->disk->ops->file_open(&f, p->disk, path, SOP_OPEN_READ);
	if (rc)
		return rc;
	n = f->ops->preadv(f, &iov, 1, 0);
	f->ops->file_close(f);
	if (n < 0)
		return (int)n;
	rc = n == sizeof(h) ? sop_slot_header_decode(&r, &h, &p->volume, o->slot) : SOP_ECORRUPT;
	if (!rc)
		o->value = r.id;
	return rc;
}

static char *staged_name(struct replica *p, const struct record *x)
{
	return p->staged[x->r.type == SOP_SLOT_NIL];
}

static void unstage(struct replica *p, char *name)
{
	if (name[0])
		(void)p->disk->ops->unlink(p->disk, name); /* what stays is garbage */
	name[0] = '\0';
}

static int stage(struct replica *p, struct op *o)
{
	struct iovec iov = {o->record->raw, o->record->len};
	char *name = staged_name(p, o->record);
	struct sop_file *f;
	ssize_t n;
	int rc;

	unstage(p, name);
	snprintf(name, NAME, STAGE "%016" PRIx64 ".%x", p->who, o->stage);
	rc = p->disk->ops->file_open(
		&f, p->disk, name, SOP_OPEN_WRITE | SOP_OPEN_CREATE | SOP_OPEN_EXCL);
	if (rc) {
		name[0] = '\0';
		return rc;
	}
	n = f->ops->pwritev(f, &iov, 1, 0);
	rc = n < 0 ? (int)n : f->ops->datasync(f);
	f->ops->file_close(f);
	if (rc)
		unstage(p, name);
	return rc;
}

static int link_register(struct replica *p, struct op *o)
{
	char path[NAME], *name = staged_name(p, o->record);
	int rc;

	if (!name[0])
		return -ENOENT;
	register_path(path, o->slot, o->round);
	rc = p->disk->ops->link(p->disk, name, path);
	unstage(p, name);
	/* The machine takes -ENOENT of a link for no answer, which it is. */
	return rc;
}

/* ---- the floor: the highest name in its folder, so that no sleeper can bring it down ---- */

struct floors {
	struct sop_image top;
};

static bool floor_of(struct sop_image *out, const char *name)
{
	unsigned long long slot, who;
	int at = 0;

	if (sscanf(name, "%16llx.%16llx%n", &slot, &who, &at) != 2 || at != 33 || name[at])
		return false;
	*out = (struct sop_image){.slot = slot, .who = who};
	return true;
}

static int floor_found(void *arg, const char *name)
{
	struct floors *f = arg;
	struct sop_image one;

	if (floor_of(&one, name) && one.slot > f->top.slot)
		f->top = one;
	return 0;
}

static int read_floor(struct replica *p, struct sop_image *floor)
{
	struct floors f = {0};
	int rc = p->disk->ops->list(p->disk, SOP_PATH_FLOORS, floor_found, &f);

	*floor = f.top;
	return rc == -ENOENT ? 0 : rc;
}

static int write_floor(struct replica *p, uint64_t slot, uint64_t who)
{
	char path[NAME];
	struct sop_file *f;
	int rc;

	snprintf(path, NAME, FLOOR "%016" PRIx64 ".%016" PRIx64, slot, who);
	rc = p->disk->ops->file_open(
		&f, p->disk, path, SOP_OPEN_WRITE | SOP_OPEN_CREATE | SOP_OPEN_EXCL);
	if (!rc)
		f->ops->file_close(f);
	return rc == -EEXIST ? 0 : rc;
}

/* ---- letting go of slots ---- */

struct names {
	struct op *o;
	const char *folder;
	bool (*needless)(const struct op *o, const char *name);
	char (*name)[NAME];
	size_t n, cap;
};

static bool numbered(const char *name, const char *kind, uint64_t *slot)
{
	size_t len = strlen(kind);
	unsigned long long x;
	int at = 0;

	if (strncmp(name, kind, len) != 0 || sscanf(name + len, "%16llx%n", &x, &at) != 1 ||
		at != 16 || (name[len + 16] && name[len + 16] != '.'))
		return false;
	*slot = x;
	return true;
}

static bool slot_needless(const struct op *o, const char *name)
{
	uint64_t slot;

	if (!strncmp(name, "stage.", 6) || !strncmp(name, "live.", 5))
		return o->alone;
	if (numbered(name, "commit.", &slot))
		return slot < o->slot;
	/* Of who is alone the checkpoint has its own name. */
	return numbered(name, "image.", &slot) && (slot < o->slot || o->alone);
}

/* The one before stays: who lists the folder now may miss what is new in it. */
static bool floor_needless(const struct op *o, const char *name)
{
	struct sop_image one;

	return floor_of(&one, name) && one.slot < o->floor.slot;
}

static int name_found(void *arg, const char *name)
{
	struct names *l = arg;

	char path[NAME + 256];
	int n = snprintf(path, sizeof(path), "%s/%s", l->folder, name);

	if (n < 0 || n >= NAME || !l->needless(l->o, name))
		return 0;
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 64;
		void *p = reallocarray(l->name, cap, NAME);

		if (!p)
			return -ENOMEM;
		l->name = p;
		l->cap = cap;
	}
	memcpy(l->name[l->n++], path, (size_t)n + 1);
	return 0;
}

static bool is_late(struct replica *p)
{
	SOP_LOCK_GUARD(&p->lock);
	return p->late;
}

/* What cannot be removed now is, next time. So is what was found too late: others may have been let
 * in since, and some of it be theirs. */
static void remove_needless(struct replica *p, struct op *o, const char *folder,
	bool (*needless)(const struct op *o, const char *name))
{
	struct names l = {.o = o, .folder = folder, .needless = needless};

	(void)p->disk->ops->list(p->disk, folder, name_found, &l);
	if (o->alone && is_late(p))
		l.n = 0;
	for (size_t i = 0; i < l.n; i++)
		(void)p->disk->ops->unlink(p->disk, l.name[i]);
	free(l.name);
}

/* The floor is durable before a register goes: see SHARED.md, section 5. Whoever has made the one
 * that is there may not have come as far as its sync. */
static int trim(struct replica *p, struct op *o)
{
	int rc = read_floor(p, &o->floor);

	if (!rc && o->floor.slot < o->slot)
		rc = write_floor(p, o->slot, o->who);
	if (!rc)
		rc = p->disk->ops->syncdir(p->disk, SOP_PATH_FLOORS);
	if (rc)
		return rc;
	remove_needless(p, o, SOP_PATH_FLOORS, floor_needless);
	remove_needless(p, o, SOP_PATH_SLOTS, slot_needless);
	return 0;
}

/* ---- who lives ---- */

static void live_path(char path[NAME], uint64_t who)
{
	snprintf(path, NAME, LIVE "%016" PRIx64, who);
}

static int enter(struct replica *p)
{
	char path[NAME];
	int rc;

	live_path(path, p->who);
	rc = p->disk->ops->file_open(
		&p->live, p->disk, path, SOP_OPEN_WRITE | SOP_OPEN_CREATE | SOP_OPEN_EXCL);
	if (rc) {
		p->live = NULL;
		return rc;
	}
	rc = p->live->ops->lock(p->live);
	if (rc) {
		p->live->ops->file_close(p->live);
		p->live = NULL;
	}
	return rc;
}

static void leave(struct replica *p)
{
	char path[NAME];

	if (!p->live)
		return;
	live_path(path, p->who);
	(void)p->disk->ops->unlink(p->disk, path);
	p->live->ops->file_close(p->live);
	p->live = NULL;
}

/* -EAGAIN: it holds its lock. A file that is not there is of one that has ended, or could not make
 * it here: the others say which. */
static int alive(struct replica *p, uint64_t who)
{
	struct sop_file *f;
	char path[NAME];
	int rc;

	live_path(path, who);
	rc = p->disk->ops->file_open(&f, p->disk, path, SOP_OPEN_WRITE);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = f->ops->lock(f);
	f->ops->file_close(f);
	return rc;
}

static int make_folder(struct replica *p)
{
	int rc = p->disk->ops->mkdir(p->disk, SOP_PATH_SLOTS);

	if (!rc)
		rc = p->disk->ops->syncdir(p->disk, "");
	if (!rc)
		rc = p->disk->ops->mkdir(p->disk, SOP_PATH_FLOORS);
	return rc ? rc : p->disk->ops->syncdir(p->disk, SOP_PATH_SLOTS);
}

/* ---- is the file system fit for it? ---- */

static const char *unfit_text(enum unfit x)
{
	switch (x) {
	case FIT:
		break;
	case NO_LINK:
		return "its file system has no hard links";
	case LINK_REPLACES:
		return "its file system makes a link though the name is there";
	case NO_LOCK:
		return "its file system has no locks (flock)";
	case LOCK_TWICE:
		return "its file system lets two have one lock (flock)";
	}
	return "";
}

static bool has_not(int rc)
{
	return rc == -EPERM || rc == -EOPNOTSUPP || rc == -ENOSYS || rc == -ENOLCK;
}

static enum unfit probe_link(struct replica *p, const char *file, const char *name)
{
	int rc = p->disk->ops->link(p->disk, file, name);

	if (has_not(rc))
		return NO_LINK;
	if (rc)
		return FIT; /* no answer */
	rc = p->disk->ops->link(p->disk, file, name);
	(void)p->disk->ops->unlink(p->disk, name);
	return rc ? FIT : LINK_REPLACES;
}

static enum unfit probe_lock(struct replica *p, struct sop_file *f, const char *file)
{
	int rc = f->ops->lock(f);
	struct sop_file *other;

	if (has_not(rc))
		return NO_LOCK;
	if (rc || p->disk->ops->file_open(&other, p->disk, file, SOP_OPEN_WRITE))
		return FIT;
	rc = other->ops->lock(other);
	other->ops->file_close(other);
	return rc ? FIT : LOCK_TWICE;
}

/* Files of a name that is removed by who is alone next, should we be killed. */
static int probe(struct replica *p, struct op *o)
{
	char file[NAME], name[NAME];
	struct sop_file *f;
	enum unfit x;

	snprintf(file, NAME, STAGE "%016" PRIx64 ".probe", p->who);
	snprintf(name, NAME, STAGE "%016" PRIx64 ".probed", p->who);
	if (p->disk->ops->file_open(
		    &f, p->disk, file, SOP_OPEN_WRITE | SOP_OPEN_CREATE | SOP_OPEN_EXCL))
		return 0;
	x = probe_link(p, file, name);
	if (!x)
		x = probe_lock(p, f, file);
	f->ops->file_close(f);
	(void)p->disk->ops->unlink(p->disk, file);
	o->unfit = x;
	return x ? -EOPNOTSUPP : 0;
}

static int perform_slot(struct replica *p, struct op *o)
{
	int rc;

	switch (o->slot_op) {
	case SOP_SLOT_READ:
		return read_register(p, o);
	case SOP_SLOT_STAGE:
		return stage(p, o);
	case SOP_SLOT_LINK:
		return link_register(p, o);
	case SOP_SLOT_SYNC:
		rc = p->disk->ops->syncdir(p->disk, SOP_PATH_SLOTS);
		/* To the machine -ENOENT means that it is known not to be there. */
		return rc ? (rc == -ENOENT ? -EIO : rc) : read_header(p, o);
	case SOP_SLOT_FLOOR:
		return read_floor(p, &o->floor);
	}
	return -EINVAL;
}

static void perform(struct replica *p, struct op *o)
{
	switch (o->verb) {
	case DO_SLOT:
		o->rc = perform_slot(p, o);
		return;
	case DO_MAKE:
		o->rc = make_folder(p);
		return;
	case DO_PROBE:
		o->rc = probe(p, o);
		return;
	case DO_TRIM:
		o->rc = trim(p, o);
		return;
	case DO_FLOOR:
		o->rc = read_floor(p, &o->floor);
		return;
	case DO_ENTER:
		o->rc = enter(p);
		return;
	case DO_ALIVE:
		o->rc = alive(p, o->who);
		return;
	case DO_END:
		unstage(p, p->staged[0]);
		unstage(p, p->staged[1]);
		leave(p);
		o->rc = 0;
		return;
	}
}

/* ---- the threads ---- */

static void op_release(struct op *o)
{
	record_put(o->record);
	record_put(o->got);
	o->record = o->got = NULL;
}

/* The lock is held, and let go of. */
static void replica_put(struct replica *p)
{
	bool last = --p->refs == 0;

	sop_unlock(&p->lock);
	if (!last)
		return;
	op_release(&p->op);
	if (p->live)
		p->live->ops->file_close(p->live);
	sop_disk_close(p->disk);
	pthread_cond_destroy(&p->cond);
	sop_lock_release(&p->lock);
	free(p);
}

static void *replica_thread(void *arg)
{
	struct replica *p = arg;

	pthread_setname_np(pthread_self(), "sop-slots");
	sop_lock(&p->lock);
	for (;;) {
		while (!p->busy && !p->stop)
			sop_cond_wait(&p->cond, &p->lock, -1);
		if (!p->busy)
			break;
		sop_unlock(&p->lock);
		perform(p, &p->op);
		sop_lock(&p->lock);
		p->busy = false;
		pthread_cond_broadcast(&p->cond);
	}
	replica_put(p);
	return NULL;
}

struct sop_chain {
	struct sop_members *mem;
	struct sop_uuid volume;
	unsigned timeout_ms, n;
	uint64_t who, seq;
	unsigned stages;
	struct replica *replica[SOP_SLOT_REPLICAS];
	struct record *known[KNOWN], *out[2]; /* handed out by this call, and the one before */
	struct record *nil;		      /* of the slot of the run */
	int trouble;			      /* the last error of a replica, for messages */
};

static int replica_new(struct replica **out, struct sop_chain *c, struct sop_disk *d, bool threaded)
{
	struct replica *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return -ENOMEM;
	p->disk = d;
	p->volume = c->volume;
	p->who = c->who;
	p->refs = 1;
	sop_lock_init(&p->lock, SOP_RANK_LEAF, "slots of a replica");
	sop_cond_init(&p->cond);
	if (d)
		sop_disk_get(d);
	*out = p;
	if (!d || !threaded)
		return 0;
	p->refs = 2;
	rc = pthread_create(&p->thread, NULL, replica_thread, p);
	if (rc) {
		p->refs = 1;
		return -rc;
	}
	p->threaded = true;
	return 0;
}

/* One operation on each replica of the mask. The answers are in op of each that is in *done. */
static void run_ops(struct sop_chain *c, uint32_t mask, const struct op *what, uint32_t *done)
{
	struct sop_patience patience = sop_patience(c->timeout_ms);
	uint32_t sent = 0;

	*done = 0;
	for (unsigned i = 0; i < c->n; i++) {
		struct replica *p = c->replica[i];

		if (!(mask & 1u << i) || !p->disk)
			continue;
		sop_lock(&p->lock);
		if (!p->busy) {
			op_release(&p->op);
			p->op = *what;
			if (what->record)
				record_get(what->record);
			sent |= 1u << i;
			p->busy = p->threaded;
			p->late = false;
			pthread_cond_broadcast(&p->cond);
		}
		sop_unlock(&p->lock);
		if (sent & 1u << i && !p->threaded) {
			perform(p, &p->op);
			*done |= 1u << i;
		}
	}
	for (unsigned i = 0; i < c->n; i++) {
		struct replica *p = c->replica[i];
		uint64_t ms;

		if (!(sent & 1u << i) || *done & 1u << i)
			continue;
		sop_lock(&p->lock);
		while (p->busy && (ms = sop_patience_slice(&patience)))
			sop_cond_wait(&p->cond, &p->lock, (long)ms);
		if (p->busy)
			p->late = true;
		else
			*done |= 1u << i;
		sop_unlock(&p->lock);
	}
}

/* ---- runs ---- */

static void forget(struct sop_chain *c)
{
	for (unsigned i = 0; i < KNOWN; i++) {
		record_put(c->known[i]);
		c->known[i] = NULL;
	}
	record_put(c->nil);
	c->nil = NULL;
}

static struct record *find(struct sop_chain *c, struct sop_slot_id id)
{
	if (!id.who && !id.seq)
		return c->nil;
	for (unsigned i = 0; i < KNOWN; i++)
		if (c->known[i] && sop_slot_id_equal(c->known[i]->r.id, id))
			return c->known[i];
	return NULL;
}

static void keep(struct sop_chain *c, struct record *x)
{
	if (find(c, x->r.id))
		return;
	for (unsigned i = 0; i < KNOWN; i++)
		if (!c->known[i]) {
			c->known[i] = record_get(x);
			return;
		}
}

static void step(struct sop_chain *c, struct sop_slot_run *run)
{
	const struct sop_slot_want want = *sop_slot_next(run);
	struct op o = {.verb = DO_SLOT,
		.slot_op = want.op,
		.slot = want.slot,
		.round = want.round,
		.stage = ++c->stages};
	bool writes = want.op == SOP_SLOT_STAGE || want.op == SOP_SLOT_LINK;
	uint32_t done = 0;

	o.record = writes ? find(c, want.value) : NULL;
	/* What has been seen is known, unless memory ran out: then nobody answers. */
	if (!writes || o.record)
		run_ops(c, want.mask, &o, &done);
	for (unsigned i = 0; i < c->n; i++) {
		struct sop_slot_answer a = {.rc = -ETIMEDOUT};
		const struct op *x = &c->replica[i]->op;

		if (!(want.mask & 1u << i) || !sop_slot_next(run))
			continue;
		if (done & 1u << i)
			a = (struct sop_slot_answer){x->rc, x->value, x->floor.slot};
		else if (!c->replica[i]->disk)
			a.rc = -ENODEV;
		if (!a.rc && x->got)
			keep(c, x->got);
		if (a.rc && a.rc != -ENOENT && a.rc != -EEXIST)
			c->trouble = a.rc;
		sop_slot_answer(run, i, &a);
	}
}

static int run(struct sop_chain *c, struct sop_slot_run *r, struct sop_chain_record *out,
	struct sop_err *e)
{
	const struct sop_chain_record nil = {.slot = r->slot, .type = SOP_SLOT_NIL};
	struct record *x;

	c->trouble = 0;
	c->nil = record_new(&c->volume, &nil);
	if (!c->nil)
		return sop_fail(e, -ENOMEM, "commit slot");
	while (sop_slot_next(r))
		step(c, r);
	switch ((enum sop_slot_outcome)r->outcome) {
	case SOP_SLOT_EMPTY:
		return 0;
	case SOP_SLOT_DECIDED:
		x = find(c, r->value);
		if (!x)
			return sop_fail(e, -ENOMEM, "commit slot");
		record_put(c->out[1]);
		c->out[1] = c->out[0];
		c->out[0] = record_get(x);
		*out = x->r;
		return 1;
	case SOP_SLOT_STALE:
		return sop_say(e, -ESTALE, "slot %" PRIu64 " has been let go of", r->slot);
	case SOP_SLOT_BROKEN:
		return sop_say(e, SOP_ECORRUPT,
			"slot %" PRIu64 " holds two records: its files have been changed", r->slot);
	case SOP_SLOT_DOUBT:
	case SOP_SLOT_RUNNING:
		break;
	}
	if (c->trouble == -ENOSPC || c->trouble == -EDQUOT)
		return sop_fail(e, -ENOSPC, "slot %" PRIu64, r->slot);
	if (!c->trouble && r->mode == SOP_SLOT_LOOK)
		return sop_say(e, SOP_EDISKS,
			"slot %" PRIu64 ": a commit was cut off there, and whoever only looks "
			"cannot settle it; a mount for writing or fsck.sopfs -y does",
			r->slot);
	return sop_say(e, SOP_EDISKS,
		"slot %" PRIu64 ": too few of the %u disks that hold the registry answer (%s)",
		r->slot, c->n, c->trouble ? sop_err_text(c->trouble) : "they disagree");
}

int sop_chain_settle(
	struct sop_chain *c, uint64_t slot, struct sop_chain_record *out, struct sop_err *e)
{
	struct sop_slot_run r;
	int rc;

	sop_slot_begin(&r, c->n, slot, SOP_SLOT_SETTLE, (struct sop_slot_id){0});
	rc = run(c, &r, out, e);
	forget(c);
	return rc;
}

int sop_chain_look(struct sop_chain *c, uint64_t slot, struct sop_chain_record *out, bool *begun,
	struct sop_err *e)
{
	struct sop_slot_run r;
	int rc;

	sop_slot_begin(&r, c->n, slot, SOP_SLOT_LOOK, (struct sop_slot_id){0});
	rc = run(c, &r, out, e);
	forget(c);
	*begun = sop_slot_begun(&r);
	return rc;
}

int sop_chain_propose(struct sop_chain *c, struct sop_chain_record *in,
	struct sop_chain_record *out, bool *own, bool *placed, struct sop_err *e)
{
	struct sop_slot_run r;
	int rc;

	*own = *placed = false;
	if (in->len > SOP_SLOT_RECORD_MAX)
		return sop_say(e, -EFBIG, "a transaction of %zu bytes", in->len);
	if (!in->id.who)
		in->id = (struct sop_slot_id){c->who, ++c->seq};
	c->known[0] = record_new(&c->volume, in);
	if (!c->known[0])
		return sop_fail(e, -ENOMEM, "commit slot");
	sop_slot_begin(&r, c->n, in->slot, SOP_SLOT_PROPOSE, in->id);
	rc = run(c, &r, out, e);
	forget(c);
	*placed = r.placed;
	*own = rc == 1 && sop_slot_id_equal(r.value, in->id);
	return rc;
}

/* How many replicas have done it well. */
static unsigned good(const struct sop_chain *c, uint32_t done)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += done & 1u << i && !c->replica[i]->op.rc;
	return n;
}

int sop_chain_trim(
	struct sop_chain *c, const struct sop_image *floor, bool alone, struct sop_err *e)
{
	const struct op o = {
		.verb = DO_TRIM, .slot = floor->slot, .who = floor->who, .alone = alone};
	uint32_t done;
	unsigned n;

	run_ops(c, UINT32_MAX, &o, &done);
	n = good(c, done);
	return 2 * n > c->n ? 0
			    : sop_say(e, SOP_EDISKS, "%u of %u disks take the end of the slots", n,
				      c->n);
}

int sop_chain_floor(struct sop_chain *c, struct sop_image *floor, struct sop_err *e)
{
	const struct op o = {.verb = DO_FLOOR};
	uint32_t done;

	run_ops(c, UINT32_MAX, &o, &done);
	*floor = (struct sop_image){0};
	if (2 * good(c, done) <= c->n)
		return sop_say(e, SOP_EDISKS,
			"too few of the %u disks that hold the registry say where the slots begin",
			c->n);
	for (unsigned i = 0; i < c->n; i++) {
		const struct op *x = &c->replica[i]->op;

		if (done & 1u << i && !x->rc && x->floor.slot > floor->slot)
			*floor = x->floor;
	}
	return 0;
}

int sop_chain_enter(struct sop_chain *c, struct sop_err *e)
{
	const struct op o = {.verb = DO_ENTER};
	uint32_t done;

	run_ops(c, UINT32_MAX, &o, &done);
	return 2 * good(c, done) > c->n
		       ? 0
		       : sop_say(e, SOP_EDISKS,
				 "too few of the %u disks that hold the registry take a lock",
				 c->n);
}

bool sop_chain_dead(struct sop_chain *c, uint64_t who)
{
	const struct op o = {.verb = DO_ALIVE, .who = who};
	uint32_t done;

	run_ops(c, UINT32_MAX, &o, &done);
	for (unsigned i = 0; i < c->n; i++)
		if (done & 1u << i && c->replica[i]->op.rc == -EAGAIN)
			return false;
	return 2 * good(c, done) > c->n;
}

void sop_chain_image_path(char path[SOP_CHAIN_PATH], const struct sop_image *image)
{
	snprintf(path, SOP_CHAIN_PATH, IMAGE "%016" PRIx64 ".%016" PRIx64, image->slot, image->who);
}

uint64_t sop_chain_who(const struct sop_chain *c)
{
	return c->who;
}

int sop_chain_probe(struct sop_chain *c, struct sop_err *e)
{
	const struct op o = {.verb = DO_PROBE};
	uint32_t done;

	run_ops(c, UINT32_MAX, &o, &done);
	for (unsigned i = 0; i < c->n; i++) {
		const struct replica *p = c->replica[i];

		if (done & 1u << i && p->op.rc)
			return sop_say(e, -EOPNOTSUPP,
				"%s: %s; the folders of a shared volume have to be on one that has "
				"both, for all machines: see sopfs-shared(7)",
				p->disk->name, unfit_text(p->op.unfit));
	}
	return 0;
}

/* ---- opening ---- */

void sop_chain_free(struct sop_chain *c)
{
	const struct op leave = {.verb = DO_END};
	uint32_t done;

	if (!c)
		return;
	run_ops(c, UINT32_MAX, &leave, &done);
	for (unsigned i = 0; i < c->n; i++) {
		struct replica *p = c->replica[i];
		pthread_t thread = p->thread;
		bool threaded = p->threaded, hangs;

		sop_lock(&p->lock);
		p->stop = true;
		hangs = p->busy;
		pthread_cond_broadcast(&p->cond);
		replica_put(p);
		/* One that hangs in its disk is left behind, with what it holds. */
		if (threaded && hangs)
			pthread_detach(thread);
		else if (threaded)
			pthread_join(thread, NULL);
	}
	forget(c);
	record_put(c->out[0]);
	record_put(c->out[1]);
	free(c);
}

int sop_chain_new(struct sop_chain **out, struct sop_members *mem, bool inline_io, bool make,
	struct sop_err *e)
{
	const struct sop_label *l = sop_members_label(mem);
	const struct op folder = {.verb = DO_MAKE};
	struct sop_chain *c = calloc(1, sizeof(*c));
	uint32_t done;
	int rc = 0;

	if (!c)
		return sop_fail(e, -ENOMEM, "commit slots");
	c->mem = mem;
	c->volume = l->volume_uuid;
	c->timeout_ms = sop_members_timeout_ms(mem);
	while (!c->who)
		sop_random(&c->who, sizeof(c->who));
	for (unsigned i = 0; i < l->members && !rc; i++) {
		if (!(l->member[i].role & SOP_ROLE_REGISTRY) ||
			l->member[i].state == SOP_MEMBER_REMOVED)
			continue;
		if (c->n == SOP_SLOT_REPLICAS)
			rc = sop_say(e, -EINVAL,
				"a shared volume has at most %d copies of the registry",
				SOP_SLOT_REPLICAS);
		else
			rc = replica_new(
				&c->replica[c->n++], c, sop_members_disk_any(mem, i), !inline_io);
	}
	if (!rc && !c->n)
		rc = sop_say(e, SOP_EDISKS, "no disk holds the registry");
	if (!rc && make)
		run_ops(c, UINT32_MAX, &folder, &done);
	if (rc) {
		while (c->n && !c->replica[c->n - 1])
			c->n--;
		sop_chain_free(c);
		return rc;
	}
	*out = c;
	return 0;
}
