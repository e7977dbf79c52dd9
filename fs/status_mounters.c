/* Of a shared volume whose mounters meet at a Redis server: the server, and all mounters. From
 * memory, as of the last renewal of the lease. */
#include "core/human.h"
#include "fs/state.h"
#include "fs/status.h"

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)SOP_MIN(n, (uint64_t)INT64_MAX));
}

static json_t *server_json(struct sopfs *f)
{
	struct sop_coord_state st;
	char server[SOP_COORD_TEXT];
	uint64_t tip, applied;

	sop_volume_coordination(f->v, server, &st);
	sop_volume_slots(f->v, &tip, &applied);
	return json_pack("{s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o}", "server",
		sopfs_json_of(server), "up", st.up, "for_s", number(st.for_ms / 1000), "trouble",
		st.up ? json_null() : sopfs_json_of(st.trouble), "round_trips",
		number(st.round_trips), "connections", number(st.connections), "tip", number(tip),
		"applied", number(applied));
}

static json_t *mounter_json(const struct sop_coord_member *m, uint64_t tip)
{
	char session[20];

	snprintf(session, sizeof(session), "%016llx", (unsigned long long)m->session);
	return json_pack("{s:s, s:o, s:o, s:I, s:o, s:I, s:o, s:o, s:b}", "session", session,
		"host", sopfs_json_of(m->host), "mountpoint", sopfs_json_of(m->where), "pid",
		(json_int_t)m->pid, "age_s", number(m->age_ms / 1000), "lease_ms",
		(json_int_t)m->lease_ms, "lag", number(tip > m->applied ? tip - m->applied : 0),
		"locks", number(m->locks), "this", m->me);
}

static json_t *mounters_json(struct sopfs *f)
{
	struct sop_coord_member *m = NULL;
	json_t *all = json_array();
	uint64_t tip, applied;
	size_t n = 0;

	sop_volume_slots(f->v, &tip, &applied);
	/* Without memory for a list there is none. */
	(void)sop_volume_mounters(f->v, &m, &n, NULL);
	for (size_t i = 0; all && i < n; i++)
		if (json_array_append_new(all, mounter_json(&m[i], tip))) {
			json_decref(all);
			all = NULL;
		}
	free(m);
	return all;
}

json_t *sopfs_status_with_mounters(json_t *status, struct sopfs *f)
{
	if (!status || !sop_volume_coordinated(f->v))
		return status;
	if (!json_object_set_new(status, "redis", server_json(f)) &&
		!json_object_set_new(status, "mounters", mounters_json(f)))
		return status;
	json_decref(status);
	return NULL;
}

static void text_mounter(FILE *o, const json_t *m)
{
	json_int_t lease = json_integer_value(json_object_get(m, "lease_ms"));
	char age[SOP_HUMAN_TEXT];

	fprintf(o, "          %-20s %7lld  up %-8s lag %llu  locks %llu  ",
		sopfs_json_text(m, "host"),
		(long long)json_integer_value(json_object_get(m, "pid")),
		sop_human_duration(age, sopfs_json_number(m, "age_s")),
		(unsigned long long)sopfs_json_number(m, "lag"),
		(unsigned long long)sopfs_json_number(m, "locks"));
	if (lease < 0)
		fprintf(o, "lease ran out %.1f s ago", (double)-lease / 1000);
	else
		fprintf(o, "lease %.1f s", (double)lease / 1000);
	fprintf(o, "  %s%s\n", sopfs_json_text(m, "mountpoint"),
		json_is_true(json_object_get(m, "this")) ? "  (this one)" : "");
}

void sopfs_status_text_mounters(FILE *o, const json_t *status)
{
	const json_t *r = json_object_get(status, "redis"), *all, *m;
	char since[SOP_HUMAN_TEXT];
	size_t i;

	if (!r)
		return;
	fprintf(o, "   redis: %s  %s for %s%s%s\n", sopfs_json_text(r, "server"),
		json_is_true(json_object_get(r, "up")) ? "up" : "AWAY",
		sop_human_duration(since, sopfs_json_number(r, "for_s")),
		sopfs_json_text(r, "trouble")[0] ? ": " : "", sopfs_json_text(r, "trouble"));
	all = json_object_get(status, "mounters");
	fprintf(o, "mounters: %zu\n", json_array_size(all));
	json_array_foreach(all, i, m) text_mounter(o, m);
}
