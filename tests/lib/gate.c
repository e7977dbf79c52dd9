#include "tests/lib/gate.h"

#include <pthread.h>
#include <string.h>

#include "tests/lib/simdisk.h"

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	const char *disk, *opens;
	bool renames, hangs;
	unsigned closed;
	struct sop_disk_ops ops;
	const struct sop_disk_ops *real;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static bool is_it(const struct sop_disk *d)
{
	return gate.disk && !strcmp(d->name, gate.disk);
}

static int gate_rename(struct sop_disk *d, const char *from, const char *to)
{
	pthread_mutex_lock(&gate.lock);
	while (gate.hangs && gate.renames && is_it(d))
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
	return gate.real->rename(d, from, to);
}

static int gate_file_open(struct sop_file **out, struct sop_disk *d, const char *path, int flags)
{
	pthread_mutex_lock(&gate.lock);
	while (gate.hangs && gate.opens && !strncmp(path, gate.opens, strlen(gate.opens)) &&
		is_it(d))
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
	return gate.real->file_open(out, d, path, flags);
}

static void gate_close(struct sop_disk *d)
{
	bool it;

	pthread_mutex_lock(&gate.lock);
	it = is_it(d);
	pthread_mutex_unlock(&gate.lock);
	gate.real->close(d);
	pthread_mutex_lock(&gate.lock);
	gate.closed += it;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
}

int gate_open_disk(void *sim, struct sop_disk **out, const char *path, struct sop_err *e)
{
	int rc = sim_open_disk(sim, out, path, e);

	if (rc)
		return rc;
	pthread_mutex_lock(&gate.lock);
	if (!gate.real) {
		gate.real = (*out)->ops;
		gate.ops = *gate.real;
		gate.ops.rename = gate_rename;
		gate.ops.file_open = gate_file_open;
		gate.ops.close = gate_close;
	}
	(*out)->ops = &gate.ops;
	pthread_mutex_unlock(&gate.lock);
	return 0;
}

void gate_hang(const char *disk, bool renames, const char *opens)
{
	pthread_mutex_lock(&gate.lock);
	gate.disk = disk;
	gate.renames = renames;
	gate.opens = opens;
	gate.hangs = true;
	pthread_mutex_unlock(&gate.lock);
}

void gate_count(void)
{
	pthread_mutex_lock(&gate.lock);
	gate.closed = 0;
	pthread_mutex_unlock(&gate.lock);
}

unsigned gate_let_go(void)
{
	unsigned early;

	pthread_mutex_lock(&gate.lock);
	early = gate.closed;
	gate.hangs = false;
	pthread_cond_broadcast(&gate.changed);
	while (!gate.closed)
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
	return early;
}
