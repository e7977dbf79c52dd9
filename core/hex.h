/* Hexadecimal digits, and %XX. Pure; any thread. */
#ifndef SOP_HEX_H
#define SOP_HEX_H

#include "core/base.h"

/* 0 to 15, of either case; -1: none. */
int sop_hex_digit(char c);

/* malloc'ed; NULL: out of memory. */
char *sop_hex_encode(const void *bytes, size_t len);
/* malloc'ed, a NUL behind it; NULL: out of memory, or no hexadecimal digits, two for each byte. */
char *sop_hex_decode(const char *text, size_t text_len, size_t *len);

/* Text with %XX for any byte, into out, not ended by NUL. The number of bytes, never more than len;
 * -EINVAL: a % without two digits behind it; -ENAMETOOLONG: more than size. */
ssize_t sop_percent_decode(char *out, size_t size, const char *text, size_t len);

#endif
