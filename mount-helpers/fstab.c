#include "mount-helpers/fstab.h"

#include <string.h>

/* What fstab gives a meaning to is written in octal, the backslash too. */
static void put(FILE *o, char c)
{
	if (strchr(" \t\n\\", c))
		fprintf(o, "\\%03o", (unsigned)(unsigned char)c);
	else
		fputc(c, o);
}

void fstab_line(FILE *o, const char *const *paths, size_t n, const char *mountpoint)
{
	for (size_t i = 0; i < n; i++) {
		if (i)
			fputc(':', o);
		/* What the list of folders gives a meaning to (: and the characters of patterns)
		 * gets a backslash first. */
		for (const char *p = paths[i]; *p; p++) {
			if (strchr(":\\*?[", *p))
				put(o, '\\');
			put(o, *p);
		}
	}
	fputs("  ", o);
	for (const char *p = mountpoint; *p; p++)
		put(o, *p);
	fputs("  sopfs  nofail,x-systemd.mount-timeout=5min  0 0\n", o);
}
