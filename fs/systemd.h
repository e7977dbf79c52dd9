/* What systemd wants to hear of a service, and the journal of a line: plain datagrams, no library.
 * Without systemd every call does nothing. */
#ifndef SOPFS_SYSTEMD_H
#define SOPFS_SYSTEMD_H

#include "core/log.h"

/* sd_notify(3): newline-separated assignments ("READY=1\nSTATUS=serving") to $NOTIFY_SOCKET. */
void sopfs_notify_service(const char *fmt, ...) SOP_PRINTF(1, 2);

/* One line to the journal, with fields of its own: SOPFS_VOLUME, SOPFS_MODULE, and each key=value word of
 * the line as SOPFS_KEY (op, disk, code, path...). False: there is no journal here; use syslog. Any
 * thread. */
bool sopfs_journal_send(
	int priority, const char *volume, const char *module, const char *line);

#endif
