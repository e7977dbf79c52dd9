/* Where a Redis server is. Messages never quote the URL: it may hold a password. */
#include <stdio.h>

#include "core/coord_own.h"
#include "core/hex.h"

#define FORMS                                                                                      \
	"redis://[user[:password]@]host[:port][/db], rediss:// the same[?ca=FILE], "               \
	"unix:///path[?db=N], "                                                                    \
	"sentinel://host[:port][+...]/name[/db]"

static int wrong(struct sop_err *e, const char *what)
{
	return sop_say(e, -EINVAL, "redis: %s; it looks like %s", what, FORMS);
}

/* A number of the whole text, within bounds; -1. */
static long number(const char *text, size_t len, long max)
{
	long n = 0;

	if (!len || len > 9)
		return -1;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		n = n * 10 + (text[i] - '0');
	}
	return n <= max ? n : -1;
}

/* %XX decoded; -1: too long, or no text. */
static int decode(char *out, size_t size, const char *text, size_t len)
{
	ssize_t n = sop_percent_decode(out, size - 1, text, len);

	if (n < 0 || memchr(out, 0, (size_t)n))
		return -1;
	out[n] = 0;
	return 0;
}

static int parse_user(struct sop_coord_url *u, const char *text, size_t len, struct sop_err *e)
{
	const char *colon = memchr(text, ':', len);
	size_t user_len = colon ? (size_t)(colon - text) : len;

	if (decode(u->user, sizeof(u->user), text, user_len) ||
		(colon && decode(u->password, sizeof(u->password), colon + 1, len - user_len - 1)))
		return wrong(e, "the user or password cannot be read");
	return 0;
}

/* HOST, HOST:PORT, [IPV6], [IPV6]:PORT */
static int parse_peer(
	struct sop_coord_peer *p, const char *text, size_t len, int port, struct sop_err *e)
{
	const char *host = text, *end = text + len, *rest = memchr(text, ':', len);
	size_t host_len = rest ? (size_t)(rest - text) : len;
	long n;

	if (len && text[0] == '[') {
		const char *close = memchr(text, ']', len);

		if (!close)
			return wrong(e, "a [ has no ]");
		host = text + 1;
		host_len = (size_t)(close - host);
		rest = close + 1 < end ? close + 1 : NULL;
		if (rest && *rest != ':')
			return wrong(e, "the port cannot be read");
	}
	if (!host_len || host_len >= sizeof(p->host))
		return wrong(e, "the host is missing");
	memcpy(p->host, host, host_len);
	p->host[host_len] = 0;
	p->port = port;
	if (!rest)
		return 0;
	n = number(rest + 1, (size_t)(end - rest - 1), 65535);
	if (n < 1)
		return wrong(e, "the port cannot be read");
	p->port = (int)n;
	return 0;
}

/* DB, and with TLS ?ca=FILE */
static int parse_db(struct sop_coord_url *u, const char *text, struct sop_err *e)
{
	const char *query = u->scheme == SOP_COORD_TLS ? strchr(text, '?') : NULL;
	size_t len = query ? (size_t)(query - text) : strlen(text);
	long n = query && !len ? 0 : number(text, len, 1000000);

	if (query && (strncmp(query, "?ca=", 4) != 0 ||
			     decode(u->ca, sizeof(u->ca), query + 4, strlen(query + 4))))
		return wrong(e, "what follows the ? cannot be read");
	if (n < 0)
		return wrong(e, "the database is no number");
	u->db = (int)n;
	return 0;
}

static int parse_unix(struct sop_coord_url *u, const char *text, struct sop_err *e)
{
	const char *query = strchr(text, '?');
	size_t len = query ? (size_t)(query - text) : strlen(text);

	if (text[0] != '/' || decode(u->path, sizeof(u->path), text, len))
		return wrong(e, "the path of the socket cannot be read, or is too long");
	if (!query)
		return 0;
	if (strncmp(query, "?db=", 4) != 0)
		return wrong(e, "what follows the ? cannot be read");
	return parse_db(u, query + 4, e);
}

static int parse_peers(
	struct sop_coord_url *u, const char *text, size_t len, int port, struct sop_err *e)
{
	const char *end = text + len;
	int rc;

	for (;;) {
		/* A plus does where commas separate options. */
		const char *comma = strpbrk(text, ",+");
		size_t one;

		if (comma && comma >= end)
			comma = NULL;
		one = comma ? (size_t)(comma - text) : (size_t)(end - text);

		if (u->peers == SOP_COORD_PEERS)
			return wrong(e, "too many hosts");
		rc = parse_peer(&u->peer[u->peers++], text, one, port, e);
		if (rc || !comma)
			return rc;
		text = comma + 1;
	}
}

/* /name[/db] */
static int parse_name(struct sop_coord_url *u, const char *text, struct sop_err *e)
{
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);

	if (!len || decode(u->name, sizeof(u->name), text, len))
		return wrong(e, "the name of what the sentinels watch is missing");
	return slash ? parse_db(u, slash + 1, e) : 0;
}

static int parse_net(struct sop_coord_url *u, const char *text, struct sop_err *e)
{
	size_t len = strcspn(text, "/?");
	const char *at = memrchr(text, '@', len), *path = text[len] == '?' ? text + len
							  : text[len]	   ? text + len + 1
									   : "";
	bool sentinel = u->scheme == SOP_COORD_SENTINEL;
	int rc;

	if (at) {
		rc = parse_user(u, text, (size_t)(at - text), e);
		if (rc)
			return rc;
		len -= (size_t)(at + 1 - text);
		text = at + 1;
	}
	rc = parse_peers(u, text, len, sentinel ? 26379 : 6379, e);
	if (rc)
		return rc;
	if (sentinel)
		return parse_name(u, path, e);
	if (u->peers > 1)
		return wrong(e, "only sentinels may be several");
	return *path ? parse_db(u, path, e) : 0;
}

int sop_coord_url_parse(struct sop_coord_url *out, const char *url, struct sop_err *e)
{
	static const struct {
		const char *prefix;
		enum sop_coord_scheme scheme;
	} forms[] = {{"redis://", SOP_COORD_TCP}, {"rediss://", SOP_COORD_TLS},
		{"unix://", SOP_COORD_UNIX}, {"sentinel://", SOP_COORD_SENTINEL}};

	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < SOP_ARRAY_LEN(forms); i++) {
		size_t len = strlen(forms[i].prefix);

		if (strncmp(url, forms[i].prefix, len) != 0)
			continue;
		out->scheme = forms[i].scheme;
		return out->scheme == SOP_COORD_UNIX ? parse_unix(out, url + len, e)
						     : parse_net(out, url + len, e);
	}
	return wrong(e, "not a form that is known");
}

void sop_coord_url_show(const struct sop_coord_url *u, char *text)
{
	static const char *const prefix[] = {"redis://", "rediss://", "unix://", "sentinel://"};
	const char *p = prefix[u->scheme];
	bool v6 = strchr(u->peer[0].host, ':') != NULL;

	if (u->scheme == SOP_COORD_UNIX)
		snprintf(text, SOP_COORD_TEXT, "%s%.50s", p, u->path);
	else if (u->scheme == SOP_COORD_SENTINEL)
		snprintf(text, SOP_COORD_TEXT, "%s%.30s:%d/%.16s", p, u->peer[0].host,
			u->peer[0].port, u->name);
	else
		snprintf(text, SOP_COORD_TEXT, "%s%s%.30s%s:%d/%d", p, v6 ? "[" : "",
			u->peer[0].host, v6 ? "]" : "", u->peer[0].port, u->db);
}
