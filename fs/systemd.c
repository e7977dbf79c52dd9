/* The protocols are documented: sd_notify(3), and "Native Journal Protocol" of systemd. */
#include "fs/systemd.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define DATAGRAM_MAX   4096

static int send_to(const char *path, const char *data, size_t len)
{
	sop_autoclose int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t path_len = strlen(path);

	if (fd < 0 || path_len >= sizeof(to.sun_path))
		return -1;
	memcpy(to.sun_path, path, path_len);
	if (path[0] == '@')
		to.sun_path[0] = '\0'; /* an abstract name */
	if (sendto(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&to,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_len)) < 0)
		return -1;
	return 0;
}

void sopfs_notify_service(const char *fmt, ...)
{
	const char *path = getenv("NOTIFY_SOCKET");
	char text[512];
	va_list ap;
	int n;

	if (!path || (path[0] != '/' && path[0] != '@'))
		return;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* Nobody listens any more: a service manager that is gone changes nothing for us. */
	if (n > 0)
		(void)send_to(path, text, SOP_MIN((size_t)n, sizeof(text) - 1));
}

/* One field, as NAME=value: a newline would end it, and no line of ours has one. */
static size_t put_field(char *data, size_t at, const char *name, const char *value, size_t len)
{
	size_t name_len = strlen(name), i;

	if (at + name_len + len + 2 > DATAGRAM_MAX)
		return at;
	memcpy(data + at, name, name_len);
	at += name_len;
	data[at++] = '=';
	for (i = 0; i < len; i++)
		data[at++] = value[i] == '\n' ? ' ' : value[i];
	data[at++] = '\n';
	return at;
}

/* The words "key=value" that a line begins with, up to the colon before its sentence. */
static size_t put_words(char *data, size_t at, const char *line)
{
	char name[32];
	size_t key, len, i;

	for (;;) {
		for (key = 0; islower((unsigned char)line[key]) || line[key] == '_'; key++)
			;
		if (!key || key > sizeof(name) - 8 || line[key] != '=')
			return at;
		memcpy(name, "SOPFS_", 6);
		for (i = 0; i < key; i++)
			name[6 + i] = (char)toupper((unsigned char)line[i]);
		name[6 + key] = '\0';
		line += key + 1;
		len = strcspn(line, " ");
		at = put_field(data, at, name, line, len && line[len - 1] == ':' ? len - 1 : len);
		if (!line[len] || (len && line[len - 1] == ':'))
			return at;
		line += len + 1;
	}
}

bool sopfs_journal_send(int priority, const char *volume, const char *module, const char *line)
{
	char data[DATAGRAM_MAX], message[1024], number[2] = {(char)('0' + priority % 8), '\0'};
	int len = snprintf(message, sizeof(message), "sopfs[%s] %s: %s", volume, module, line);
	size_t at = 0;

	if (len < 0)
		return false;
	at = put_field(data, at, "MESSAGE", message, SOP_MIN((size_t)len, sizeof(message) - 1));
	at = put_field(data, at, "PRIORITY", number, 1);
	at = put_field(data, at, "SYSLOG_IDENTIFIER", "sopfs", 5);
	at = put_field(data, at, "SOPFS_VOLUME", volume, strlen(volume));
	at = put_field(data, at, "SOPFS_MODULE", module, strlen(module));
	at = put_words(data, at, line);
	return !send_to(JOURNAL_SOCKET, data, at);
}
