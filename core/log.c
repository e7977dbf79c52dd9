#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>

#define LINE_BYTES 1024

void sop_log(const struct sop_log *log, enum sop_log_level level, const char *module,
	const char *fmt, ...)
{
	char line[LINE_BYTES];
	va_list ap;
	int n;

	if (!log || !log->sink || level > log->max_level)
		return;
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n < 0)
		strcpy(line, "(line)");
	else if ((size_t)n >= sizeof(line))
		strcpy(line + sizeof(line) - 4, "...");
	/* One line an event, whatever is in the names it quotes. */
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	log->sink(log->ctx, level, module, line);
}

const char *sop_log_level_name(enum sop_log_level level)
{
	switch (level) {
	case SOP_LOG_ERROR:
		return "error";
	case SOP_LOG_WARNING:
		return "warning";
	case SOP_LOG_INFO:
		return "info";
	case SOP_LOG_DEBUG:
		return "debug";
	}
	return "unknown";
}
