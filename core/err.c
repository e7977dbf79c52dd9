#include "core/err.h"

#include <stdarg.h>
#include <stdio.h>

struct meaning {
	int code;
	int number;
	const char *name;
	const char *text;
};

#define X(id, value, errnum, what) {value, errnum, #id, what},
static const struct meaning meanings[] = {SOP_ERRORS(X)};
#undef X

static const struct meaning *find_meaning(int rc)
{
	for (size_t i = 0; i < SOP_ARRAY_LEN(meanings); i++)
		if (meanings[i].code == rc)
			return &meanings[i];
	return NULL;
}

const char *sop_err_text(int rc)
{
	const struct meaning *m = find_meaning(rc);
	const char *text;

	if (m)
		return m->text;
	if (rc >= 0)
		return "no error";
	text = rc > -4096 ? strerrordesc_np(-rc) : NULL;
	return text ? text : "unknown error";
}

int sop_err_errno(int rc)
{
	const struct meaning *m = find_meaning(rc);

	if (m)
		return m->number;
	if (rc >= 0)
		return 0;
	/* Whatever is no errno the kernel could take is a failure all the same. */
	return rc > -4096 ? -rc : EIO;
}

const char *sop_err_name(int rc)
{
	const struct meaning *m = find_meaning(rc);
	const char *name;

	if (m)
		return m->name;
	if (rc >= 0)
		return "OK";
	name = rc > -4096 ? strerrorname_np(-rc) : NULL;
	return name ? name : "EUNKNOWN";
}

/* Set the text to front + ": " + back. The back says what failed: when there is not enough room the
 * front is cut, and left out where none of it fits. front and back may not lie in e->text. */
static void join(struct sop_err *e, const char *front, const char *back)
{
	size_t back_len = strlen(back);
	size_t front_len = strlen(front);
	size_t room = SOP_ERR_TEXT - 1;

	assert(back_len <= room);
	if (back_len + 2 < room) {
		front_len = SOP_MIN(front_len, room - 2 - back_len);
		memcpy(e->text, front, front_len);
		memcpy(e->text + front_len, ": ", 2);
		front_len += 2;
	} else {
		front_len = 0;
	}
	memcpy(e->text + front_len, back, back_len + 1);
}

/* Format aside: the arguments may point into the message there is. */
static void SOP_PRINTF(2, 0) format_text(char *text, const char *fmt, va_list ap)
{
	if (vsnprintf(text, SOP_ERR_TEXT, fmt, ap) < 0)
		strcpy(text, "(message)");
}

int sop_fail(struct sop_err *e, int rc, const char *fmt, ...)
{
	char front[SOP_ERR_TEXT];
	va_list ap;

	assert(rc < 0);
	if (!e)
		return rc;
	va_start(ap, fmt);
	format_text(front, fmt, ap);
	va_end(ap);
	join(e, front, sop_err_text(rc));
	e->code = rc;
	return rc;
}

int sop_say(struct sop_err *e, int rc, const char *fmt, ...)
{
	char text[SOP_ERR_TEXT];
	va_list ap;

	assert(rc < 0);
	if (!e)
		return rc;
	va_start(ap, fmt);
	format_text(text, fmt, ap);
	va_end(ap);
	memcpy(e->text, text, sizeof(text));
	e->code = rc;
	return rc;
}

int sop_wrap(struct sop_err *e, int rc, const char *fmt, ...)
{
	char front[SOP_ERR_TEXT];
	char back[SOP_ERR_TEXT];
	va_list ap;

	assert(rc < 0);
	if (!e)
		return rc;
	va_start(ap, fmt);
	format_text(front, fmt, ap);
	va_end(ap);
	/* A layer below that had no struct sop_err left no text: then the meaning is all there is.
	 */
	memcpy(back, e->text, sizeof(back));
	join(e, front, back[0] ? back : sop_err_text(rc));
	e->code = rc;
	return rc;
}
