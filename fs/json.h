/* JSON of what is not always text. */
#ifndef SOPFS_JSON_H
#define SOPFS_JSON_H

#include <jansson.h>

/* Member `key` of j: these bytes as a string; as "KEY_hex" in hexadecimal where they are no UTF-8,
 * or hold a NUL. 0 or -ENOMEM. */
int sopfs_json_bytes(json_t *j, const char *key, const void *bytes, size_t len);

/* Such a member, without a NUL in it; malloc'ed. NULL: it is not there, or is none. */
char *sopfs_json_bytes_text(const json_t *j, const char *key);

#endif
