/* The writing side of the journal.
 *
 * All replicas have the same bytes at the same places: one append position serves them all. An
 * append is framed once and written to each by one request of the caller's batch. What makes a
 * record count is that it is on every replica that the labels call current; so a replica that
 * misses one is set aside in the labels (settle) before anybody hears that the append has
 * succeeded.
 *
 * What can lie behind the append position, and why it never chains: records of the file's earlier
 * life (their LSNs are below the first of this life, or epoch and salt are not the header's);
 * zeros. A failed or forgotten append is cut off (retract). Should a crash come before that, its
 * records are whole or torn, and nothing was appended after them. That the same records appended
 * again have other checksums, since they carry the number of the attempt, is a second line of
 * defence.
 *
 * A file is started without a sync: header, name and records may reach the media in any order,
 * since replay accepts a record only with all that it hangs on. sync() counts a replica only when
 * its files and its folder are synced. */
#include "core/journal.h"

#include "core/ec.h"
#include "core/journal_file.h"
#include "core/lock.h"
#include "core/sync.h"

#define FILE_BYTES (64ull << 20)
#define STEP_BYTES (8ull << 20) /* how far ahead of the append position a file is allocated */

struct jfile {
	struct sop_file *file;
	uint64_t number;
	uint64_t allocated; /* the file reaches up to here at least */
	uint64_t filled;    /* all below has been written once; only a guide */
	uint64_t written;   /* under j->lock: j->writes at its last change */
	uint64_t synced;    /* under j->lock: all up to this value of j->writes is on the media */
};

/* A member that holds, or held, a current replica. One that is healed gets a new one. Without a
 * mark: the commit lock's holder alone, or never changed. */
struct replica {
	unsigned member;
	struct sop_disk *disk;
	bool active;	      /* under j->lock: gets appends */
	bool use;	      /* active when the step at hand began */
	bool litter;	      /* files older than ours may lie there: removed at the next trim */
	struct jfile **files; /* under j->lock to change: not trimmed, oldest first, current last */
	size_t n_files;
	struct jfile *spare[SOP_JOURNAL_SPARES];
	struct jfile *next;    /* the file about to become current */
	int request;	       /* index in the pending batch */
	uint64_t named;	       /* under j->lock: j->writes when a name was last made */
	uint64_t named_synced; /* under j->lock */
};

#define ATTEMPT_BITS (64 - SOP_JOURNAL_SALT_BITS)

/* In results of steps, beside 0 and -errno: the replica was not part of it. */
#define NOT_USED 1

struct sop_journal {
	struct sop_members *mem;
	struct sop_iopool *io;
	uint64_t file_bytes;
	uint64_t salt; /* of our files */

	/* Held across I/O only to report a failed replica. */
	struct sop_lock lock;
	struct replica *replica[SOP_MEMBERS_MAX]; /* under lock to change */
	size_t n;
	uint64_t writes; /* under lock: counts appends and new names */
	bool syncing;	 /* under lock: a sync is under way; it refers to replicas */
	pthread_cond_t sync_over;
	bool dead; /* under lock: no replica is left */

	/* The commit lock's holder alone. */
	uint64_t number, pos, lsn_next, attempt;
	uint32_t chain;
	struct sop_journal_span
		*spans; /* files not yet trimmed, oldest first; the last is current */
	size_t n_spans;
	struct {
		struct sop_batch *batch; /* NULL: none */
		uint64_t bytes, lsn_next;
		uint32_t chain;
	} pending;
};

static void jfile_free(struct jfile *f)
{
	if (!f)
		return;
	f->file->ops->file_close(f->file);
	free(f);
}

static void replica_free(struct replica *r)
{
	for (size_t i = 0; i < r->n_files; i++)
		jfile_free(r->files[i]);
	for (size_t i = 0; i < SOP_JOURNAL_SPARES; i++)
		jfile_free(r->spare[i]);
	jfile_free(r->next);
	free(r->files);
	free(r);
}

static struct jfile *current(const struct replica *r)
{
	return r->files[r->n_files - 1];
}

static unsigned timeout(const struct sop_journal *j)
{
	return sop_members_timeout_ms(j->mem);
}

/* --- failures ----------------------------------------------------------------------------------
 */

static bool listed(struct sop_journal *j, unsigned member)
{
	unsigned idx[SOP_MEMBERS_MAX], n = sop_members_replicas(j->mem, idx);

	for (unsigned i = 0; i < n; i++)
		if (idx[i] == member)
			return true;
	return false;
}

/* Under j->lock. A member set aside, by whomever, holds no current replica any more; it may be back
 * with another disk, or with the same one and not healed. Returns how many current replicas there
 * are that do not get our appends: healed ones. */
static size_t notice_changes(struct sop_journal *j)
{
	unsigned idx[SOP_MEMBERS_MAX], n = sop_members_replicas(j->mem, idx);
	size_t matched = 0;

	for (size_t i = 0; i < j->n; i++) {
		struct replica *r = j->replica[i];
		unsigned k = 0;

		if (!r->active)
			continue;
		while (k < n && idx[k] != r->member)
			k++;
		r->active = k < n && sop_members_disk(j->mem, r->member) == r->disk;
		matched += r->active;
	}
	return n - matched;
}

/* The beginning of each step: which replicas take part. newcomers may be NULL. */
static int begin(struct sop_journal *j, size_t *newcomers, struct sop_err *e)
{
	size_t used = 0, missing;

	SOP_LOCK_GUARD(&j->lock);
	missing = notice_changes(j);
	for (size_t i = 0; i < j->n; i++) {
		j->replica[i]->use = j->replica[i]->active;
		used += j->replica[i]->use;
	}
	if (j->n && !used)
		j->dead = true;
	if (newcomers)
		*newcomers = missing;
	return j->dead ? sop_fail(e, -EIO, "journal: no registry replica is left") : 0;
}

/* Under j->lock. This replica missed something that others have: make the labels say so. False when
 * they cannot be made to: then nothing may count that is not on it. */
static bool set_aside(struct sop_journal *j, struct replica *r, int rc)
{
	r->active = false;
	if (rc == -ENOSPC) {
		sop_members_event(j->mem, r->member, SOP_EVENT_WRITE, -ENOSPC);
		rc = -EIO;
	}
	sop_members_event(j->mem, r->member, SOP_EVENT_WRITE, rc);
	return !listed(j, r->member);
}

struct tally {
	size_t good, full, no_memory, bad;
	int first; /* error of the first that is bad */
};

/* Under j->lock. */
static struct tally count(const struct sop_journal *j, const int *result, size_t n)
{
	struct tally t = {0};

	for (size_t i = 0; i < n; i++) {
		if (!j->replica[i]->active || result[i] == NOT_USED)
			continue;
		if (!result[i]) {
			t.good++;
		} else if (result[i] == -ENOSPC) {
			t.full++;
		} else if (result[i] == -ENOMEM) {
			t.no_memory++;
		} else {
			t.bad++;
			t.first = t.first ? t.first : result[i];
		}
	}
	return t;
}

static bool is_bad(int result)
{
	return result < 0 && result != -ENOSPC && result != -ENOMEM;
}

/* Decide what the results of one step mean, for the first n replicas.
 *   some succeeded       0; the others are set aside, also full ones
 *   memory was short     -ENOMEM, none succeeded
 *   or some are full     -ENOSPC; those that failed otherwise are set aside
 *   all failed           the error, and the journal is dead. Nobody is set aside: nothing that
 *                        counts is missing on any of them, and a volume none of whose replicas is
 *                        current could not be mounted again. */
static int settle(
	struct sop_journal *j, const int *result, size_t n, const char *what, struct sop_err *e)
{
	struct tally t;
	bool all;

	SOP_LOCK_GUARD(&j->lock);
	(void)notice_changes(j);
	t = count(j, result, n);
	if (!t.good && !t.full && !t.no_memory) {
		j->dead = true;
		return sop_fail(
			e, t.first ? t.first : -EIO, "journal: %s failed on every replica", what);
	}
	/* Short memory is no replica's fault, and the step fails as a whole. */
	all = t.good && !t.no_memory;
	for (size_t i = 0; i < n; i++)
		if (j->replica[i]->active && is_bad(result[i]))
			sop_members_note(j->mem, j->replica[i]->member, SOP_EVENT_WRITE, result[i]);
	for (size_t i = 0; i < n; i++) {
		struct replica *r = j->replica[i];

		if (!r->active || !(is_bad(result[i]) || (all && result[i] == -ENOSPC)))
			continue;
		if (!set_aside(j, r, result[i])) {
			j->dead = true;
			return sop_fail(e, -EIO,
				"journal: member %u failed and could not be set aside", r->member);
		}
	}
	if (t.no_memory)
		return sop_fail(e, -ENOMEM, "journal: %s", what);
	if (!t.good) {
		for (size_t i = 0; i < n; i++)
			if (j->replica[i]->active && result[i] == -ENOSPC)
				sop_members_event(
					j->mem, j->replica[i]->member, SOP_EVENT_WRITE, -ENOSPC);
		return sop_fail(e, -ENOSPC, "journal: %s", what);
	}
	/* Writing the labels may have cost us the replicas that were good so far. */
	(void)notice_changes(j);
	if (count(j, result, n).good)
		return 0;
	j->dead = true;
	return sop_fail(e, -EIO, "journal: no registry replica is left");
}

/* --- files -------------------------------------------------------------------------------------
 */

static struct jfile *jfile_new(struct sop_file *f, uint64_t size)
{
	struct jfile *x = calloc(1, sizeof(*x));

	if (x) {
		x->file = f;
		x->allocated = size;
	}
	return x;
}

/* Pick up a spare that an earlier mount has left; one that is too large to keep is removed. */
static int adopt_spare(struct sop_journal *j, struct replica *r, unsigned i)
{
	char path[SOP_JOURNAL_NAME];
	struct sop_file *f;
	uint64_t size;
	int rc;

	sop_journal_spare_path(path, i);
	if (i >= SOP_JOURNAL_SPARES)
		return sop_journal_unlink(r->disk, path, timeout(j));
	rc = sop_journal_open(&f, &size, r->disk, path, SOP_OPEN_WRITE, timeout(j));
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	if (size <= 2 * j->file_bytes) {
		r->spare[i] = jfile_new(f, size);
		if (r->spare[i])
			return 0;
	}
	f->ops->file_close(f);
	return sop_journal_unlink(r->disk, path, timeout(j));
}

/* See what a replica's folder holds. Files from `number` on belong to no history that goes on (the
 * chain ended before them) and go; older ones wait for a trim. */
static int look_around(struct sop_journal *j, struct replica *r, uint64_t number)
{
	struct sop_journal_names names;
	char path[SOP_JOURNAL_NAME];
	int rc;

	rc = sop_journal_list(&names, r->disk, timeout(j));
	if (rc)
		return rc;
	for (size_t i = 0; i < names.n && !rc; i++) {
		if (names.number[i] < number) {
			r->litter = true;
			continue;
		}
		sop_journal_path(path, names.number[i]);
		rc = sop_journal_unlink(r->disk, path, timeout(j));
	}
	free(names.number);
	for (unsigned i = 0; i < 32 && !rc; i++)
		if (names.spares >> i & 1)
			rc = adopt_spare(j, r, i);
	return rc;
}

/* Spares are the room that is left when a disk is full. */
static bool drop_spares(struct sop_journal *j, struct replica *r)
{
	char path[SOP_JOURNAL_NAME];
	bool any = false;

	for (unsigned i = 0; i < SOP_JOURNAL_SPARES; i++) {
		if (!r->spare[i])
			continue;
		jfile_free(r->spare[i]);
		r->spare[i] = NULL;
		sop_journal_spare_path(path, i);
		any |= sop_journal_unlink(r->disk, path, timeout(j)) == 0;
	}
	return any;
}

/* Let the current file reach to `end`, and some way ahead, so that most appends find blocks to
 * write to and an fdatasync has no size to store. The write itself tells whether there was room: an
 * error here, but for a disk that does not answer, only makes that dearer. */
static int allocate_ahead(struct sop_journal *j, struct replica *r, uint64_t end)
{
	struct jfile *f = current(r);
	uint64_t to;
	int rc;

	if (end <= f->allocated)
		return 0;
	to = SOP_MAX(end, SOP_MIN(sop_round_up(end, STEP_BYTES), j->file_bytes));
	rc = sop_journal_allocate(f->file, f->allocated, to - f->allocated, timeout(j));
	if (rc == -ENOSPC) {
		drop_spares(j, r);
		to = end;
		rc = sop_journal_allocate(f->file, f->allocated, to - f->allocated, timeout(j));
	}
	if (rc == -ETIMEDOUT)
		return rc;
	f->allocated = to;
	return 0;
}

/* Make r->next: file `number`, from a spare if there is one. */
static int start_file(struct sop_journal *j, struct replica *r, uint64_t number)
{
	struct sop_journal_header h = {
		.volume = sop_members_label(j->mem)->volume_uuid,
		.number = number,
		.epoch = sop_members_epoch(j->mem),
		.first_lsn = j->lsn_next,
		.salt = j->salt,
		.chain = j->chain,
	};
	char path[SOP_JOURNAL_NAME];
	struct sop_file *f = NULL;
	unsigned i = 0;
	int rc;

	while (i < SOP_JOURNAL_SPARES && !r->spare[i])
		i++;
	if (i < SOP_JOURNAL_SPARES) {
		sop_journal_spare_path(path, i);
		rc = sop_journal_start(&r->spare[i]->file, r->disk, path, &h, timeout(j));
		if (rc)
			return rc;
		r->next = r->spare[i];
		r->spare[i] = NULL;
	} else {
		rc = sop_journal_start(&f, r->disk, NULL, &h, timeout(j));
		if (rc)
			return rc;
		r->next = jfile_new(f, SOP_JOURNAL_HEADER);
		if (!r->next) {
			f->ops->file_close(f);
			return -ENOMEM;
		}
	}
	r->next->number = number;
	return 0;
}

/* --- going on in a new file ----------------------------------------------------------------------
 */

/* Under j->lock. Let go of replicas that were set aside, unless a sync may refer to one. */
static void purge(struct sop_journal *j)
{
	size_t kept = 0;

	if (j->syncing)
		return;
	for (size_t i = 0; i < j->n; i++) {
		if (j->replica[i]->active)
			j->replica[kept++] = j->replica[i];
		else
			replica_free(j->replica[i]);
	}
	j->n = kept;
}

static bool known(const struct sop_journal *j, unsigned member)
{
	for (size_t i = 0; i < j->n; i++)
		if (j->replica[i]->use && j->replica[i]->member == member)
			return true;
	return false;
}

/* Take in the members that hold a current replica and are not known yet: all of them at the
 * beginning, healed ones later. Fills in the result of those for which that fails. */
static int take_in(struct sop_journal *j, uint64_t number, int *result, struct sop_err *e)
{
	unsigned idx[SOP_MEMBERS_MAX], n = sop_members_replicas(j->mem, idx);

	for (unsigned i = 0; i < n; i++) {
		struct sop_disk *d = sop_members_disk(j->mem, idx[i]);
		struct replica *r;

		if (!d || known(j, idx[i]))
			continue;
		if (j->n == SOP_MEMBERS_MAX)
			return sop_fail(
				e, -EBUSY, "journal: too many replicas that were set aside");
		r = calloc(1, sizeof(*r));
		if (!r)
			return sop_fail(e, -ENOMEM, "journal replica");
		r->member = idx[i];
		r->disk = d;
		r->active = r->use = true;
		result[j->n] = look_around(j, r, number);
		sop_lock(&j->lock);
		j->replica[j->n++] = r;
		sop_unlock(&j->lock);
	}
	return 0;
}

/* Room for one more file in the lists, so that what follows the I/O cannot fail. */
static int make_room(struct sop_journal *j)
{
	struct sop_journal_span *s = reallocarray(j->spans, j->n_spans + 1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	j->spans = s;
	for (size_t i = 0; i < j->n; i++) {
		struct replica *r = j->replica[i];
		struct jfile **files;

		sop_lock(&j->lock);
		files = reallocarray(r->files, r->n_files + 1, sizeof(*files));
		if (files)
			r->files = files;
		sop_unlock(&j->lock);
		if (!files)
			return -ENOMEM;
	}
	return 0;
}

static void enter(struct sop_journal *j, uint64_t number)
{
	sop_lock(&j->lock);
	j->writes++;
	for (size_t i = 0; i < j->n; i++) {
		struct replica *r = j->replica[i];

		if (!r->active || !r->next)
			continue;
		r->next->written = j->writes;
		r->named = j->writes;
		r->files[r->n_files++] = r->next;
		r->next = NULL;
	}
	sop_unlock(&j->lock);
	j->spans[j->n_spans++] = (struct sop_journal_span){number, SOP_JOURNAL_HEADER};
	j->number = number;
	j->pos = SOP_JOURNAL_HEADER;
}

/* After a try: what was made on replicas that were set aside, or in vain. A healed replica that did
 * not get its first file cannot get the next append, so it is not current. */
static void drop_leftovers(struct sop_journal *j)
{
	SOP_LOCK_GUARD(&j->lock);
	for (size_t i = 0; i < j->n; i++) {
		struct replica *r = j->replica[i];

		jfile_free(r->next);
		r->next = NULL;
		if (j->n_spans && r->active && !r->n_files && !set_aside(j, r, -EIO))
			j->dead = true;
	}
}

/* Is a replica full? Then they all wait for room, and none is set aside. */
static bool can_spare_full(const struct sop_journal *j, const int *result)
{
	bool more[SOP_MEMBERS_MAX] = {0};

	for (size_t i = 0; i < j->n; i++)
		more[j->replica[i]->member] = result[i] == -ENOSPC;
	return sop_members_can_spare(j->mem, more);
}

static int all_have_room(struct sop_journal *j, const int *result, struct sop_err *e)
{
	for (size_t i = 0; i < j->n; i++) {
		struct replica *r = j->replica[i];

		if (result[i] != -ENOSPC)
			continue;
		sop_members_event(j->mem, r->member, SOP_EVENT_WRITE, -ENOSPC);
		return sop_say(e, -ENOSPC, "journal: no space left on disk %s", r->disk->name);
	}
	return 0;
}

/* Start file `number` on all current replicas and go on in it. On an error the current file goes
 * on: what was made of the new one does not follow its last record, and is replaced by the next
 * try. */
static int start_files(struct sop_journal *j, uint64_t number, bool needed, struct sop_err *e)
{
	int result[SOP_MEMBERS_MAX] = {0};
	int rc;

	sop_lock(&j->lock);
	purge(j);
	sop_unlock(&j->lock);
	rc = begin(j, NULL, e);
	if (!rc)
		rc = take_in(j, number, result, e);
	if (!rc && make_room(j))
		rc = sop_fail(e, -ENOMEM, "journal");
	for (size_t i = 0; i < j->n && !rc; i++) {
		struct replica *r = j->replica[i];

		if (!r->use)
			result[i] = NOT_USED;
		if (!result[i])
			result[i] = start_file(j, r, number);
		if (result[i] == -ENOSPC && drop_spares(j, r))
			result[i] = start_file(j, r, number);
	}
	if (!rc && !(needed && can_spare_full(j, result)))
		rc = all_have_room(j, result, e);
	if (!rc)
		rc = settle(j, result, j->n, "start of a file", e);
	if (!rc)
		enter(j, number);
	drop_leftovers(j);
	return rc;
}

int sop_journal_new(struct sop_journal **out, struct sop_members *mem, struct sop_iopool *io,
	const struct sop_journal_opts *o, uint64_t number, uint64_t lsn_next, uint32_t chain,
	struct sop_err *e)
{
	struct sop_journal *j = calloc(1, sizeof(*j));
	int rc;

	if (!j)
		return sop_fail(e, -ENOMEM, "journal");
	sop_lock_init(&j->lock, SOP_RANK_JOURNAL, "journal");
	sop_cond_init(&j->sync_over);
	j->mem = mem;
	j->io = io;
	j->file_bytes = o && o->file_bytes ? o->file_bytes : FILE_BYTES;
	j->lsn_next = lsn_next;
	j->chain = chain;
	sop_random(&j->salt, sizeof(j->salt));
	j->salt >>= 64 - SOP_JOURNAL_SALT_BITS;
	rc = start_files(j, number, true, e);
	if (rc) {
		sop_journal_free(j);
		return sop_wrap(e, rc, "journal file %llu", (unsigned long long)number);
	}
	*out = j;
	return 0;
}

void sop_journal_free(struct sop_journal *j)
{
	if (!j)
		return;
	for (size_t i = 0; i < j->n; i++)
		replica_free(j->replica[i]);
	sop_lock_release(&j->lock);
	pthread_cond_destroy(&j->sync_over);
	free(j->spans);
	free(j);
}

int sop_journal_rotate(
	struct sop_journal *j, bool needed, uint64_t *number, uint32_t *chain, struct sop_err *e)
{
	int rc;

	assert(!j->pending.batch);
	rc = start_files(j, j->number + 1, needed, e);
	if (rc)
		return rc;
	*number = j->number;
	*chain = j->chain;
	return 0;
}

/* --- appending ----------------------------------------------------------------------------------
 */

static uint64_t framed_bytes(const struct sop_record_in *in)
{
	return sop_round_up(sizeof(struct sop_disk_record) + in->payload_len, 8);
}

static int measure(uint64_t *total, const struct sop_record_in *in, size_t n, struct sop_err *e)
{
	*total = 0;
	for (size_t i = 0; i < n; i++) {
		if (in[i].payload_len > UINT32_MAX - 2 * sizeof(struct sop_disk_record))
			return sop_fail(
				e, -EFBIG, "journal record of %zu bytes", in[i].payload_len);
		*total += framed_bytes(in + i);
	}
	return 0;
}

/* salt holds the file's salt and the number of the attempt. Without it a record that is appended
 * again, after an append that was forgotten, would have the same checksum, and a forgotten record
 * behind it that reached the media would follow it. */
static uint32_t frame(
	struct sop_journal *j, void *to, const struct sop_record_in *in, uint32_t prev)
{
	struct sop_disk_record *h = to;
	uint64_t bytes = framed_bytes(in);
	uint8_t *payload = (uint8_t *)(h + 1);
	uint32_t crc;

	memset(h, 0, sizeof(*h));
	h->magic = le32_make(SOP_RECORD_MAGIC);
	h->len = le32_make((uint32_t)bytes);
	h->prev_crc = le32_make(prev);
	h->lsn = le64_make(in->lsn);
	h->epoch = le64_make(sop_members_epoch(j->mem));
	h->time_ns = le64_make(in->time_ns);
	h->next_ino = le64_make(in->next_ino);
	h->type = in->type;
	h->payload = le32_make((uint32_t)in->payload_len);
	h->salt = le64_make(j->salt << ATTEMPT_BITS | (j->attempt & ((1u << ATTEMPT_BITS) - 1)));
	if (in->payload_len)
		memcpy(payload, in->payload, in->payload_len);
	memset(payload + in->payload_len, 0, bytes - sizeof(*h) - in->payload_len);
	crc = sop_crc32c(0, h, bytes);
	h->crc = le32_make(crc);
	return crc;
}

static int frame_all(struct sop_journal *j, uint8_t *to, const struct sop_record_in *in, size_t n,
	struct sop_err *e)
{
	j->pending.chain = j->chain;
	j->pending.lsn_next = j->lsn_next;
	for (size_t i = 0; i < n; i++) {
		if (in[i].type == SOP_RECORD_TXN && in[i].lsn != j->pending.lsn_next)
			return sop_fail(e, -EINVAL, "journal: LSN is not the next");
		if (in[i].type == SOP_RECORD_BARRIER &&
			(in[i].lsn >= j->pending.lsn_next || in[i].payload_len))
			return sop_fail(e, -EINVAL, "journal: not a barrier");
		j->pending.lsn_next += in[i].type == SOP_RECORD_TXN;
		j->pending.chain = frame(j, to, in + i, j->pending.chain);
		to += framed_bytes(in + i);
	}
	return 0;
}

/* How many zeros to write behind an append, so that the next ones find their places written before.
 * All of them lie above the append position, and nobody else writes there. */
static uint64_t fill(const struct jfile *f, uint64_t end, uint32_t fill_bytes)
{
	if (!fill_bytes || end <= f->filled || end >= f->allocated)
		return 0;
	return SOP_MIN(SOP_MIN(fill_bytes, SOP_IO_ZEROS), f->allocated - end);
}

/* One request for each replica. A replica that does not answer when its file is to grow is not
 * written to; that counts as its failure. */
static int add_requests(
	struct sop_journal *j, struct sop_batch *b, void *buf, uint64_t bytes, uint32_t fill_bytes)
{
	uint64_t end = j->pos + bytes;

	for (size_t i = 0; i < j->n; i++) {
		struct replica *r = j->replica[i];
		struct iovec iov[2] = {{buf, bytes}, {sop_io_zeros(), 0}};
		struct jfile *f;

		if (!r->use)
			continue; /* it may have no file */
		r->request = -ETIMEDOUT;
		if (allocate_ahead(j, r, end))
			continue;
		f = current(r);
		iov[1].iov_len = fill(f, end, fill_bytes);
		if (iov[1].iov_len)
			f->filled = end + iov[1].iov_len;
		r->request = sop_batch_add(
			b, SOP_IO_WRITE, f->file, iov, iov[1].iov_len ? 2 : 1, j->pos);
		if (r->request < 0)
			return r->request;
	}
	return 0;
}

int sop_journal_prepare(struct sop_journal *j, const struct sop_record_in *in, size_t n,
	uint32_t fill_bytes, struct sop_batch *b, struct sop_err *e)
{
	uint64_t total;
	size_t newcomers;
	uint8_t *buf;
	int rc;

	assert(!j->pending.batch && n);
	rc = measure(&total, in, n, e);
	if (!rc)
		rc = begin(j, &newcomers, e);
	if (rc)
		return rc;
	/* A healed replica has all up to here, and must have this append as well. */
	if (newcomers || (j->pos + total > j->file_bytes && j->pos > SOP_JOURNAL_HEADER)) {
		rc = start_files(j, j->number + 1, true, e);
		if (!rc)
			rc = begin(j, NULL, e);
		if (rc)
			return rc;
	}
	buf = sop_batch_alloc(b, total);
	if (!buf)
		return sop_fail(
			e, -ENOMEM, "journal append of %llu bytes", (unsigned long long)total);
	rc = frame_all(j, buf, in, n, e);
	if (rc)
		return rc;
	if (add_requests(j, b, buf, total, fill_bytes))
		return sop_fail(e, -ENOMEM, "journal append");
	j->pending.bytes = total;
	j->pending.batch = b;
	return 0;
}

static void results(const struct sop_journal *j, const struct sop_batch *b, int *result)
{
	for (size_t i = 0; i < j->n; i++) {
		const struct replica *r = j->replica[i];

		if (!r->use)
			result[i] = NOT_USED;
		else if (r->request < 0)
			result[i] = r->request;
		else
			result[i] = sop_batch_result(b, r->request);
	}
}

/* Cut off what a failed append has left behind the append position, and make that durable. Whole
 * records may be there, and they follow the last one: after a crash they would come back, though
 * their commit was refused; and when the next record went into another file, they would hide it.
 * Who cannot do this has failed. */
static void retract(struct sop_journal *j)
{
	struct sop_batch *b = sop_batch_new(j->io);
	int result[SOP_MEMBERS_MAX];

	if (begin(j, NULL, NULL))
		goto out;
	for (size_t i = 0; i < j->n; i++) {
		struct replica *r = j->replica[i];

		result[i] = NOT_USED;
		if (!r->use)
			continue;
		result[i] = sop_journal_truncate(current(r)->file, j->pos, timeout(j));
		current(r)->allocated = SOP_MIN(current(r)->allocated, j->pos);
		current(r)->filled = SOP_MIN(current(r)->filled, j->pos);
		r->request = b ? sop_batch_add(b, SOP_IO_DATASYNC, current(r)->file, NULL, 0, 0)
			       : -ENOMEM;
	}
	if (b)
		sop_batch_run(b, SOP_IO_PARALLEL, 0, timeout(j));
	for (size_t i = 0; i < j->n; i++) {
		const struct replica *r = j->replica[i];

		if (result[i] == 0)
			result[i] = r->request < 0 ? r->request : sop_batch_result(b, r->request);
		/* Nothing counts as soft here: without memory or room it is not done either. */
		if (result[i] < 0 && result[i] != -ETIMEDOUT)
			result[i] = -EIO;
	}
	(void)settle(j, result, j->n, "truncation", NULL); /* has told members, or j is dead */
out:
	sop_batch_put(b);
}

int sop_journal_finish(struct sop_journal *j, struct sop_err *e)
{
	int result[SOP_MEMBERS_MAX];
	int rc;

	assert(j->pending.batch);
	results(j, j->pending.batch, result);
	j->pending.batch = NULL;
	rc = settle(j, result, j->n, "append", e);
	if (rc) {
		j->attempt++;
		retract(j);
		return rc;
	}
	sop_lock(&j->lock);
	j->writes++;
	for (size_t i = 0; i < j->n; i++)
		if (j->replica[i]->active)
			current(j->replica[i])->written = j->writes;
	sop_unlock(&j->lock);
	j->pos += j->pending.bytes;
	j->spans[j->n_spans - 1].bytes = j->pos;
	j->chain = j->pending.chain;
	j->lsn_next = j->pending.lsn_next;
	return 0;
}

bool sop_journal_dead(struct sop_journal *j)
{
	SOP_LOCK_GUARD(&j->lock);
	return j->dead;
}

void sop_journal_abandon(struct sop_journal *j)
{
	j->pending.batch = NULL;
	j->attempt++;
	retract(j);
}

void sop_journal_forget(struct sop_journal *j)
{
	int result[SOP_MEMBERS_MAX];

	assert(j->pending.batch);
	results(j, j->pending.batch, result);
	/* Nothing counts, so nothing is missing on a full disk; but one that failed, and may still
	 * have the write under way, must not get the next one. */
	for (size_t i = 0; i < j->n; i++)
		if (!result[i])
			result[i] = -ENOMEM;
	(void)settle(j, result, j->n, "append", NULL);
	sop_journal_abandon(j);
}

/* --- durability ---------------------------------------------------------------------------------
 */

/* What one sync has to do for one replica. */
struct duty {
	struct replica *replica; /* stays while j->syncing */
	uint64_t names;		 /* value of named to be reached; 0: nothing to do */
	int result;
};

struct file_duty {
	size_t duty;
	struct sop_file *file; /* referred to */
	uint64_t written;
	int request;
};

struct sop_journal_syncing {
	struct sop_journal *j;
	struct sop_batch *b;
	struct duty duty[SOP_MEMBERS_MAX];
	size_t n;
	struct file_duty *file;
	size_t n_files;
};

/* Under j->lock. */
static int collect(struct sop_journal *j, struct sop_journal_syncing *s, struct sop_err *e)
{
	size_t most = 0;

	(void)notice_changes(j);
	if (j->dead)
		return sop_fail(e, -EIO, "journal: no registry replica is left");
	for (size_t i = 0; i < j->n; i++)
		most += j->replica[i]->n_files;
	s->file = calloc(most ? most : 1, sizeof(*s->file));
	if (!s->file)
		return sop_fail(e, -ENOMEM, "journal sync");
	s->n = j->n;
	for (size_t i = 0; i < j->n; i++) {
		struct replica *r = j->replica[i];

		s->duty[i] = (struct duty){.replica = r, .result = r->active ? 0 : NOT_USED};
		if (!r->active)
			continue;
		if (r->named > r->named_synced)
			s->duty[i].names = r->named;
		for (size_t k = 0; k < r->n_files; k++) {
			struct jfile *f = r->files[k];

			if (f->written <= f->synced)
				continue;
			sop_file_get(f->file);
			s->file[s->n_files++] = (struct file_duty){
				.duty = i, .file = f->file, .written = f->written};
		}
	}
	return 0;
}

static void fail_duty(struct duty *d, int rc)
{
	if (rc && !d->result)
		d->result = rc;
}

/* Whatever the reason of a failed sync: what was to be written may be lost, and the next sync would
 * not know. So a full disk is no better than a broken one. */
static int sync_names(struct sop_journal *j, const struct duty *d)
{
	int rc = sop_journal_syncdir(d->replica->disk, timeout(j));

	return rc == -ENOSPC ? -EIO : rc;
}

/* The files have been synced; then the folders in which names are new. */
static void take_results(struct sop_journal *j, struct sop_journal_syncing *s)
{
	for (size_t i = 0; i < s->n_files; i++) {
		int rc = sop_batch_result(s->b, s->file[i].request);

		fail_duty(&s->duty[s->file[i].duty], rc == -ENOSPC || rc == -ENOMEM ? -EIO : rc);
	}
	for (size_t i = 0; i < s->n; i++)
		if (!s->duty[i].result && s->duty[i].names)
			fail_duty(&s->duty[i], sync_names(j, &s->duty[i]));
}

/* Under j->lock. The file may have been trimmed meanwhile; or even serve again, under a new name:
 * then its `written` is higher. */
static void mark_synced(struct sop_journal_syncing *s, const struct file_duty *d)
{
	struct replica *r = s->duty[d->duty].replica;

	for (size_t k = 0; k < r->n_files; k++)
		if (r->files[k]->file == d->file)
			r->files[k]->synced = SOP_MAX(r->files[k]->synced, d->written);
}

/* Replicas of this sync are the first s->n of j->replica: while it is under way none is taken out.
 */
static int conclude(struct sop_journal *j, struct sop_journal_syncing *s, struct sop_err *e)
{
	int result[SOP_MEMBERS_MAX];

	sop_lock(&j->lock);
	for (size_t i = 0; i < s->n_files; i++)
		if (!s->duty[s->file[i].duty].result)
			mark_synced(s, &s->file[i]);
	for (size_t i = 0; i < s->n; i++) {
		struct duty *d = &s->duty[i];

		if (!d->result)
			d->replica->named_synced = SOP_MAX(d->replica->named_synced, d->names);
		result[i] = d->result;
	}
	sop_unlock(&j->lock);
	return settle(j, result, s->n, "sync", e);
}

/* One at a time: the kernel tells a failed write to one caller alone, and who comes next must find
 * the replica set aside. Who has waited finds most of its work done. */
static void sync_enter(struct sop_journal *j)
{
	while (j->syncing)
		sop_cond_wait(&j->sync_over, &j->lock, -1);
	j->syncing = true;
}

static void sync_leave(struct sop_journal_syncing *s)
{
	struct sop_journal *j = s->j;

	for (size_t i = 0; i < s->n_files; i++)
		s->file[i].file->ops->file_close(s->file[i].file);
	free(s->file);
	free(s);
	sop_lock(&j->lock);
	j->syncing = false;
	pthread_cond_broadcast(&j->sync_over);
	sop_unlock(&j->lock);
}

int sop_journal_sync_begin(struct sop_journal_syncing **out, struct sop_journal *j,
	struct sop_batch *b, struct sop_err *e)
{
	struct sop_journal_syncing *s = calloc(1, sizeof(*s));
	int rc;

	*out = NULL;
	if (!s)
		return sop_fail(e, -ENOMEM, "journal sync");
	s->j = j;
	s->b = b;
	sop_lock(&j->lock);
	sync_enter(j);
	rc = collect(j, s, e);
	sop_unlock(&j->lock);
	for (size_t i = 0; i < s->n_files && !rc; i++) {
		s->file[i].request = sop_batch_add(b, SOP_IO_DATASYNC, s->file[i].file, NULL, 0, 0);
		if (s->file[i].request < 0)
			rc = sop_fail(e, s->file[i].request, "journal sync");
	}
	if (rc)
		sync_leave(s);
	else
		*out = s;
	return rc;
}

void sop_journal_sync_cancel(struct sop_journal_syncing *s)
{
	sync_leave(s);
}

int sop_journal_sync_end(struct sop_journal_syncing *s, struct sop_err *e)
{
	int rc;

	take_results(s->j, s);
	rc = conclude(s->j, s, e);
	sync_leave(s);
	return rc;
}

int sop_journal_sync(struct sop_journal *j, struct sop_err *e)
{
	struct sop_journal_syncing *s;
	struct sop_batch *b = sop_batch_new(j->io);
	int rc;

	if (!b)
		return sop_fail(e, -ENOMEM, "journal sync");
	rc = sop_journal_sync_begin(&s, j, b, e);
	if (!rc) {
		sop_batch_run(b, SOP_IO_PARALLEL, 0, timeout(j));
		rc = sop_journal_sync_end(s, e);
	}
	sop_batch_put(b);
	return rc;
}

/* --- letting go ---------------------------------------------------------------------------------
 */

/* Trouble here loses nothing: a file stays that nobody looks at, and the next trim, or the next
 * mount, finds it by its name. */
static void log_trouble(struct sop_journal *j, const struct replica *r, const char *path, int rc)
{
	sop_log(sop_members_log(j->mem), SOP_LOG_WARNING, "journal",
		"op=trim disk=%u code=%s: %s stays", r->member, sop_err_name(rc), path);
}

/* Keep the file as a spare, or remove it. */
static int retire(struct sop_journal *j, struct replica *r, struct jfile *f)
{
	char path[SOP_JOURNAL_NAME], spare[SOP_JOURNAL_NAME];
	unsigned i = 0;
	int rc;

	sop_journal_path(path, f->number);
	while (i < SOP_JOURNAL_SPARES && r->spare[i])
		i++;
	if (i < SOP_JOURNAL_SPARES && f->allocated <= 2 * j->file_bytes) {
		sop_journal_spare_path(spare, i);
		rc = sop_journal_rename(r->disk, path, spare, timeout(j));
		if (!rc) {
			r->spare[i] = f;
			return 0;
		}
	} else {
		rc = sop_journal_unlink(r->disk, path, timeout(j));
	}
	if (rc) {
		r->litter = true;
		log_trouble(j, r, path, rc);
	}
	jfile_free(f);
	return rc == -ETIMEDOUT ? rc : 0;
}

static int remove_litter(struct sop_journal *j, struct replica *r, uint64_t number)
{
	struct sop_journal_names names;
	char path[SOP_JOURNAL_NAME];
	int rc;

	rc = sop_journal_list(&names, r->disk, timeout(j));
	if (!rc)
		r->litter = false;
	for (size_t i = 0; i < names.n && names.number[i] < number && rc != -ETIMEDOUT; i++) {
		sop_journal_path(path, names.number[i]);
		rc = sop_journal_unlink(r->disk, path, timeout(j));
		if (rc) {
			r->litter = true;
			log_trouble(j, r, path, rc);
		}
	}
	free(names.number);
	return rc == -ETIMEDOUT ? rc : 0;
}

static int trim_replica(struct sop_journal *j, struct replica *r, uint64_t number)
{
	struct jfile *f;
	int rc = 0;

	while (!rc && r->files[0]->number < number) {
		sop_lock(&j->lock);
		f = r->files[0];
		memmove(r->files, r->files + 1, --r->n_files * sizeof(r->files[0]));
		sop_unlock(&j->lock);
		rc = retire(j, r, f);
	}
	return !rc && r->litter ? remove_litter(j, r, number) : rc;
}

void sop_journal_trim(struct sop_journal *j, uint64_t number)
{
	int result[SOP_MEMBERS_MAX];
	size_t gone = 0;

	number = SOP_MIN(number, j->number);
	if (begin(j, NULL, NULL))
		return;
	for (size_t i = 0; i < j->n; i++) {
		struct replica *r = j->replica[i];

		result[i] = r->use ? trim_replica(j, r, number) : NOT_USED;
	}
	(void)settle(j, result, j->n, "trim", NULL); /* has told members, or j is dead */
	while (j->spans[gone].number < number)
		gone++;
	j->n_spans -= gone;
	memmove(j->spans, j->spans + gone, j->n_spans * sizeof(*j->spans));
}

size_t sop_journal_spans(
	struct sop_journal *j, struct sop_journal_span **out, struct sop_journal_span *last)
{
	if (last)
		*last = j->spans[j->n_spans - 1];
	if (out) {
		*out = malloc(j->n_spans * sizeof(**out));
		if (*out)
			memcpy(*out, j->spans, j->n_spans * sizeof(**out));
	}
	return j->n_spans;
}

uint64_t sop_journal_bytes(struct sop_journal *j)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < j->n_spans; i++)
		bytes += j->spans[i].bytes;
	return bytes;
}
