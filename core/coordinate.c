#include "core/coordinate.h"

#include "core/coord_own.h"
#include "core/shared.h"

struct sop_coordination {
	struct sop_coord *c;
	struct sop_lock lock; /* LEAF */
	pthread_cond_t changed;
	/* under lock */
	uint64_t applied;
	void (*unlocked)(void *arg, uint64_t object);
	void *unlocked_arg;
};

/* ---- events; on coordination's own thread ---- */

/* Others have committed: the background thread follows. */
static void on_tip(void *arg, uint64_t tip)
{
	struct sop_volume *v = arg;
	struct sop_coordination *x = v->coordination;
	bool news;

	sop_lock(&x->lock);
	news = tip > x->applied;
	sop_unlock(&x->lock);
	if (news)
		sop_volume_kick(v);
}

static void wake(struct sop_volume *v)
{
	struct sop_coordination *x = v->coordination;

	SOP_LOCK_GUARD(&x->lock);
	pthread_cond_broadcast(&x->changed);
}

static void on_session(void *arg, uint64_t id, bool unbroken)
{
	struct sop_volume *v = arg;

	if (!unbroken)
		sop_log(v->log, SOP_LOG_WARNING, "coord",
			"session=%016llx: the one before was lost, and its locks with it",
			(unsigned long long)id);
	wake(v);
}

static void on_state(void *arg, bool up)
{
	(void)up;
	wake(arg);
}

/* Under the lock, so that nothing is called any more when sop_volume_on_unlocked() has returned. */
static void on_unlocked(void *arg, uint64_t object)
{
	struct sop_volume *v = arg;
	struct sop_coordination *x = v->coordination;

	SOP_LOCK_GUARD(&x->lock);
	if (x->unlocked)
		x->unlocked(x->unlocked_arg, object);
}

/* ---- open, close ---- */

int sop_coordinate_open(struct sop_volume *v, struct sop_err *e)
{
	struct sop_coord_options o = {.volume = sop_members_label(v->mem)->volume_uuid,
		.url = v->opts.redis,
		.password_file = v->opts.redis_password_file,
		.where = v->opts.mounted_at,
		.lease_ms = v->opts.lease_ms,
		.log = v->log,
		.on = {.tip = on_tip,
			.session = on_session,
			.unlocked = on_unlocked,
			.state = on_state,
			.arg = v}};
	struct sop_coordination *x;
	int rc;

	x = calloc(1, sizeof(*x));
	if (!x)
		return sop_fail(e, -ENOMEM, "coordination");
	sop_lock_init(&x->lock, SOP_RANK_LEAF, "coordination");
	sop_cond_init(&x->changed);
	v->coordination = x;
	rc = sop_coord_open(&x->c, &o, e);
	if (rc) {
		sop_coordinate_close(v);
		return rc;
	}
	/* When the server is away, its generation is young when it comes back; that is no more than
	 * a wait. */
	if (!sop_members_joined(v->mem))
		(void)sop_coord_alone(x->c, NULL);
	return 0;
}

void sop_coordinate_close(struct sop_volume *v)
{
	struct sop_coordination *x = v->coordination;

	if (!x)
		return;
	sop_coord_close(x->c);
	v->coordination = NULL;
	pthread_cond_destroy(&x->changed);
	sop_lock_release(&x->lock);
	free(x);
}

/* ---- commits ---- */

static int refuse(struct sop_volume *v, int rc, struct sop_err *e)
{
	struct sop_coord_state st;
	char server[SOP_COORD_TEXT];

	sop_volume_coordination(v, server, &st);
	return sop_say(e, rc, "volume %s: no lease to commit under: %s", v->name,
		st.up ? "it was not renewed in time" : st.trouble);
}

static bool good(const struct sop_coordination *x)
{
	return sop_coord_may_commit(x->c, sop_coord_session(x->c));
}

int sop_coordinate_may_commit(struct sop_volume *v, struct sop_err *e)
{
	struct sop_coordination *x = v->coordination;

	if (!x || good(x))
		return 0;
	switch (v->opts.ondown) {
	case SOP_ONDOWN_BLOCK:
		return SOP_COORDINATE_LATER;
	case SOP_ONDOWN_RO:
		return refuse(v, -EROFS, e);
	case SOP_ONDOWN_EIO:
		break;
	}
	return refuse(v, -EIO, e);
}

int sop_coordinate_gate(struct sop_volume *v, uint64_t deadline_ms, struct sop_err *e)
{
	struct sop_coordination *x = v->coordination;

	if (!x || v->opts.ondown != SOP_ONDOWN_BLOCK)
		return sop_coordinate_may_commit(v, e);
	while (!good(x)) {
		uint64_t now = v->clock->monotonic_ms(v->clock->ctx);

		if (now >= deadline_ms)
			return refuse(v, SOP_ETIMEOUT, e);
		/* A renewal that makes a lease good again is no event: look now and then. */
		sop_lock(&x->lock);
		sop_cond_wait(
			&x->changed, &x->lock, (long)SOP_MIN(deadline_ms - now, (uint64_t)200));
		sop_unlock(&x->lock);
	}
	return 0;
}

bool sop_coordinate_grant_lost(struct sop_volume *v, uint64_t grant)
{
	return v->coordination && sop_coord_grant_lost(v->coordination->c, grant);
}

void sop_coordinate_turn(struct sop_volume *v)
{
	struct sop_coord_turn turn;

	/* Without it, two may try one slot; the slot decides. */
	if (v->coordination)
		(void)sop_coord_reserve(v->coordination->c, &turn, NULL);
}

void sop_coordinate_placed(struct sop_volume *v, uint64_t slot)
{
	struct sop_coordination *x = v->coordination;

	if (!x)
		return;
	/* Who does not hear of it finds it on the disks, with the next look. */
	if (slot)
		(void)sop_coord_publish(x->c, slot, NULL);
	else
		sop_coord_yield(x->c);
}

void sop_coordinate_applied(struct sop_volume *v, uint64_t slot)
{
	struct sop_coordination *x = v->coordination;

	if (!x)
		return;
	sop_lock(&x->lock);
	x->applied = SOP_MAX(x->applied, slot);
	sop_unlock(&x->lock);
	sop_coord_progress(x->c, slot, slot);
}

/* ---- the public part ---- */

static int none(struct sop_err *e)
{
	return sop_say(e, -EOPNOTSUPP, "mounted without redis=");
}

int sop_redis_url_check(const char *url, struct sop_err *e)
{
	struct sop_coord_url u;
	int rc = sop_coord_url_parse(&u, url, e);

	if (!rc && u.password[0])
		rc = sop_say(e, -EINVAL,
			"redis: the URL has a password, which others can see; put it into a file, "
			"and that into "
			"redis_password_file=");
	explicit_bzero(&u, sizeof(u));
	return rc;
}

bool sop_volume_coordinated(const struct sop_volume *v)
{
	return v->coordination != NULL;
}

int sop_volume_mounters(
	struct sop_volume *v, struct sop_coord_member **out, size_t *count, struct sop_err *e)
{
	return v->coordination ? sop_coord_list_seen(v->coordination->c, out, count, e) : none(e);
}

void sop_volume_coordination(struct sop_volume *v, char *server, struct sop_coord_state *out)
{
	memset(out, 0, sizeof(*out));
	server[0] = 0;
	if (!v->coordination)
		return;
	sop_coord_server(v->coordination->c, server);
	sop_coord_state(v->coordination->c, out);
}

void sop_volume_slots(struct sop_volume *v, uint64_t *tip, uint64_t *applied)
{
	struct sop_coordination *x = v->coordination;

	*tip = *applied = 0;
	if (!x)
		return;
	*tip = sop_coord_tip_seen(x->c);
	SOP_LOCK_GUARD(&x->lock);
	*applied = x->applied;
	*tip = SOP_MAX(*tip, *applied);
}

int sop_volume_lock(struct sop_volume *v, const struct sop_coord_lock *l, unsigned wait_ms,
	uint64_t *grant, struct sop_coord_holder *by, struct sop_err *e)
{
	return v->coordination ? sop_coord_lock(v->coordination->c, l, wait_ms, grant, by, e)
			       : none(e);
}

int sop_volume_lock_test(struct sop_volume *v, const struct sop_coord_lock *l,
	struct sop_coord_holder *by, struct sop_err *e)
{
	return v->coordination ? sop_coord_lock_test(v->coordination->c, l, by, e) : none(e);
}

void sop_volume_lock_forget(struct sop_volume *v, const struct sop_coord_lock *l)
{
	if (v->coordination)
		sop_coord_lock_forget(v->coordination->c, l);
}

void sop_txn_under(struct sop_txn *t, uint64_t grant)
{
	t->grant = grant;
}

void sop_volume_on_unlocked(struct sop_volume *v, void (*fn)(void *arg, uint64_t object), void *arg)
{
	struct sop_coordination *x = v->coordination;

	if (!x)
		return;
	SOP_LOCK_GUARD(&x->lock);
	x->unlocked = fn;
	x->unlocked_arg = arg;
}
