/* Log lines: one line an event, fixed keys, the code before the sentence, no data bytes.
 *
 * A volume owns one struct sop_log and hands it down. sink may be NULL (silent). Any thread. */
#ifndef SOP_LOG_H
#define SOP_LOG_H

#include "core/base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum sop_log_level { SOP_LOG_ERROR, SOP_LOG_WARNING, SOP_LOG_INFO, SOP_LOG_DEBUG };

struct sop_log {
	void (*sink)(void *ctx, enum sop_log_level level, const char *module, const char *line);
	void *ctx;
	enum sop_log_level max_level; /* lines above it are dropped */
};

/* sop_log(log, SOP_LOG_WARNING, "blob", "op=read disk=2 code=EIO: shard unreadable, rebuilt"). */
void sop_log(const struct sop_log *log, enum sop_log_level level, const char *module,
	const char *fmt, ...) SOP_PRINTF(4, 5);

const char *sop_log_level_name(enum sop_log_level level);

#ifdef __cplusplus
}
#endif

#endif
