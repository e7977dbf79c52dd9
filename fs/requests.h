/* How many requests of each kind the kernel has sent. Any thread. */
#ifndef SOPFS_REQUESTS_H
#define SOPFS_REQUESTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* A request as it was read. */
void sopfs_request_note(const void *request, size_t len_bytes);
/* A RELEASE has been served. Are there some that have come and have not been? */
void sopfs_request_released(void);
bool sopfs_requests_releasing(void);

/* {"total": n, "LOOKUP": n, ...}: a new reference, or NULL: no memory. FORGET is none: it has no
 * answer, and comes when the kernel likes. */
json_t *sopfs_requests_json(void);

#endif
