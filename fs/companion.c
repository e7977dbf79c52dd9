#include "fs/companion.h"

#include "fs/names.h"

#define SUFFIX 4

static const char suffixes[][SUFFIX + 1] = {"-shm", "-wal"};

static bool has_suffix(const char *name, size_t len)
{
	for (size_t i = 0; len > SUFFIX && i < SOP_ARRAY_LEN(suffixes); i++)
		if (memcmp(name + len - SUFFIX, suffixes[i], SUFFIX) == 0)
			return true;
	return false;
}

/* The item of a name, referenced; NULL: nobody knows it. *there: the name is. */
static struct sopfs_item *find(
	struct sopfs *f, uint64_t store, const char *name, size_t len, bool *there)
{
	struct sopfs_item *item;
	struct sop_attr a;

	pthread_mutex_lock(&f->lock);
	item = sopfs_overlay_find(f, store, name, len);
	if (item)
		sopfs_item_ref(item);
	pthread_mutex_unlock(&f->lock);
	*there = item || sop_lookup(f->latest, (struct sop_name){store, name, len}, &a, NULL) == 0;
	if (item || !*there)
		return item;
	pthread_mutex_lock(&f->lock);
	item = sopfs_item_find(f, a.ino);
	if (item)
		sopfs_item_ref(item);
	pthread_mutex_unlock(&f->lock);
	return item;
}

bool sopfs_is_companion(struct sopfs *f, uint64_t store, const char *name, size_t len)
{
	bool there;

	if (!has_suffix(name, len))
		return false;
	sopfs_item_put(f, find(f, store, name, len - SUFFIX, &there));
	return there;
}

bool sopfs_has_companion(struct sopfs *f, uint64_t store, const char *name, size_t len)
{
	char text[SOPFS_NAME_MAX + 1];
	bool has = false, there;

	if (!atomic_load(&f->companions) || len + SUFFIX > SOPFS_NAME_MAX)
		return false;
	memcpy(text, name, len);
	for (size_t i = 0; !has && i < SOP_ARRAY_LEN(suffixes); i++) {
		struct sopfs_item *item;

		memcpy(text + len, suffixes[i], SUFFIX);
		item = find(f, store, text, len + SUFFIX, &there);
		pthread_mutex_lock(&f->lock);
		has = item && item->direct;
		if (item)
			sopfs_item_unref(f, item);
		pthread_mutex_unlock(&f->lock);
	}
	return has;
}

/* item.lock and s.lock held. What it has written until now is committed. If another has made it
 * live, it may be that its pages are still to be dropped: it is no further than that when its own
 * opening of the companion is answered. */
static int make_live(struct sopfs *f, struct sopfs_session *s, void *arg, struct sop_err *e)
{
	struct sopfs_notes *notes = arg;

	if (s->append || !s->view)
		return 0;
	(void)sopfs_session_commit(f, s, notes, e); /* its own users are told */
	if (s->dead)
		return 0;
	sop_txn_rollback(s->txn);
	s->txn = NULL;
	s->value = NULL;
	pthread_mutex_lock(&f->lock);
	if (!atomic_load(&s->live))
		s->item->direct += s->handles;
	atomic_store(&s->live, true);
	sopfs_note_data(f, notes, s->view);
	pthread_mutex_unlock(&f->lock);
	return 0;
}

void sopfs_companion_opened(struct sopfs *f, struct sopfs_handle *h, uint64_t store,
	const char *name, size_t len, struct sopfs_notes *notes)
{
	struct sopfs_item *item;
	bool there;

	h->companion = true;
	atomic_fetch_add(&f->companions, 1);
	item = find(f, store, name, len - SUFFIX, &there);
	if (!item)
		return;
	pthread_mutex_lock(&item->lock);
	(void)sopfs_each_session(f, item, make_live, notes, NULL);
	pthread_mutex_unlock(&item->lock);
	sopfs_item_put(f, item);
}
