#include "core/roster.h"

#include "core/err.h"
#include "core/format.h"

void sop_roster_release(struct sop_roster *r)
{
	free(r->mounter);
	*r = (struct sop_roster){0};
}

void sop_roster_begin(struct sop_roster *r, const struct sop_image *image, bool known)
{
	sop_roster_release(r);
	r->floor = r->newest = *image;
	r->known = known;
}

/* All who are there have seen the newest: from now on who enters begins with it. */
static void settle(struct sop_roster *r)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->mounter[i].seen < r->newest.slot)
			return;
	r->floor = r->newest;
}

static struct sop_mounted *find(const struct sop_roster *r, uint64_t who)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->mounter[i].who == who)
			return &r->mounter[i];
	return NULL;
}

static int grow(struct sop_roster *r, size_t n)
{
	struct sop_mounted *p;

	if (n <= r->cap)
		return 0;
	p = reallocarray(r->mounter, 2 * n, sizeof(*p));
	if (!p)
		return -ENOMEM;
	r->mounter = p;
	r->cap = 2 * n;
	return 0;
}

/* It began at the floor as it is here: it has looked at the roster of this very slot, or would have
 * begun anew. */
int sop_roster_mount(struct sop_roster *r, uint64_t who, uint64_t lsn)
{
	int rc = grow(r, r->n + 1);

	if (rc)
		return rc;
	r->mounter[r->n++] = (struct sop_mounted){.who = who,
		.image = r->floor.lsn,
		.maker = r->floor.number,
		.seen = r->newest.slot,
		.pin = lsn,
		.number = ++r->mounts};
	return 0;
}

void sop_roster_seen(struct sop_roster *r, uint64_t who, uint64_t slot, uint64_t pin)
{
	struct sop_mounted *m = find(r, who);

	if (!m)
		return;
	m->seen = SOP_MAX(m->seen, SOP_MIN(slot, r->newest.slot));
	m->pin = SOP_MAX(m->pin, pin);
	settle(r);
}

void sop_roster_gone(struct sop_roster *r, uint64_t who)
{
	struct sop_mounted *m = find(r, who);

	if (!m)
		return;
	memmove(m, m + 1, (size_t)(r->mounter + r->n - (m + 1)) * sizeof(*m));
	r->n--;
	settle(r);
}

bool sop_roster_may_image(const struct sop_roster *r, uint64_t slot)
{
	return slot > r->newest.slot && r->newest.slot == r->floor.slot;
}

void sop_roster_image(struct sop_roster *r, const struct sop_image *image)
{
	const struct sop_mounted *m = find(r, image->who);

	if (!sop_roster_may_image(r, image->slot))
		return;
	r->newest = *image;
	r->newest.number = m ? m->number : 0;
	settle(r);
}

const struct sop_mounted *sop_roster_find(const struct sop_roster *r, uint64_t who)
{
	return find(r, who);
}

size_t sop_roster_rank(const struct sop_roster *r, uint64_t who)
{
	const struct sop_mounted *m = find(r, who);

	return m ? (size_t)(m - r->mounter) : r->n;
}

uint64_t sop_roster_pin(const struct sop_roster *r)
{
	uint64_t pin = r->known && r->n ? UINT64_MAX : 0;

	for (size_t i = 0; i < r->n && r->known; i++)
		pin = SOP_MIN(pin, r->mounter[i].pin);
	return pin;
}

static bool within(uint64_t lsn, uint64_t from, uint64_t to)
{
	return from <= lsn && lsn <= to;
}

bool sop_roster_imaged(const struct sop_roster *r, uint64_t from, uint64_t to)
{
	if (!r->known || within(r->floor.lsn, from, to) || within(r->newest.lsn, from, to))
		return true;
	for (size_t i = 0; i < r->n; i++)
		if (within(r->mounter[i].image, from, to))
			return true;
	return false;
}

bool sop_roster_needs(const struct sop_roster *r, uint32_t number)
{
	if (!r->known || number > r->mounts || r->floor.number == number ||
		r->newest.number == number)
		return true;
	for (size_t i = 0; i < r->n; i++)
		if (r->mounter[i].number == number || r->mounter[i].maker == number)
			return true;
	return false;
}

/* ---- in the record of an image ---- */

int sop_roster_encode(
	void **raw, size_t *len, const struct sop_roster *r, const struct sop_image *image)
{
	struct sop_disk_image *h;
	struct sop_disk_mounted *d;

	*len = sizeof(*h) + r->n * sizeof(*d);
	h = malloc(*len);
	if (!h)
		return -ENOMEM;
	*h = (struct sop_disk_image){.slot = le64_make(image->slot),
		.lsn = le64_make(image->lsn),
		.floor_slot = le64_make(r->floor.slot),
		.floor_lsn = le64_make(r->floor.lsn),
		.floor_who = le64_make(r->floor.who),
		.floor_number = le32_make(r->floor.number),
		.mounts = le32_make(r->mounts),
		.n = le32_make((uint32_t)r->n)};
	d = (struct sop_disk_mounted *)(h + 1);
	for (size_t i = 0; i < r->n; i++)
		d[i] = (struct sop_disk_mounted){.who = le64_make(r->mounter[i].who),
			.image = le64_make(r->mounter[i].image),
			.seen = le64_make(r->mounter[i].seen),
			.pin = le64_make(r->mounter[i].pin),
			.number = le32_make(r->mounter[i].number),
			.maker = le32_make(r->mounter[i].maker)};
	*raw = h;
	return 0;
}

int sop_roster_decode_image(struct sop_image *out, const void *raw, size_t len)
{
	const struct sop_disk_image *h = raw;

	if (len < sizeof(*h) || le32_get(h->n) > SOP_ROSTER_MOUNTS ||
		le32_get(h->n) > le32_get(h->mounts) ||
		len != sizeof(*h) + le32_get(h->n) * sizeof(struct sop_disk_mounted))
		return SOP_ECORRUPT;
	*out = (struct sop_image){.slot = le64_get(h->slot), .lsn = le64_get(h->lsn)};
	return 0;
}

int sop_roster_decode(struct sop_roster *r, const void *raw, size_t len)
{
	const struct sop_disk_image *h = raw;
	const struct sop_disk_mounted *d = (const struct sop_disk_mounted *)(h + 1);
	struct sop_image image;
	int rc = sop_roster_decode_image(&image, raw, len);

	if (!rc)
		rc = grow(r, le32_get(h->n));
	if (rc)
		return rc;
	r->n = le32_get(h->n);
	r->mounts = le32_get(h->mounts);
	r->floor = r->newest = (struct sop_image){.slot = le64_get(h->floor_slot),
		.lsn = le64_get(h->floor_lsn),
		.who = le64_get(h->floor_who),
		.number = le32_get(h->floor_number)};
	for (size_t i = 0; i < r->n; i++)
		r->mounter[i] = (struct sop_mounted){.who = le64_get(d[i].who),
			.image = le64_get(d[i].image),
			.seen = le64_get(d[i].seen),
			.pin = le64_get(d[i].pin),
			.number = le32_get(d[i].number),
			.maker = le32_get(d[i].maker)};
	r->known = true;
	return 0;
}
