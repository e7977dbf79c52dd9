/* What tools say when something is wrong. */
#ifndef COMPLAIN_H
#define COMPLAIN_H

#include "core/sop.h"

/* "program: message" on stderr; returns code. */
int tool_complain(const char *program, int code, const char *fmt, ...) SOP_PRINTF(3, 4);
/* Where to read how it is used; returns code. */
int tool_misused(const char *program, int code);

#endif
