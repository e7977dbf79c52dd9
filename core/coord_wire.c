/* Requests as scripts take them, and their answers: see core/lua/common.lua for the forms. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/coord_own.h"

const char *sop_coord_op_script(enum sop_coord_op op)
{
	static const char *const names[SOP_COORD_OPS] = {"join", "renew", "leave", "list", "tip",
		"reserve", "publish", "pins", "lock", "lock", "forget", "sync", "alone"};

	return names[op];
}

/* ---- words ---- */

void sop_coord_words_free(struct sop_coord_words *w)
{
	free(w->buf);
	free(w->at);
	memset(w, 0, sizeof(*w));
}

static bool make_room(struct sop_coord_words *w, size_t len)
{
	if (w->len + len > w->room) {
		size_t room = (w->len + len) * 2 + 256;
		char *buf = realloc(w->buf, room);

		if (!buf)
			return false;
		w->buf = buf;
		w->room = room;
	}
	if (w->count == w->at_room) {
		size_t room = w->at_room * 2 + 16;
		size_t *at = reallocarray(w->at, room, sizeof(*at));

		if (!at)
			return false;
		w->at = at;
		w->at_room = room;
	}
	return true;
}

void sop_coord_words_add(struct sop_coord_words *w, const char *text)
{
	size_t len = strlen(text) + 1;

	if (w->bad || !make_room(w, len)) {
		w->bad = true;
		return;
	}
	memcpy(w->buf + w->len, text, len);
	w->at[w->count++] = w->len;
	w->len += len;
}

static void add_number(struct sop_coord_words *w, uint64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, n);
	sop_coord_words_add(w, text);
}

static void add_wide(struct sop_coord_words *w, uint64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%020" PRIu64, n);
	sop_coord_words_add(w, text);
}

static void add_id(struct sop_coord_words *w, uint64_t id)
{
	char text[24];

	snprintf(text, sizeof(text), "%016" PRIx64, id);
	sop_coord_words_add(w, text);
}

static void add_lock(struct sop_coord_words *w, const struct sop_coord_lock *l)
{
	uint64_t first = l->whole ? 0 : l->start, last = l->whole ? UINT64_MAX : l->end;

	add_wide(w, l->object);
	add_wide(w, l->owner);
	sop_coord_words_add(w, l->whole ? "f" : "p");
	sop_coord_words_add(w, l->type == F_UNLCK ? "u" : l->type == F_RDLCK ? "r" : "w");
	add_wide(w, first);
	add_wide(w, last);
	if (first)
		add_wide(w, first - 1);
	else
		sop_coord_words_add(w, "");
	if (last != UINT64_MAX)
		add_wide(w, last + 1);
	else
		sop_coord_words_add(w, "");
	add_number(w, l->pid > 0 ? (uint64_t)l->pid : 0);
}

static void add_claims(struct sop_coord_words *w, const struct sop_coord_request *r)
{
	for (size_t i = 0; i < r->claim_count; i++)
		add_lock(w, &r->claims[i]);
}

static void encode_join(struct sop_coord_words *w, const struct sop_coord_request *r,
	const struct sop_coord_options *opt)
{
	add_id(w, r->target);
	add_number(w, opt->lease_ms);
	add_wide(w, r->tip);
	add_wide(w, r->applied);
	add_wide(w, r->pin);
	add_number(w, r->grant);
	sop_coord_words_add(w, opt->host);
	sop_coord_words_add(w, opt->where);
	add_number(w, (uint64_t)getpid());
	add_claims(w, r);
}

void sop_coord_encode(struct sop_coord_words *w, const struct sop_coord_request *r)
{
	const struct sop_coord_options *opt = sop_coord_opts(r->c);

	add_id(w, r->generation);
	add_id(w, r->session);
	switch (r->op) {
	case SOP_COORD_JOIN:
		encode_join(w, r, opt);
		break;
	case SOP_COORD_RENEW:
		add_number(w, opt->lease_ms);
		add_wide(w, r->applied);
		add_wide(w, r->pin);
		break;
	case SOP_COORD_LEAVE:
		add_id(w, r->target);
		add_number(w, opt->lease_ms);
		add_number(w, opt->hold_ms);
		break;
	case SOP_COORD_RESERVE:
		add_number(w, opt->hold_ms);
		break;
	case SOP_COORD_PUBLISH:
		add_wide(w, r->tip);
		add_number(w, opt->hold_ms);
		break;
	case SOP_COORD_PINS:
		add_number(w, opt->lease_ms);
		break;
	case SOP_COORD_LOCK:
	case SOP_COORD_TEST:
		add_number(w, opt->lease_ms);
		sop_coord_words_add(w, r->op == SOP_COORD_TEST ? "test" : "set");
		sop_coord_words_add(w, r->lock.waits ? "1" : "0");
		add_lock(w, &r->lock);
		break;
	case SOP_COORD_FORGET:
		add_lock(w, &r->lock);
		break;
	case SOP_COORD_SYNC:
		add_wide(w, r->lock.object);
		add_claims(w, r);
		break;
	case SOP_COORD_LIST:
	case SOP_COORD_TIP:
	case SOP_COORD_ALONE:
	case SOP_COORD_OPS:
	default:
		break;
	}
}

/* ---- answers ---- */

/* The whole of a text as a number; what is none sets *bad. */
static uint64_t read_number(const char *text, int base, bool *bad)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, base);
	if (errno || end == text || *end || *text == '-')
		*bad = true;
	return n;
}

static int64_t read_signed(const char *text, bool *bad)
{
	return *text == '-' ? -(int64_t)(read_number(text + 1, 10, bad) & INT64_MAX)
			    : (int64_t)(read_number(text, 10, bad) & INT64_MAX);
}

static int decode_join(struct sop_coord_request *r, const char *const *text, size_t count)
{
	bool bad = false;

	if (count != 5)
		return -EIO;
	r->got = read_number(text[0], 16, &bad);
	r->got_session = read_number(text[1], 16, &bad);
	r->got_tip = read_number(text[2], 10, &bad);
	r->got_grant = read_number(text[3], 10, &bad);
	r->lost = read_number(text[4], 10, &bad);
	return bad ? -EIO : 0;
}

static int decode_renew(struct sop_coord_request *r, const char *const *text, size_t count)
{
	bool bad = false;

	if (!count)
		return -EIO;
	r->got = read_number(text[0], 10, &bad);
	r->expired = reallocarray(NULL, count, sizeof(*r->expired));
	if (!r->expired)
		return -ENOMEM;
	for (size_t i = 1; i < count; i++)
		r->expired[r->expired_count++] = read_number(text[i], 16, &bad);
	return bad ? -EIO : 0;
}

#define MEMBER_WORDS 9

static int decode_list(struct sop_coord_request *r, const char *const *text, size_t count)
{
	bool bad = false;

	if (!count || count % MEMBER_WORDS)
		return -EIO;
	r->member = calloc(count / MEMBER_WORDS, sizeof(*r->member));
	if (!r->member)
		return -ENOMEM;
	for (; count; count -= MEMBER_WORDS, text += MEMBER_WORDS) {
		struct sop_coord_member *m = &r->member[r->member_count++];

		m->session = read_number(text[0], 16, &bad);
		snprintf(m->host, sizeof(m->host), "%s", text[1]);
		snprintf(m->where, sizeof(m->where), "%s", text[2]);
		m->pid = read_signed(text[3], &bad);
		m->age_ms = read_number(text[4], 10, &bad);
		m->lease_ms = read_signed(text[5], &bad);
		m->applied = read_number(text[6], 10, &bad);
		m->pin = read_number(text[7], 10, &bad);
		m->locks = read_number(text[8], 10, &bad);
	}
	return bad ? -EIO : 0;
}

#define HOLDER_WORDS 8

static int decode_holder(struct sop_coord_request *r, const char *const *text, size_t count)
{
	struct sop_coord_lock *l = &r->by.lock;
	bool bad = false;

	if (count != HOLDER_WORDS)
		return -EIO;
	r->by.session = read_number(text[1], 16, &bad);
	l->object = r->lock.object;
	l->owner = read_number(text[2], 10, &bad);
	l->whole = text[3][0] == 'f';
	l->type = text[4][0] == 'w' ? F_WRLCK : F_RDLCK;
	l->start = read_number(text[5], 10, &bad);
	l->end = read_number(text[6], 10, &bad);
	l->pid = (int32_t)(read_number(text[7], 10, &bad) & INT32_MAX);
	if (bad)
		return -EIO;
	if (r->op == SOP_COORD_TEST)
		return 0;
	return strcmp(text[0], "deadlock") == 0 ? -EDEADLK : -EAGAIN;
}

static int decode_lock(struct sop_coord_request *r, const char *const *text, size_t count)
{
	bool bad = false;

	if (count != 2)
		return decode_holder(r, text, count);
	if (strcmp(text[0], "young") == 0) {
		r->mine = true;
		r->wait_ms = read_number(text[1], 10, &bad);
		return bad ? -EIO : -EAGAIN;
	}
	r->got = read_number(text[1], 10, &bad);
	return bad ? -EIO : 0;
}

/* One number, or with PINS none: not now. */
static int decode_number(struct sop_coord_request *r, const char *const *text, size_t count)
{
	bool bad = false;

	if (!count)
		return r->op == SOP_COORD_PINS ? -EAGAIN : -EIO;
	r->got = r->lost = read_number(text[0], 10, &bad);
	if (bad || count > 2)
		return -EIO;
	if (r->op == SOP_COORD_RESERVE)
		r->mine = count == 2 && strcmp(text[1], "1") == 0;
	return r->op == SOP_COORD_LEAVE && !r->got ? -EAGAIN : 0;
}

int sop_coord_decode(struct sop_coord_request *r, const char *const *text, size_t count)
{
	if (count == 1 && strcmp(text[0], "stale") == 0)
		return -ESTALE;
	switch (r->op) {
	case SOP_COORD_JOIN:
		return decode_join(r, text, count);
	case SOP_COORD_RENEW:
		return decode_renew(r, text, count);
	case SOP_COORD_LIST:
		return decode_list(r, text, count);
	case SOP_COORD_LOCK:
	case SOP_COORD_TEST:
		return decode_lock(r, text, count);
	case SOP_COORD_LEAVE:
	case SOP_COORD_TIP:
	case SOP_COORD_RESERVE:
	case SOP_COORD_PUBLISH:
	case SOP_COORD_PINS:
	case SOP_COORD_FORGET:
	case SOP_COORD_SYNC:
	case SOP_COORD_ALONE:
	case SOP_COORD_OPS:
	default:
		return decode_number(r, text, count);
	}
}

char sop_coord_decode_message(const char *text, uint64_t *tip, uint64_t *next, uint64_t *object)
{
	char one[24], two[24];
	bool bad = false;

	*tip = *next = *object = 0;
	if (strcmp(text, "y") == 0)
		return 'y';
	if (sscanf(text, "t %23s %23s", one, two) == 2) {
		*tip = read_number(one, 10, &bad);
		*next = read_number(two, 16, &bad);
		return bad ? 0 : 't';
	}
	if (sscanf(text, "u %23s", one) == 1) {
		*object = read_number(one, 10, &bad);
		return bad ? 0 : 'u';
	}
	return 0;
}
