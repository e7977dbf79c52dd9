#include "tests/lib/failing.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_ulong count, fail_at;
static atomic_bool hit, fail_all;
static bool (*choose)(void *arg);
static void *choose_arg;

void failing_arm(unsigned long n, bool stays)
{
	count = 0;
	hit = false;
	fail_all = stays;
	choose = NULL;
	fail_at = n;
}

void failing_choose(bool (*here)(void *arg), void *arg)
{
	choose = here;
	choose_arg = arg;
}

bool failing_hit(void)
{
	return hit;
}

static bool fails(void)
{
	unsigned long n = ++count, at = fail_at;

	if (!at || (n != at && !(fail_all && n > at)))
		return false;
	if (n == at && choose && !choose(choose_arg)) {
		fail_at = at + 1;
		return false;
	}
	hit = true;
	errno = ENOMEM;
	return true;
}

void *failing_malloc(size_t n)
{
	return fails() ? NULL : malloc(n);
}

void *failing_calloc(size_t n, size_t size)
{
	return fails() ? NULL : calloc(n, size);
}

void *failing_realloc(void *p, size_t n)
{
	return fails() ? NULL : realloc(p, n);
}

void *failing_reallocarray(void *p, size_t n, size_t size)
{
	return fails() ? NULL : reallocarray(p, n, size);
}

int failing_posix_memalign(void **out, size_t align, size_t n)
{
	return fails() ? ENOMEM : posix_memalign(out, align, n);
}

char *failing_strdup(const char *s)
{
	return fails() ? NULL : strdup(s);
}

char *failing_strndup(const char *s, size_t n)
{
	return fails() ? NULL : strndup(s, n);
}

int failing_pthread_create(
	pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	(void)thread;
	(void)attr;
	(void)fn;
	(void)arg;
	return EAGAIN;
}
