/* UUIDs (random, version 4) and random numbers. Any thread. */
#ifndef SOP_ID_H
#define SOP_ID_H

#include "core/err.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SOP_UUID_TEXT 37

struct sop_uuid {
	uint8_t b[16];
};

int sop_uuid_new(struct sop_uuid *out, struct sop_err *e);
/* text holds SOP_UUID_TEXT bytes, ended by NUL; returned. */
char *sop_uuid_format(char *text, const struct sop_uuid *id);
/* -EINVAL when text is not a UUID. */
int sop_uuid_parse(struct sop_uuid *out, const char *text);
bool sop_uuid_equal(const struct sop_uuid *a, const struct sop_uuid *b);
/* Random bytes from the kernel; never fails for the small sizes used here. */
void sop_random(void *buf, size_t len_bytes);

#ifdef __cplusplus
}
#endif

#endif
