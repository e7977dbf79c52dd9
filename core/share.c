/* A volume of one machine becomes one that several mount, and the other way. By who is alone in it
 * to the end, so that nobody else knows it as what it was; one round of labels decides.
 *
 * on: what was committed is in the checkpoint and in the journal behind it; recovery reads both
 * before it goes on with the slots. off: all slots are in a checkpoint before, and nothing is
 * committed after it. A crash leaves either kind, whole.
 *
 * Where the chain ended stays in the checkpoints, so that it goes on there when the volume is
 * shared once more: at the slots below floors may stand. Nobody can have left anything in those
 * above: a zombie would first have to get by our BASE, which ends it. */
#include "core/shared.h"
#include "core/slots.h"

static int refuse(struct sop_err *e, const char *what)
{
	return sop_say(e, -EBUSY, "%s", what);
}

static int check_share(struct sop_volume *v, struct sop_err *e)
{
	unsigned replicas = 0;

	if (v->prepared)
		return refuse(e, "there are prepared transactions, which a shared volume has not: "
				 "commit them, or roll them back");
	for (unsigned i = 0; i < sop_members_count(v->mem); i++) {
		struct sop_member_status s;

		sop_members_status(v->mem, i, &s);
		if (s.state == SOP_MEMBER_REMOVED)
			continue;
		if (s.state == SOP_MEMBER_DRAINING)
			return sop_say(e, -EBUSY,
				"%s is being replaced or emptied, which goes on only while the "
				"volume is not shared",
				s.path);
		replicas += (s.role & SOP_ROLE_REGISTRY) != 0;
	}
	if (replicas > SOP_SLOT_REPLICAS)
		return sop_say(e, -EINVAL, "a shared volume has at most %d copies of the registry",
			SOP_SLOT_REPLICAS);
	return 0;
}

/* All that is in slots is in the checkpoint. A checkpoint may commit what it has found out. */
static int leave_slots(struct sop_volume *v, struct sop_err *e)
{
	uint64_t before;
	int rc = sop_volume_tick(v, e);

	do {
		before = sop_shared_slot(v);
		rc = rc ? rc : sop_checkpoint_run(v, true, e);
	} while (!rc && sop_shared_slot(v) != before);
	return rc;
}

int sop_volume_share(struct sop_volume *v, bool on, struct sop_err *e)
{
	int rc;

	if (!v->opts.exclusive || v->opts.read_only)
		return sop_say(e, -EINVAL, "the volume has not been opened to be alone in it");
	if (on == (v->shared != NULL))
		return 0;
	rc = on ? check_share(v, e) : leave_slots(v, e);
	if (!rc)
		rc = sop_members_set_shared(v->mem, on, e);
	if (on)
		return rc;
	/* What would be committed now is in a slot that nobody reads: closing commits nothing. */
	v->opts.read_only = true;
	if (!rc)
		sop_members_part(v->mem);
	return rc;
}
