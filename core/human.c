#include "core/human.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>

static const char units[] = "BKMGTPE";

/* Rounding carries: 1023.99 of a unit is 1 of the next. */
static double scaled(uint64_t bytes, unsigned *unit)
{
	double v = (double)bytes;

	for (*unit = 0; v >= (*unit ? 999.5 : 1023.5) && *unit < sizeof(units) - 2; (*unit)++)
		v /= 1024;
	return v;
}

char *sop_human_size(char *text, uint64_t bytes)
{
	unsigned unit;
	double v = scaled(bytes, &unit);

	if (!unit)
		snprintf(text, SOP_HUMAN_TEXT, "%.0f B", v);
	else
		snprintf(text, SOP_HUMAN_TEXT, v < 99.995 ? "%.2f %ciB" : "%.0f %ciB", v,
			units[unit]);
	return text;
}

char *sop_human_brief(char *text, uint64_t bytes)
{
	unsigned unit;
	double v = scaled(bytes, &unit);

	snprintf(text, SOP_HUMAN_TEXT, unit && v < 9.95 ? "%.1f%c" : "%.0f%c", v, units[unit]);
	return text;
}

char *sop_human_count(char *text, uint64_t n)
{
	char digits[24];
	int len = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);
	char *p = text;

	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			*p++ = ',';
		*p++ = digits[i];
	}
	*p = '\0';
	return text;
}

char *sop_human_clock(char *text, uint64_t s)
{
	unsigned long long h = s / 3600, m = s / 60 % 60, rest = s % 60;

	if (h)
		snprintf(text, SOP_HUMAN_TEXT, "%llu:%02llu:%02llu", h, m, rest);
	else
		snprintf(text, SOP_HUMAN_TEXT, "%llu:%02llu", m, rest);
	return text;
}

char *sop_human_duration(char *text, uint64_t s)
{
	unsigned long long d = s / 86400, h = s / 3600 % 24, m = s / 60 % 60, rest = s % 60;

	if (d)
		snprintf(text, SOP_HUMAN_TEXT, "%llud %lluh", d, h);
	else if (h)
		snprintf(text, SOP_HUMAN_TEXT, "%lluh %llum", h, m);
	else if (m)
		snprintf(text, SOP_HUMAN_TEXT, "%llum %llus", m, rest);
	else
		snprintf(text, SOP_HUMAN_TEXT, "%llus", rest);
	return text;
}

char *sop_human_date(char *text, time_t t)
{
	struct tm tm;

	if (!localtime_r(&t, &tm) || !strftime(text, SOP_HUMAN_TEXT, "%a %b %e %H:%M:%S %Y", &tm))
		snprintf(text, SOP_HUMAN_TEXT, "@%lld", (long long)t);
	return text;
}

char *sop_human_rfc3339(char *text, struct timespec t)
{
	struct tm tm;
	size_t n = gmtime_r(&t.tv_sec, &tm)
			   ? strftime(text, SOP_HUMAN_TEXT, "%Y-%m-%dT%H:%M:%S", &tm)
			   : 0;

	snprintf(text + n, SOP_HUMAN_TEXT - n, ".%06ldZ", t.tv_nsec / 1000);
	return text;
}

/* ---- read
 * ------------------------------------------------------------------------------------------
 */

/* A plain decimal number, no sign, no exponent: what follows it is at *end. */
static int parse_decimal(double *out, const char *text, const char **end)
{
	double value = 0, scale = 1;
	const char *p = text;

	while (isdigit((unsigned char)*p))
		value = value * 10 + (*p++ - '0');
	if (p == text)
		return -EINVAL;
	if (*p == '.') {
		p++;
		while (isdigit((unsigned char)*p)) {
			scale /= 10;
			value += scale * (*p++ - '0');
		}
	}
	*out = value;
	*end = p;
	return 0;
}

int sop_human_parse_size(uint64_t *bytes, const char *text)
{
	static const char powers[] = "KMGT";
	const char *end, *unit;
	double v;

	if (parse_decimal(&v, text, &end))
		return -EINVAL;
	if (*end) {
		unit = strchr(powers, toupper((unsigned char)*end));
		if (!unit)
			return -EINVAL;
		v *= (double)(1ull << 10 * (unit - powers + 1));
		end++;
		if (!strcasecmp(end, "iB") || !strcasecmp(end, "B"))
			end += strlen(end);
	}
	if (*end || v >= 0x1p62)
		return -EINVAL;
	*bytes = (uint64_t)v;
	return 0;
}

int sop_human_parse_time(unsigned *ms, const char *text)
{
	static const struct {
		const char *name;
		double ms;
	} words[] = {{"", 1000}, {"s", 1000}, {"sec", 1000}, {"ms", 1}, {"min", 60000},
		{"m", 60000}, {"h", 3600000}};
	const char *end;
	double v;
	size_t i;

	if (parse_decimal(&v, text, &end))
		return -EINVAL;
	for (i = 0; i < SOP_ARRAY_LEN(words); i++) {
		if (strcmp(end, words[i].name))
			continue;
		v = v * words[i].ms + 0.5;
		if (v >= UINT_MAX)
			return -EINVAL;
		*ms = (unsigned)v;
		return 0;
	}
	return -EINVAL;
}
