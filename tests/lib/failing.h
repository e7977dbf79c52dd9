/* Memory that runs out on purpose. Tests that link libsop-failing.a (the library with its calls of
 * malloc and the like renamed) have every allocation of the engine go through here, and none of
 * their own. Threads are not to be had there: the engine does everything on the caller's, in the
 * same order each time. */
#ifndef TESTS_FAILING_H
#define TESTS_FAILING_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* The n-th allocation from now on fails, once (stays: and all after it). 0: none. */
void failing_arm(unsigned long n, bool stays);
/* But the first from there on, at most once asked for each, for which `here` says so (NULL: the
 * n-th). Until the next failing_arm(). */
void failing_choose(bool (*here)(void *arg), void *arg);
bool failing_hit(void); /* has one failed since? */

void *failing_malloc(size_t n);
void *failing_calloc(size_t n, size_t size);
void *failing_realloc(void *p, size_t n);
void *failing_reallocarray(void *p, size_t n, size_t size);
int failing_posix_memalign(void **out, size_t align, size_t n);
char *failing_strdup(const char *s);
char *failing_strndup(const char *s, size_t n);
int failing_pthread_create(
	pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);

#endif
