#include "mount-helpers/complain.h"

#include <stdarg.h>
#include <stdio.h>

int tool_complain(const char *program, int code, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", program);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return code;
}

int tool_misused(const char *program, int code)
{
	fprintf(stderr, "Try '%s --help'.\n", program);
	return code;
}
