/* What is in a volume but the contents of its files: every name with its attributes, as one
 * committed version has it (sopctl(8), "dump"). A line of JSON each, a directory before what is in
 * it:
 *
 *     {"sopfs_dump":1,"volume":{...},"lsn":N,...}         the first
 *     {"path":"a/b","type":"file","mode":"0644",...}      relative to the root, which is "."
 *     {"path":"a","error":"..."}                          what could not be read; the rest goes on
 *     {"end":true,"names":N,"errors":N}                   the last, so that one that was cut off is
 * noticed */
#ifndef SOPFS_DUMP_H
#define SOPFS_DUMP_H

#include <jansson.h>

#include "fs/sopfs.h"

#define SOPFS_DUMP_CONTENT_MAX (1u << 20)

/* request: "contents": those of files of up to so many bytes come with them (0: none). put takes
 * the reference; what it returns other than 0 ends it and is returned. Holds back the space that
 * others free meanwhile. Any thread. */
int sopfs_dump(struct sopfs *f, const json_t *request, int (*put)(void *arg, json_t *line),
	void *arg, struct sop_err *e);

#endif
