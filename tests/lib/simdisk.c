/* How the simulated machine works.
 *
 * File content is an image: a sparse array of reference-counted 4 KiB pages in reference-counted
 * chunks, copied when written to while shared. So "what is durable" is one reference to the image
 * as it was at the last sync, and a clone of the machine costs a few pointers per file.
 *
 * Each file has the current image, the durable image and the list of changes between them, in
 * order. Each directory has its current names, its durable names, and the changes between them. A
 * sync drops the list and takes the current state as the durable one. A power cut draws, for every
 * list, which of its changes reached the medium.
 *
 * A step at which the machine stops does its change first, as one more change that was not synced:
 * the device may have been in the middle of it. A sync at which it stops does nothing. */
#include "tests/lib/simdisk.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

#define PAGE		 4096u
#define SECTOR		 512u
#define CHUNK_PAGES	 64u
#define SIZE_MAX_OF_FILE ((uint64_t)1 << 44)
#define UNBOUNDED_BYTES	 ((uint64_t)1 << 40)

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	uint64_t z = a + 0x9e3779b97f4a7c15u * (b + 1);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

struct rng {
	uint64_t seed, n;
};

static uint64_t draw(struct rng *r)
{
	return mix(r->seed, r->n++);
}

/* --- images -------------------------------------------------------------------------------------
 */

/* References are atomic because clones, each with a lock of its own, share pages. */
struct page {
	atomic_uint refs;
	_Alignas(max_align_t) uint8_t data[PAGE];
};

struct chunk {
	atomic_uint refs;
	struct page *pages[CHUNK_PAGES]; /* NULL: a hole */
};

/* Bytes at and beyond size are zero, and no page lies wholly beyond it. */
struct image {
	atomic_uint refs;
	uint64_t size;
	uint64_t pages; /* that are no holes */
	size_t n;
	struct chunk **chunks; /* NULL: a hole */
};

/* Allocated and never written. Not counted. */
static struct page zero_page;

static bool last_ref(atomic_uint *refs)
{
	return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

static void add_ref(atomic_uint *refs)
{
	atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

static bool shared(atomic_uint *refs)
{
	return atomic_load_explicit(refs, memory_order_acquire) > 1;
}

static void page_get(struct page *p)
{
	if (p && p != &zero_page)
		add_ref(&p->refs);
}

static void page_put(struct page *p)
{
	if (p && p != &zero_page && last_ref(&p->refs))
		free(p);
}

static void chunk_put(struct chunk *c)
{
	if (!c || !last_ref(&c->refs))
		return;
	for (size_t i = 0; i < CHUNK_PAGES; i++)
		page_put(c->pages[i]);
	free(c);
}

static struct image *image_new(void)
{
	struct image *im = must(calloc(1, sizeof(*im)));

	atomic_init(&im->refs, 1);
	return im;
}

static struct image *image_get(struct image *im)
{
	add_ref(&im->refs);
	return im;
}

static void image_put(struct image *im)
{
	if (!im || !last_ref(&im->refs))
		return;
	for (size_t i = 0; i < im->n; i++)
		chunk_put(im->chunks[i]);
	free(im->chunks);
	free(im);
}

/* Make *im the caller's alone. */
static struct image *image_own(struct image **im)
{
	struct image *old = *im, *own;

	if (!shared(&old->refs))
		return old;
	own = image_new();
	own->size = old->size;
	own->pages = old->pages;
	own->n = old->n;
	own->chunks = must(malloc((old->n + 1) * sizeof(own->chunks[0])));
	for (size_t i = 0; i < old->n; i++) {
		own->chunks[i] = old->chunks[i];
		if (own->chunks[i])
			add_ref(&own->chunks[i]->refs);
	}
	image_put(old);
	*im = own;
	return own;
}

/* The slot of a page, in a chunk that is the image's alone. */
static struct page **image_slot(struct image *im, uint64_t page)
{
	size_t ci = page / CHUNK_PAGES;
	struct chunk *old, *own;

	if (ci >= im->n) {
		im->chunks = must(realloc(im->chunks, (ci + 1) * sizeof(im->chunks[0])));
		memset(im->chunks + im->n, 0, (ci + 1 - im->n) * sizeof(im->chunks[0]));
		im->n = ci + 1;
	}
	old = im->chunks[ci];
	if (!old || shared(&old->refs)) {
		own = must(calloc(1, sizeof(*own)));
		atomic_init(&own->refs, 1);
		for (size_t i = 0; old && i < CHUNK_PAGES; i++) {
			own->pages[i] = old->pages[i];
			page_get(own->pages[i]);
		}
		chunk_put(old);
		im->chunks[ci] = own;
	}
	return &im->chunks[ci]->pages[page % CHUNK_PAGES];
}

static struct page *image_peek(const struct image *im, uint64_t page)
{
	size_t ci = page / CHUNK_PAGES;

	return ci < im->n && im->chunks[ci] ? im->chunks[ci]->pages[page % CHUNK_PAGES] : NULL;
}

/* The bytes of a page for writing. */
static uint8_t *image_page(struct image *im, uint64_t page)
{
	struct page **slot = image_slot(im, page), *old = *slot, *own;

	if (old && old != &zero_page && !shared(&old->refs))
		return old->data;
	own = must(malloc(sizeof(*own)));
	atomic_init(&own->refs, 1);
	if (old)
		memcpy(own->data, old->data, PAGE);
	else
		memset(own->data, 0, PAGE);
	im->pages += !old;
	page_put(old);
	*slot = own;
	return own->data;
}

static void image_write(struct image **im, uint64_t off, const uint8_t *data, uint64_t len)
{
	struct image *own = image_own(im);

	if (len && off + len > own->size)
		own->size = off + len;
	while (len) {
		uint64_t in = off % PAGE, n = SOP_MIN(len, PAGE - in);

		memmove(image_page(own, off / PAGE) + in, data, n);
		off += n;
		data += n;
		len -= n;
	}
}

/* Zero [off, end); whole pages become holes. Keeps the size. */
static void image_punch(struct image **im, uint64_t off, uint64_t end)
{
	struct image *own = image_own(im);

	end = SOP_MIN(end, (uint64_t)own->n * CHUNK_PAGES * PAGE);
	while (off < end) {
		uint64_t in = off % PAGE, n = SOP_MIN(end - off, PAGE - in);
		struct page **slot;

		if (image_peek(own, off / PAGE)) {
			if (n == PAGE) {
				slot = image_slot(own, off / PAGE);
				page_put(*slot);
				*slot = NULL;
				own->pages--;
			} else {
				memset(image_page(own, off / PAGE) + in, 0, n);
			}
		}
		off += n;
	}
}

static void image_truncate(struct image **im, uint64_t size)
{
	struct image *own = image_own(im);

	if (size < own->size)
		image_punch(im, size, sop_round_up(own->size, PAGE));
	own->size = size;
}

static void image_allocate(struct image **im, uint64_t off, uint64_t end)
{
	struct image *own = image_own(im);

	for (uint64_t page = off / PAGE; page < sop_div_up(end, PAGE); page++) {
		struct page **slot = image_slot(own, page);

		own->pages += !*slot;
		if (!*slot)
			*slot = &zero_page;
	}
	own->size = SOP_MAX(own->size, end);
}

/* How many pages [off, end) would add. */
static uint64_t image_missing(const struct image *im, uint64_t off, uint64_t end)
{
	uint64_t n = 0;

	for (uint64_t page = off / PAGE; page < sop_div_up(end, PAGE); page++)
		n += !image_peek(im, page);
	return n;
}

/* Bytes up to the end of the file; returns how many. */
static uint64_t image_read(const struct image *im, uint64_t off, uint8_t *buf, uint64_t len)
{
	uint64_t done = 0;

	len = off < im->size ? SOP_MIN(len, im->size - off) : 0;
	while (done < len) {
		uint64_t in = (off + done) % PAGE, n = SOP_MIN(len - done, PAGE - in);
		const struct page *p = image_peek(im, (off + done) / PAGE);

		if (p)
			memmove(buf + done, p->data + in, n);
		else
			memset(buf + done, 0, n);
		done += n;
	}
	return len;
}

/* --- nodes: files and directories ---------------------------------------------------------------
 */

enum change_kind { CHANGE_WRITE, CHANGE_TRUNCATE, CHANGE_ALLOCATE, CHANGE_PUNCH };

/* A change of a file that is not synced. Shared between clones, never changed. */
struct change {
	atomic_uint refs;
	enum change_kind kind;
	uint64_t off, len; /* TRUNCATE: off is the size */
	uint64_t size_after;
	uint8_t data[];
};

struct name {
	atomic_uint refs;
	size_t len;
	uint64_t hash;
	char text[];
};

struct entry {
	struct name *name;
	struct node *node; /* in a list of changes, NULL: the name went */
	uint64_t op;	   /* in a list of changes: equal for both halves of a rename */
};

struct entries {
	struct entry *e;
	size_t n, capacity;
};

struct node {
	unsigned refs; /* from entries, handles, the disk. Under the sim's lock, as all here */
	unsigned links;
	unsigned handles;
	uint64_t counted; /* pages that are part of the disk's `used` */
	uint64_t mark;
	struct node *copy; /* while cloning */
	const void *locked_by;
	unsigned sharers; /* handles with a shared lock */
	bool is_dir;
	/* a file */
	struct image *now, *durable;
	struct change **changes;
	size_t n_changes, changes_capacity;
	/* a directory */
	struct entries names, names_durable, names_changes;
};

static uint64_t name_hash(const char *text, size_t len)
{
	uint64_t hash = 14695981039346656037u;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (uint8_t)text[i]) * 1099511628211u;
	return hash;
}

static struct name *name_new(const char *text, size_t len)
{
	struct name *n = must(malloc(sizeof(*n) + len + 1));

	atomic_init(&n->refs, 1);
	memcpy(n->text, text, len);
	n->text[len] = '\0';
	n->len = len;
	n->hash = name_hash(text, len);
	return n;
}

static struct name *name_get(struct name *n)
{
	add_ref(&n->refs);
	return n;
}

static void name_put(struct name *n)
{
	if (last_ref(&n->refs))
		free(n);
}

static struct node *node_new(bool is_dir)
{
	struct node *n = must(calloc(1, sizeof(*n)));

	n->refs = 1;
	n->is_dir = is_dir;
	if (!is_dir) {
		n->now = image_new();
		n->durable = image_get(n->now);
	}
	return n;
}

static void changes_clear(struct node *n)
{
	for (size_t i = 0; i < n->n_changes; i++)
		if (last_ref(&n->changes[i]->refs))
			free(n->changes[i]);
	n->n_changes = 0;
}

static void entries_clear(struct entries *s);

static struct node *node_get(struct node *n)
{
	if (n)
		n->refs++;
	return n;
}

static void node_put(struct node *n)
{
	if (!n || --n->refs)
		return;
	image_put(n->now);
	image_put(n->durable);
	changes_clear(n);
	free(n->changes);
	entries_clear(&n->names);
	entries_clear(&n->names_durable);
	entries_clear(&n->names_changes);
	free(n->names.e);
	free(n->names_durable.e);
	free(n->names_changes.e);
	free(n);
}

static void entries_clear(struct entries *s)
{
	for (size_t i = 0; i < s->n; i++) {
		name_put(s->e[i].name);
		node_put(s->e[i].node);
	}
	s->n = 0;
}

static struct entry *entries_named(
	const struct entries *s, const char *text, size_t len, uint64_t hash)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct name *name = s->e[i].name;

		if (name->hash == hash && name->len == len && !memcmp(name->text, text, len))
			return &s->e[i];
	}
	return NULL;
}

static struct entry *entries_find(const struct entries *s, const struct name *name)
{
	return entries_named(s, name->text, name->len, name->hash);
}

static void entries_append(struct entries *s, struct name *name, struct node *node, uint64_t op)
{
	if (s->n == s->capacity) {
		s->capacity = s->capacity ? 2 * s->capacity : 8;
		s->e = must(realloc(s->e, s->capacity * sizeof(s->e[0])));
	}
	s->e[s->n++] = (struct entry){.name = name_get(name), .node = node_get(node), .op = op};
}

/* Let name stand for node; NULL: for nothing. */
static void entries_set(struct entries *s, struct name *name, struct node *node)
{
	struct entry *at = entries_find(s, name);
	size_t i;

	if (!at) {
		if (node)
			entries_append(s, name, node, 0);
		return;
	}
	if (node) {
		node_get(node);
		node_put(at->node);
		at->node = node;
		return;
	}
	name_put(at->name);
	node_put(at->node);
	i = (size_t)(at - s->e);
	memmove(at, at + 1, (s->n - i - 1) * sizeof(*at));
	s->n--;
}

static void entries_copy(struct entries *to, const struct entries *from)
{
	entries_clear(to);
	for (size_t i = 0; i < from->n; i++)
		entries_append(to, from->e[i].name, from->e[i].node, from->e[i].op);
}

/* --- the machine --------------------------------------------------------------------------------
 */

/* Syncs that are not done: the files and directories are owed one. */
struct lie {
	char *what, *until;
	bool names;
	struct node **owed;
	size_t n;
};

struct machine_disk {
	char *path;
	uint64_t bytes; /* 0: no bound */
	uint64_t used;	/* pages */
	struct node *root;
	bool gone;
	int read_rc, write_rc, sync_rc;
	unsigned delay_ms;
	struct handle *own; /* for sim_disk() */
};

struct sim {
	atomic_uint refs; /* of the test, and of each disk that is open */
	pthread_mutex_t lock;
	uint64_t seed;
	struct machine_disk *disks;
	unsigned n;
	uint64_t steps, fail_step, crash_step;
	int fail_rc;
	bool crashed;
	uint64_t boot;	  /* raised by sim_power_on(): handles of another boot are invalid */
	uint64_t next_op; /* numbers the changes of names */
	uint64_t marks;
	struct sim_counts counts;
	uint64_t ios, fail_io; /* reads and steps */
	int fail_io_rc;
	bool fail_io_stays;
	bool (*choose_io)(void *arg, unsigned disk);
	void *choose_io_arg;
	void (*watch)(void *arg);
	void *watch_arg;
	bool watch_due;
	struct lie lie;
};

/* An opened disk. disks[] may move when disks are added: an index, not a pointer. */
struct handle {
	struct sop_disk disk;
	struct sim *sim;
	unsigned i;
	uint64_t boot;
	bool own; /* stays valid over a power cut */
	atomic_uint refs;
};

struct handle_file {
	struct sop_file file;
	struct node *node;
	char *path;  /* as opened */
	bool shares; /* its lock */
	uint64_t boot;
	bool writable;
};

static struct handle *handle_of(struct sop_disk *d)
{
	return (struct handle *)d;
}

static struct handle_file *file_of(struct sop_file *f)
{
	return (struct handle_file *)f;
}

static struct machine_disk *disk_at(struct handle *h)
{
	return &h->sim->disks[h->i];
}

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_SYNC, ACCESS_LOOK };

/* Is it the one of sim_fail_io()? */
static bool io_fails(struct handle *h, enum access access)
{
	struct sim *s = h->sim;

	if ((access != ACCESS_WRITE && s->fail_io_rc == -ENOSPC) || ++s->ios != s->fail_io)
		return false;
	if (!s->choose_io || s->choose_io(s->choose_io_arg, h->i))
		return true;
	s->fail_io++;
	return false;
}

/* Begin an operation: take the lock, after the delay of the disk. 0, or the error it ends with; the
 * lock is held either way, and leave() drops it. LOOK is for what a device does not see. */
static int enter(struct handle *h, uint64_t boot, enum access access)
{
	struct sim *s = h->sim;
	struct machine_disk *d;

	pthread_mutex_lock(&s->lock);
	/* In steps: whoever is held up goes on when the delay is taken away. */
	for (unsigned ms = 0; access != ACCESS_LOOK && ms < disk_at(h)->delay_ms; ms++) {
		const struct timespec t = {.tv_nsec = 1000000};

		pthread_mutex_unlock(&s->lock);
		nanosleep(&t, NULL);
		pthread_mutex_lock(&s->lock);
	}
	d = disk_at(h);
	if (s->crashed || boot != s->boot || d->gone)
		return -EIO;
	if (access == ACCESS_LOOK)
		return 0;
	if (io_fails(h, access)) {
		if (s->fail_io_stays)
			d->read_rc = d->write_rc = d->sync_rc = s->fail_io_rc;
		return s->fail_io_rc;
	}
	if (access == ACCESS_READ)
		return d->read_rc;
	s->steps++;
	if (s->watch && access == ACCESS_SYNC) {
		pthread_mutex_unlock(&s->lock);
		s->watch(s->watch_arg);
		pthread_mutex_lock(&s->lock);
	}
	s->watch_due = s->watch && access == ACCESS_WRITE;
	if (s->steps == s->crash_step)
		s->crashed = true;
	else if (s->steps == s->fail_step)
		return s->fail_rc;
	return access == ACCESS_SYNC ? d->sync_rc : d->write_rc;
}

static ssize_t leave(struct handle *h, ssize_t rc)
{
	struct sim *s = h->sim;
	bool watch = s->watch_due;

	if (s->crashed)
		rc = -EIO;
	s->watch_due = false;
	pthread_mutex_unlock(&s->lock);
	if (watch)
		s->watch(s->watch_arg);
	return rc;
}

static uint64_t boot_of(struct handle *h)
{
	return h->own ? h->sim->boot : h->boot;
}

/* The same for operations on the disk itself. boot is read under the lock for a disk that is always
 * valid. */
static int enter_disk(struct handle *h, enum access access)
{
	uint64_t boot = h->boot;

	if (h->own) {
		pthread_mutex_lock(&h->sim->lock);
		boot = boot_of(h);
		pthread_mutex_unlock(&h->sim->lock);
	}
	return enter(h, boot, access);
}

static int enter_file(struct sop_file *f, enum access access)
{
	return enter(handle_of(f->disk), file_of(f)->boot, access);
}

/* Keep the disk's count of used pages right after a change to a node. */
static void account(struct machine_disk *d, struct node *n)
{
	uint64_t pages = !n->is_dir && (n->links || n->handles) ? n->now->pages : 0;

	d->used = d->used - n->counted + pages;
	n->counted = pages;
}

static bool room_for(const struct machine_disk *d, uint64_t pages)
{
	return !pages || !d->bytes || (d->used + pages) * PAGE <= d->bytes;
}

/* --- paths --------------------------------------------------------------------------------------
 */

/* One part of the path further. */
static int descend(struct node **at, const char **path)
{
	const size_t len = strcspn(*path, "/");
	const struct entry *found;

	if (!(*at)->is_dir)
		return -ENOTDIR;
	found = entries_named(&(*at)->names, *path, len, name_hash(*path, len));
	if (!found)
		return -ENOENT;
	*at = found->node;
	*path += len;
	*path += **path == '/';
	return 0;
}

/* The directory of the last part of path, and that part. An empty path: the root and no name. */
static int walk(struct machine_disk *d, const char *path, struct node **dir, struct name **last)
{
	const char *slash;
	int rc;

	*last = NULL;
	*dir = d->root;
	while ((slash = strchr(path, '/')) && slash[1]) {
		rc = descend(dir, &path);
		if (rc)
			return rc;
	}
	if (!(*dir)->is_dir)
		return -ENOTDIR;
	if (*path)
		*last = name_new(path, strcspn(path, "/"));
	return 0;
}

static int look_up(struct machine_disk *d, const char *path, struct node **out)
{
	int rc = 0;

	*out = d->root;
	while (*path && !rc)
		rc = descend(out, &path);
	return rc;
}

static int look_up_file(struct machine_disk *d, const char *path, struct node **out)
{
	int rc = look_up(d, path, out);

	return rc ? rc : (*out)->is_dir ? -EISDIR : 0;
}

/* Change a name now, to be durable with the next syncdir. */
static void set_name(
	struct machine_disk *d, struct node *dir, struct name *name, struct node *node, uint64_t op)
{
	struct entry *old = entries_find(&dir->names, name);
	struct node *gone = old ? node_get(old->node) : NULL;

	entries_set(&dir->names, name, node);
	entries_append(&dir->names_changes, name, node, op);
	if (node) {
		node->links++;
		account(d, node);
	}
	if (gone) {
		gone->links--;
		account(d, gone);
		node_put(gone);
	}
}

static int create(
	struct sim *s, struct machine_disk *d, const char *path, bool is_dir, struct node **out)
{
	struct node *dir, *node;
	struct name *name;
	int rc = walk(d, path, &dir, &name);

	if (rc)
		return rc;
	if (!name)
		return -EEXIST;
	if (entries_find(&dir->names, name)) {
		name_put(name);
		return -EEXIST;
	}
	node = node_new(is_dir);
	set_name(d, dir, name, node, ++s->next_op);
	node_put(node); /* the directory holds it */
	name_put(name);
	*out = node;
	return 0;
}

/* --- operations on files ------------------------------------------------------------------------
 */

static void sim_put(struct sim *s);

static void handle_put(struct handle *h)
{
	struct sim *s = h->own ? NULL : h->sim;

	if (!last_ref(&h->refs))
		return;
	free(h->disk.name);
	free(h);
	if (s)
		sim_put(s);
}

static void sim_close(struct sop_disk *disk)
{
	struct handle *h = handle_of(disk);

	/* The test's own disk is freed with the sim. */
	if (!h->own)
		handle_put(h);
}

static int sim_file_open(struct sop_file **out, struct sop_disk *disk, const char *path, int flags)
{
	struct handle *h = handle_of(disk);
	struct handle_file *f;
	struct node *node = NULL;
	bool make = false;
	int rc;

	/* An open that finds its file changes nothing: no step. So look first, and start anew as a
	 * step when there is something to create. */
	rc = enter_disk(h, ACCESS_READ);
	if (!rc) {
		rc = look_up(disk_at(h), path, &node);
		make = rc == -ENOENT && (flags & SOP_OPEN_CREATE);
		if (!rc && (flags & SOP_OPEN_CREATE) && (flags & SOP_OPEN_EXCL))
			rc = -EEXIST;
		if (!rc && node->is_dir)
			rc = -EISDIR;
	}
	if (make) {
		pthread_mutex_unlock(&h->sim->lock);
		rc = enter_disk(h, ACCESS_WRITE);
		if (!rc) {
			h->sim->counts.creates++;
			rc = create(h->sim, disk_at(h), path, false, &node);
			/* Another thread was faster; without EXCL that is as good. */
			if (rc == -EEXIST && !(flags & SOP_OPEN_EXCL))
				rc = look_up_file(disk_at(h), path, &node);
		}
	}
	if (!rc && !h->sim->crashed) {
		f = must(calloc(1, sizeof(*f)));
		f->file.ops = disk->ops;
		f->file.disk = disk;
		f->file.fd = -1;
		f->node = node_get(node);
		f->path = must(strdup(path));
		f->boot = h->sim->boot;
		f->writable = flags & SOP_OPEN_WRITE;
		node->handles++;
		account(disk_at(h), node);
		add_ref(&h->refs);
		*out = &f->file;
	}
	return (int)leave(h, rc);
}

static void sim_file_close(struct sop_file *file)
{
	struct handle_file *f = file_of(file);
	struct handle *h = handle_of(file->disk);

	if (!sop_file_put(file))
		return;
	pthread_mutex_lock(&h->sim->lock);
	if (f->boot == h->sim->boot) {
		f->node->handles--;
		account(disk_at(h), f->node);
		if (f->node->locked_by == f)
			f->node->locked_by = NULL;
		f->node->sharers -= f->shares;
	}
	node_put(f->node);
	pthread_mutex_unlock(&h->sim->lock);
	free(f->path);
	free(f);
	handle_put(h);
}

static uint64_t iov_bytes(const struct iovec *iov, int iovcnt)
{
	uint64_t len = 0;

	for (int i = 0; i < iovcnt; i++)
		len += iov[i].iov_len;
	return len;
}

static bool bad_range(uint64_t off, uint64_t len)
{
	uint64_t end;

	return sop_add_over(&end, off, len) || end > SIZE_MAX_OF_FILE;
}

static ssize_t read_image(const struct image *im, const struct iovec *iov, int iovcnt, uint64_t off)
{
	uint64_t done = 0;

	for (int i = 0; i < iovcnt; i++) {
		uint64_t n = image_read(im, off + done, iov[i].iov_base, iov[i].iov_len);

		done += n;
		if (n < iov[i].iov_len)
			break;
	}
	return (ssize_t)done;
}

static ssize_t sim_preadv(struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off)
{
	struct handle *h = handle_of(f->disk);
	ssize_t rc = enter_file(f, ACCESS_READ);

	if (!rc && bad_range(off, iov_bytes(iov, iovcnt)))
		rc = -EINVAL;
	if (!rc) {
		h->sim->counts.reads++;
		h->sim->counts.read_bytes += iov_bytes(iov, iovcnt);
		rc = read_image(file_of(f)->node->now, iov, iovcnt, off);
	}
	return leave(h, rc);
}

/* All is in memory, but a disk that is slow or in trouble does not show it here. */
static ssize_t sim_preadv_cached(
	struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off)
{
	struct handle *h = handle_of(f->disk);
	ssize_t rc = enter_file(f, ACCESS_LOOK);

	if (rc || disk_at(h)->delay_ms || disk_at(h)->read_rc || h->sim->fail_io ||
		bad_range(off, iov_bytes(iov, iovcnt)))
		rc = -EAGAIN;
	else
		rc = read_image(file_of(f)->node->now, iov, iovcnt, off);
	pthread_mutex_unlock(&h->sim->lock);
	return rc;
}

static void apply_change(struct image **im, const struct change *c)
{
	switch (c->kind) {
	case CHANGE_WRITE:
		image_write(im, c->off, c->data, c->len);
		break;
	case CHANGE_TRUNCATE:
		image_truncate(im, c->off);
		break;
	case CHANGE_ALLOCATE:
		image_allocate(im, c->off, c->off + c->len);
		break;
	case CHANGE_PUNCH:
		image_punch(im, c->off, SOP_MIN(c->off + c->len, (*im)->size));
		break;
	}
}

/* Take over c: apply it to the current image, and note it as not synced. */
static void change(struct handle *h, struct node *n, struct change *c)
{
	apply_change(&n->now, c);
	c->size_after = n->now->size;
	if (n->n_changes == n->changes_capacity) {
		n->changes_capacity = n->changes_capacity ? 2 * n->changes_capacity : 8;
		n->changes = must(realloc(n->changes, n->changes_capacity * sizeof(n->changes[0])));
	}
	n->changes[n->n_changes++] = c;
	account(disk_at(h), n);
}

static struct change *change_new(
	enum change_kind kind, uint64_t off, uint64_t len, size_t data_bytes)
{
	struct change *c = must(malloc(sizeof(*c) + data_bytes));

	atomic_init(&c->refs, 1);
	c->kind = kind;
	c->off = off;
	c->len = len;
	return c;
}

static ssize_t sim_pwritev(struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off)
{
	struct handle *h = handle_of(f->disk);
	struct node *n = file_of(f)->node;
	uint64_t len = iov_bytes(iov, iovcnt), at = 0;
	ssize_t rc = enter_file(f, ACCESS_WRITE);
	struct change *c;

	if (!rc && !file_of(f)->writable)
		rc = -EBADF;
	if (!rc && bad_range(off, len))
		rc = -EFBIG;
	if (!rc && !room_for(disk_at(h), image_missing(n->now, off, off + len)))
		rc = -ENOSPC;
	if (!rc) {
		h->sim->counts.writes++;
		h->sim->counts.write_bytes += len;
		c = change_new(CHANGE_WRITE, off, len, len);
		for (int i = 0; i < iovcnt; i++) {
			if (iov[i].iov_len)
				memcpy(c->data + at, iov[i].iov_base, iov[i].iov_len);
			at += iov[i].iov_len;
		}
		change(h, n, c);
		rc = (ssize_t)len;
	}
	return leave(h, rc);
}

static void sync_data(struct node *n)
{
	image_get(n->now);
	image_put(n->durable);
	n->durable = n->now;
	changes_clear(n);
}

static void sync_names(struct node *dir)
{
	for (size_t i = 0; i < dir->names_changes.n; i++)
		entries_set(&dir->names_durable, dir->names_changes.e[i].name,
			dir->names_changes.e[i].node);
	entries_clear(&dir->names_changes);
}

static void pay_up(struct lie *l)
{
	while (l->n) {
		struct node *n = l->owed[--l->n];

		if (n->is_dir)
			sync_names(n);
		else
			sync_data(n);
		node_put(n);
	}
}

/* A sync of the node at path: now, or never, or later. */
static void sync_node(struct sim *s, const char *path, struct node *n)
{
	struct lie *l = &s->lie;

	s->counts.syncs++;
	if (l->until && !strncmp(path, l->until, strlen(l->until)))
		pay_up(l);
	if (l->what && l->names == n->is_dir && !strncmp(path, l->what, strlen(l->what))) {
		l->owed = must(realloc(l->owed, (l->n + 1) * sizeof(l->owed[0])));
		l->owed[l->n++] = node_get(n);
	} else if (n->is_dir) {
		sync_names(n);
	} else {
		sync_data(n);
	}
}

static int sim_datasync(struct sop_file *f)
{
	struct handle *h = handle_of(f->disk);
	int rc = enter_file(f, ACCESS_SYNC);

	if (!rc && !h->sim->crashed)
		sync_node(h->sim, file_of(f)->path, file_of(f)->node);
	return (int)leave(h, rc);
}

static int sim_size(struct sop_file *f, uint64_t *len_bytes)
{
	struct handle *h = handle_of(f->disk);
	int rc = enter_file(f, ACCESS_LOOK);

	if (!rc)
		*len_bytes = file_of(f)->node->now->size;
	return (int)leave(h, rc);
}

static int change_range(struct sop_file *f, enum change_kind kind, uint64_t off, uint64_t len)
{
	struct handle *h = handle_of(f->disk);
	struct node *n = file_of(f)->node;
	int rc = enter_file(f, ACCESS_WRITE);

	if (!rc && !file_of(f)->writable)
		rc = -EBADF;
	if (!rc && bad_range(off, len))
		rc = -EFBIG;
	if (!rc && kind == CHANGE_ALLOCATE &&
		!room_for(disk_at(h), image_missing(n->now, off, off + len)))
		rc = -ENOSPC;
	if (!rc) {
		h->sim->counts.others++;
		change(h, n, change_new(kind, off, len, 0));
	}
	return (int)leave(h, rc);
}

static int sim_truncate(struct sop_file *f, uint64_t len_bytes)
{
	return change_range(f, CHANGE_TRUNCATE, len_bytes, 0);
}

static int sim_allocate(struct sop_file *f, uint64_t off, uint64_t len_bytes)
{
	return len_bytes ? change_range(f, CHANGE_ALLOCATE, off, len_bytes) : 0;
}

static int sim_punch(struct sop_file *f, uint64_t off, uint64_t len_bytes)
{
	return len_bytes ? change_range(f, CHANGE_PUNCH, off, len_bytes) : 0;
}

static int sim_lock(struct sop_file *f)
{
	struct handle *h = handle_of(f->disk);
	struct node *n = file_of(f)->node;
	int rc = enter_file(f, ACCESS_LOOK);

	if (!rc && ((n->locked_by && n->locked_by != f) || n->sharers > file_of(f)->shares))
		rc = -EAGAIN;
	if (!rc) {
		n->locked_by = f;
		n->sharers -= file_of(f)->shares;
		file_of(f)->shares = false;
	}
	return (int)leave(h, rc);
}

static int sim_lock_shared(struct sop_file *f)
{
	struct handle *h = handle_of(f->disk);
	struct node *n = file_of(f)->node;
	int rc = enter_file(f, ACCESS_LOOK);

	if (!rc && n->locked_by && n->locked_by != f)
		rc = -EAGAIN;
	if (!rc) {
		n->locked_by = NULL;
		n->sharers += !file_of(f)->shares;
		file_of(f)->shares = true;
	}
	return (int)leave(h, rc);
}

/* --- operations on names ------------------------------------------------------------------------
 */

static int rename_in(struct sim *s, struct machine_disk *d, const char *from, const char *to)
{
	struct node *from_dir, *to_dir, *node;
	struct name *from_name, *to_name;
	struct entry *old, *found;
	uint64_t op;
	int rc = walk(d, from, &from_dir, &from_name);

	if (rc)
		return rc;
	rc = walk(d, to, &to_dir, &to_name);
	if (rc) {
		if (from_name)
			name_put(from_name);
		return rc;
	}
	found = from_name ? entries_find(&from_dir->names, from_name) : NULL;
	old = to_name ? entries_find(&to_dir->names, to_name) : NULL;
	if (!from_name || !to_name)
		rc = -EBUSY;
	else if (!found)
		rc = -ENOENT;
	else if (old && old->node->is_dir)
		rc = -EISDIR;
	else if (old && found->node->is_dir)
		rc = -ENOTDIR;
	/* Two names of one file: rename(2) does nothing. */
	else if (!old || old->node != found->node) {
		node = node_get(found->node);
		op = ++s->next_op;
		set_name(d, to_dir, to_name, node, op);
		set_name(d, from_dir, from_name, NULL, op);
		node_put(node);
	}
	if (from_name)
		name_put(from_name);
	if (to_name)
		name_put(to_name);
	return rc;
}

static int sim_rename(struct sop_disk *disk, const char *from, const char *to)
{
	struct handle *h = handle_of(disk);
	int rc = enter_disk(h, ACCESS_WRITE);

	if (!rc) {
		h->sim->counts.others++;
		rc = rename_in(h->sim, disk_at(h), from, to);
	}
	return (int)leave(h, rc);
}

static int link_in(struct sim *s, struct machine_disk *d, const char *from, const char *to)
{
	struct node *node, *dir;
	struct name *name;
	int rc = look_up(d, from, &node);

	if (!rc && node->is_dir)
		rc = -EPERM;
	if (!rc)
		rc = walk(d, to, &dir, &name);
	if (rc)
		return rc;
	if (!name)
		return -EEXIST;
	if (entries_find(&dir->names, name))
		rc = -EEXIST;
	else
		set_name(d, dir, name, node, ++s->next_op);
	name_put(name);
	return rc;
}

static int sim_link(struct sop_disk *disk, const char *from, const char *to)
{
	struct handle *h = handle_of(disk);
	int rc = enter_disk(h, ACCESS_WRITE);

	if (!rc) {
		h->sim->counts.others++;
		rc = link_in(h->sim, disk_at(h), from, to);
	}
	return (int)leave(h, rc);
}

static int unlink_in(struct sim *s, struct machine_disk *d, const char *path)
{
	struct node *dir, *node;
	struct name *name;
	int rc = look_up_file(d, path, &node);

	if (rc)
		return rc;
	rc = walk(d, path, &dir, &name);
	if (rc)
		return rc;
	set_name(d, dir, name, NULL, ++s->next_op);
	name_put(name);
	return 0;
}

static int sim_unlink(struct sop_disk *disk, const char *path)
{
	struct handle *h = handle_of(disk);
	int rc = enter_disk(h, ACCESS_WRITE);

	if (!rc) {
		h->sim->counts.others++;
		rc = unlink_in(h->sim, disk_at(h), path);
	}
	return (int)leave(h, rc);
}

static int sim_mkdir(struct sop_disk *disk, const char *path)
{
	struct handle *h = handle_of(disk);
	struct node *node;
	int rc = enter_disk(h, ACCESS_WRITE);

	if (!rc) {
		h->sim->counts.others++;
		rc = create(h->sim, disk_at(h), path, true, &node);
		if (rc == -EEXIST && !look_up(disk_at(h), path, &node))
			rc = node->is_dir ? 0 : -ENOTDIR;
	}
	return (int)leave(h, rc);
}

static int sim_syncdir(struct sop_disk *disk, const char *path)
{
	struct handle *h = handle_of(disk);
	struct node *dir;
	int rc = enter_disk(h, ACCESS_SYNC);

	if (!rc)
		rc = look_up(disk_at(h), path, &dir);
	if (!rc && !dir->is_dir)
		rc = -ENOTDIR;
	if (!rc && !h->sim->crashed)
		sync_node(h->sim, path, dir);
	return (int)leave(h, rc);
}

static int sim_list(
	struct sop_disk *disk, const char *path, int (*fn)(void *arg, const char *name), void *arg)
{
	struct handle *h = handle_of(disk);
	struct name **names = NULL;
	struct node *dir;
	size_t n = 0;
	int rc = enter_disk(h, ACCESS_READ);

	if (!rc)
		rc = look_up(disk_at(h), path, &dir);
	if (!rc && !dir->is_dir)
		rc = -ENOTDIR;
	if (!rc) {
		n = dir->names.n;
		names = must(malloc((n + 1) * sizeof(names[0])));
		for (size_t i = 0; i < n; i++)
			names[i] = name_get(dir->names.e[i].name);
	}
	rc = (int)leave(h, rc);
	/* fn may use the disk: not under the lock. */
	for (size_t i = 0; i < n; i++) {
		if (rc >= 0)
			rc = fn(arg, names[i]->text);
		name_put(names[i]);
	}
	free(names);
	return SOP_MIN(rc, 0);
}

static int sim_space(struct sop_disk *disk, struct sop_disk_space *out)
{
	struct handle *h = handle_of(disk);
	struct machine_disk *d;
	int rc = enter_disk(h, ACCESS_READ);

	if (!rc) {
		d = disk_at(h);
		out->total_bytes = d->bytes ? d->bytes : UNBOUNDED_BYTES;
		out->free_bytes = out->total_bytes - SOP_MIN(out->total_bytes, d->used * PAGE);
		out->device = 1000 + h->i;
	}
	return (int)leave(h, rc);
}

static const struct sop_disk_ops sim_ops = {
	.close = sim_close,
	.file_open = sim_file_open,
	.file_close = sim_file_close,
	.preadv = sim_preadv,
	.pwritev = sim_pwritev,
	.preadv_cached = sim_preadv_cached,
	.datasync = sim_datasync,
	.size = sim_size,
	.truncate = sim_truncate,
	.allocate = sim_allocate,
	.punch = sim_punch,
	.lock = sim_lock,
	.lock_shared = sim_lock_shared,
	.rename = sim_rename,
	.link = sim_link,
	.unlink = sim_unlink,
	.mkdir = sim_mkdir,
	.syncdir = sim_syncdir,
	.list = sim_list,
	.space = sim_space,
};

/* --- making, finding, cloning -------------------------------------------------------------------
 */

struct sim *sim_new(uint64_t seed)
{
	struct sim *s = must(calloc(1, sizeof(*s)));

	atomic_init(&s->refs, 1);
	pthread_mutex_init(&s->lock, NULL);
	s->seed = seed;
	s->boot = 1;
	return s;
}

static struct handle *handle_new(struct sim *s, unsigned i, bool own)
{
	struct handle *h = must(calloc(1, sizeof(*h)));

	h->disk.ops = &sim_ops;
	h->disk.name = must(strdup(s->disks[i].path));
	h->sim = s;
	h->i = i;
	h->boot = s->boot;
	h->own = own;
	atomic_init(&h->refs, 1);
	if (!own)
		atomic_fetch_add(&s->refs, 1);
	return h;
}

static void add_disk(struct sim *s, const char *path, uint64_t bytes, struct node *root)
{
	s->disks = must(realloc(s->disks, (s->n + 1) * sizeof(s->disks[0])));
	s->disks[s->n] =
		(struct machine_disk){.path = must(strdup(path)), .bytes = bytes, .root = root};
	root->links = 1;
	s->disks[s->n].own = handle_new(s, s->n, true);
	s->n++;
}

void sim_add_disk(struct sim *s, const char *path, uint64_t bytes)
{
	pthread_mutex_lock(&s->lock);
	add_disk(s, path, bytes, node_new(true));
	pthread_mutex_unlock(&s->lock);
}

static void sim_put(struct sim *s)
{
	if (!last_ref(&s->refs))
		return;
	while (s->lie.n)
		node_put(s->lie.owed[--s->lie.n]);
	free(s->lie.owed);
	free(s->lie.what);
	free(s->lie.until);
	for (unsigned i = 0; i < s->n; i++) {
		handle_put(s->disks[i].own);
		node_put(s->disks[i].root);
		free(s->disks[i].path);
	}
	free(s->disks);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void sim_free(struct sim *s)
{
	if (s)
		sim_put(s);
}

static struct machine_disk *find_disk(struct sim *s, const char *path)
{
	for (unsigned i = 0; i < s->n; i++)
		if (strcmp(s->disks[i].path, path) == 0)
			return &s->disks[i];
	return NULL;
}

/* For calls of the test itself, which names a disk that is there. Takes the lock. */
static struct machine_disk *test_disk(struct sim *s, const char *path)
{
	pthread_mutex_lock(&s->lock);
	return must(find_disk(s, path));
}

int sim_open_disk(void *sim, struct sop_disk **out, const char *path, struct sop_err *e)
{
	struct sim *s = sim;
	struct machine_disk *d;
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	d = find_disk(s, path);
	if (!d)
		rc = -ENOENT;
	else if (d->gone || s->crashed)
		rc = -EIO;
	else
		*out = &handle_new(s, (unsigned)(d - s->disks), false)->disk;
	pthread_mutex_unlock(&s->lock);
	return rc ? sop_fail(e, rc, "%s", path) : 0;
}

struct sop_disk *sim_disk(struct sim *s, unsigned n)
{
	assert(n < s->n);
	return &s->disks[n].own->disk;
}

static struct node *node_clone(struct node *n, uint64_t mark);

static void entries_clone(struct entries *to, const struct entries *from, uint64_t mark)
{
	for (size_t i = 0; i < from->n; i++)
		entries_append(
			to, from->e[i].name, node_clone(from->e[i].node, mark), from->e[i].op);
}

/* The copy of n, made on the first call with this mark. The entries that refer to it hold it. */
static struct node *node_clone(struct node *n, uint64_t mark)
{
	struct node *c;

	if (!n || n->mark == mark)
		return n ? n->copy : NULL;
	c = must(calloc(1, sizeof(*c)));
	c->is_dir = n->is_dir;
	c->links = n->links;
	n->mark = mark;
	n->copy = c;
	if (!n->is_dir) {
		c->now = image_get(n->now);
		c->durable = image_get(n->durable);
		c->n_changes = c->changes_capacity = n->n_changes;
		if (n->n_changes)
			c->changes = must(malloc(n->n_changes * sizeof(c->changes[0])));
		for (size_t i = 0; i < n->n_changes; i++) {
			c->changes[i] = n->changes[i];
			add_ref(&c->changes[i]->refs);
		}
	}
	entries_clone(&c->names, &n->names, mark);
	entries_clone(&c->names_durable, &n->names_durable, mark);
	entries_clone(&c->names_changes, &n->names_changes, mark);
	return c;
}

/* Count what the files below dir use. */
static void count_tree(struct machine_disk *d, struct node *dir)
{
	for (size_t i = 0; i < dir->names.n; i++) {
		struct node *n = dir->names.e[i].node;

		if (n->is_dir)
			count_tree(d, n);
		else
			account(d, n);
	}
}

struct sim *sim_clone(struct sim *s, uint64_t seed)
{
	struct sim *c = sim_new(seed);

	pthread_mutex_lock(&s->lock);
	s->marks++;
	for (unsigned i = 0; i < s->n; i++) {
		struct node *root = node_clone(s->disks[i].root, s->marks);

		root->refs++;
		add_disk(c, s->disks[i].path, s->disks[i].bytes, root);
		count_tree(&c->disks[i], root);
	}
	c->next_op = s->next_op;
	pthread_mutex_unlock(&s->lock);
	return c;
}

/* --- faults and power ------------------------------------------------------------------------- */

void sim_disk_gone(struct sim *s, const char *path, bool gone)
{
	test_disk(s, path)->gone = gone;
	pthread_mutex_unlock(&s->lock);
}

void sim_disk_error(struct sim *s, const char *path, int read_rc, int write_rc, int sync_rc)
{
	struct machine_disk *d = test_disk(s, path);

	d->read_rc = read_rc;
	d->write_rc = write_rc;
	d->sync_rc = sync_rc;
	pthread_mutex_unlock(&s->lock);
}

void sim_disk_delay(struct sim *s, const char *path, unsigned ms)
{
	test_disk(s, path)->delay_ms = ms;
	pthread_mutex_unlock(&s->lock);
}

void sim_disk_resize(struct sim *s, const char *path, uint64_t bytes)
{
	test_disk(s, path)->bytes = bytes;
	pthread_mutex_unlock(&s->lock);
}

void sim_fail_step(struct sim *s, uint64_t step, int rc)
{
	pthread_mutex_lock(&s->lock);
	s->fail_step = step;
	s->fail_rc = rc;
	pthread_mutex_unlock(&s->lock);
}

void sim_fail_io(struct sim *s, uint64_t n, int rc, bool stays)
{
	pthread_mutex_lock(&s->lock);
	s->fail_io = n ? s->ios + n : 0;
	s->fail_io_rc = rc;
	s->fail_io_stays = stays;
	s->choose_io = NULL;
	pthread_mutex_unlock(&s->lock);
}

void sim_choose_io(struct sim *s, bool (*here)(void *arg, unsigned disk), void *arg)
{
	pthread_mutex_lock(&s->lock);
	s->choose_io = here;
	s->choose_io_arg = arg;
	pthread_mutex_unlock(&s->lock);
}

bool sim_io_failed(struct sim *s)
{
	bool failed;

	pthread_mutex_lock(&s->lock);
	failed = s->fail_io && s->ios >= s->fail_io;
	pthread_mutex_unlock(&s->lock);
	return failed;
}

void sim_watch(struct sim *s, void (*fn)(void *arg), void *arg)
{
	pthread_mutex_lock(&s->lock);
	s->watch = fn;
	s->watch_arg = arg;
	pthread_mutex_unlock(&s->lock);
}

void sim_lie(struct sim *s, const char *what, bool names, const char *until)
{
	pthread_mutex_lock(&s->lock);
	s->lie.what = must(strdup(what));
	s->lie.names = names;
	s->lie.until = until ? must(strdup(until)) : NULL;
	pthread_mutex_unlock(&s->lock);
}

void sim_crash_at(struct sim *s, uint64_t step)
{
	pthread_mutex_lock(&s->lock);
	s->crash_step = step;
	pthread_mutex_unlock(&s->lock);
}

bool sim_crashed(struct sim *s)
{
	bool crashed;

	pthread_mutex_lock(&s->lock);
	crashed = s->crashed;
	pthread_mutex_unlock(&s->lock);
	return crashed;
}

uint64_t sim_steps(struct sim *s)
{
	uint64_t steps;

	pthread_mutex_lock(&s->lock);
	steps = s->steps;
	pthread_mutex_unlock(&s->lock);
	return steps;
}

/* How a list of changes fares. All and nothing are drawn often: by single coins they would hardly
 * ever come up in a long list. */
enum fate { FATE_NONE, FATE_ALL, FATE_SOME };

static enum fate draw_fate(struct rng *r)
{
	uint64_t x = draw(r) % 4;

	return x == 0 ? FATE_NONE : x == 1 ? FATE_ALL : FATE_SOME;
}

struct power {
	struct sim *sim;
	struct machine_disk *disk;
	enum sim_keep keep;
	struct rng rng;
	enum fate names; /* RANDOM: of all directories */
};

/* A write of which each sector did or did not get there. */
static void apply_torn(struct power *p, struct image **im, const struct change *c)
{
	uint64_t at = 0;

	while (at < c->len) {
		uint64_t n = SOP_MIN(c->len - at, SECTOR - (c->off + at) % SECTOR);

		if (draw(&p->rng) % 2)
			image_write(im, c->off + at, c->data + at, n);
		at += n;
	}
}

static void power_file_random(struct power *p, struct node *n, struct image **im)
{
	enum fate fate = draw_fate(&p->rng);
	uint64_t pick;

	for (size_t i = 0; i < n->n_changes; i++) {
		const struct change *c = n->changes[i];
		uint64_t x = draw(&p->rng) % 3;

		if (fate == FATE_ALL || (fate == FATE_SOME && x == 0))
			apply_change(im, c);
		else if (fate == FATE_SOME && x == 1 && c->kind == CHANGE_WRITE)
			apply_torn(p, im, c);
	}
	/* The size is stored apart from the data: it may be that of any moment since the sync. */
	if (n->n_changes && draw(&p->rng) % 2) {
		pick = draw(&p->rng) % (n->n_changes + 1);
		image_truncate(im, pick ? n->changes[pick - 1]->size_after : n->durable->size);
	}
}

static void power_file(struct power *p, struct node *n)
{
	struct image *im = image_get(p->keep == SIM_KEEP_ALL ? n->now : n->durable);

	if (p->keep == SIM_KEEP_RANDOM)
		power_file_random(p, n, &im);
	image_put(n->now);
	image_put(n->durable);
	n->now = im;
	n->durable = image_get(im);
	changes_clear(n);
}

/* Both halves of a rename have one number, so one outcome. */
static bool name_survives(struct power *p, const struct entry *c)
{
	switch (p->keep) {
	case SIM_KEEP_ALL:
		return true;
	case SIM_KEEP_SYNCED_ONLY:
		return false;
	case SIM_KEEP_CACHED:
	case SIM_KEEP_RANDOM:
	case SIM_KEEP_MIXED:
		break;
	}
	return p->names == FATE_ALL || (p->names == FATE_SOME && mix(p->rng.seed, ~c->op) % 2);
}

static void power_names(struct power *p, struct node *n)
{
	for (size_t i = 0; i < n->names_changes.n; i++)
		if (name_survives(p, &n->names_changes.e[i]))
			entries_set(&n->names_durable, n->names_changes.e[i].name,
				n->names_changes.e[i].node);
	entries_clear(&n->names_changes);
	entries_copy(&n->names, &n->names_durable);
}

static void power_node(struct power *p, struct node *n)
{
	bool seen = n->mark == p->sim->marks;

	if (!seen) {
		n->mark = p->sim->marks;
		n->links = 0;
		n->handles = 0;
		n->counted = 0;
		n->locked_by = NULL;
		n->sharers = 0;
	}
	n->links++;
	if (seen)
		return;
	if (!n->is_dir) {
		if (p->keep != SIM_KEEP_CACHED)
			power_file(p, n);
		account(p->disk, n);
		return;
	}
	if (p->keep != SIM_KEEP_CACHED)
		power_names(p, n);
	for (size_t i = 0; i < n->names.n; i++)
		power_node(p, n->names.e[i].node);
}

void sim_power_on(struct sim *s, enum sim_keep keep, uint64_t choice)
{
	struct power p = {.sim = s, .keep = keep, .rng = {.seed = mix(s->seed, choice)}};

	pthread_mutex_lock(&s->lock);
	s->boot++;
	s->crashed = false;
	s->crash_step = 0;
	s->marks++;
	s->watch_due = false;
	p.names = draw_fate(&p.rng);
	for (unsigned i = 0; i < s->n; i++) {
		p.disk = &s->disks[i];
		p.disk->used = 0;
		if (keep == SIM_KEEP_MIXED) {
			static const enum sim_keep of_a_disk[] = {SIM_KEEP_SYNCED_ONLY,
				SIM_KEEP_ALL, SIM_KEEP_RANDOM, SIM_KEEP_RANDOM};

			p.keep = of_a_disk[draw(&p.rng) % SOP_ARRAY_LEN(of_a_disk)];
			p.names = draw_fate(&p.rng);
		}
		power_node(&p, p.disk->root);
	}
	pthread_mutex_unlock(&s->lock);
}

/* --- looking and damaging -----------------------------------------------------------------------
 */

struct found {
	char *path;
	uint64_t size, allocated;
};

struct found_list {
	struct found *f;
	size_t n;
};

static void find_files(struct found_list *out, struct node *dir, const char *prefix)
{
	for (size_t i = 0; i < dir->names.n; i++) {
		struct node *n = dir->names.e[i].node;
		char *path = NULL;

		if (asprintf(&path, "%s%s%s", prefix, prefix[0] ? "/" : "",
			    dir->names.e[i].name->text) < 0)
			abort();
		if (n->is_dir) {
			find_files(out, n, path);
			free(path);
			continue;
		}
		out->f = must(realloc(out->f, (out->n + 1) * sizeof(out->f[0])));
		out->f[out->n++] = (struct found){
			.path = path, .size = n->now->size, .allocated = n->now->pages * PAGE};
	}
}

void sim_each_file(struct sim *s, const char *path,
	void (*fn)(void *arg, const char *file, uint64_t size, uint64_t allocated), void *arg)
{
	struct found_list list = {0};

	find_files(&list, test_disk(s, path)->root, "");
	pthread_mutex_unlock(&s->lock);
	for (size_t i = 0; i < list.n; i++) {
		fn(arg, list.f[i].path, list.f[i].size, list.f[i].allocated);
		free(list.f[i].path);
	}
	free(list.f);
}

int sim_peek(struct sim *s, const char *disk, const char *file, uint64_t off, void *buf, size_t len)
{
	struct node *n;
	int rc = look_up_file(test_disk(s, disk), file, &n);

	if (!rc && (bad_range(off, len) || off + len > n->now->size))
		rc = -EINVAL;
	if (!rc)
		image_read(n->now, off, buf, len);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

/* Damage is on the medium: the durable image has it too. */
int sim_poke(struct sim *s, const char *disk, const char *file, uint64_t off, const void *buf,
	size_t len)
{
	struct machine_disk *d = test_disk(s, disk);
	struct node *n;
	int rc = look_up_file(d, file, &n);

	if (!rc && (bad_range(off, len) || off + len > n->now->size))
		rc = -EINVAL;
	if (!rc) {
		image_write(&n->now, off, buf, len);
		if (off + len <= n->durable->size)
			image_write(&n->durable, off, buf, len);
		account(d, n);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int sim_set_size(struct sim *s, const char *disk, const char *file, uint64_t size)
{
	struct machine_disk *d = test_disk(s, disk);
	struct node *n;
	int rc = look_up_file(d, file, &n);

	if (!rc && bad_range(size, 0))
		rc = -EINVAL;
	if (!rc) {
		image_truncate(&n->now, size);
		image_put(n->durable);
		n->durable = image_get(n->now);
		changes_clear(n);
		account(d, n);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int sim_remove(struct sim *s, const char *disk, const char *file)
{
	struct machine_disk *d = test_disk(s, disk);
	struct node *dir;
	struct name *name;
	int rc = unlink_in(s, d, file);

	if (!rc && !walk(d, file, &dir, &name)) {
		/* It stays away: the changes of this name count as synced. */
		entries_set(&dir->names_durable, name, NULL);
		for (size_t i = dir->names_changes.n; i--;) {
			struct entry *c = &dir->names_changes.e[i];

			if (strcmp(c->name->text, name->text) != 0)
				continue;
			name_put(c->name);
			node_put(c->node);
			memmove(c, c + 1, (dir->names_changes.n - i - 1) * sizeof(*c));
			dir->names_changes.n--;
		}
		name_put(name);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

uint64_t sim_allocated(struct sim *s, const char *path)
{
	uint64_t used = test_disk(s, path)->used;

	pthread_mutex_unlock(&s->lock);
	return used * PAGE;
}

struct sim_counts sim_take_counts(struct sim *s)
{
	struct sim_counts counts;

	pthread_mutex_lock(&s->lock);
	counts = s->counts;
	s->counts = (struct sim_counts){0};
	pthread_mutex_unlock(&s->lock);
	return counts;
}
