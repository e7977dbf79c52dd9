/* seeds DIR: the corpus, anew: pieces of a small volume, one folder a target. */
#include <stdio.h>
#include <sys/stat.h>

#include "core/edit.h"
#include "core/engine.h"
#include "core/slot_record.h"
#include "tests/lib/scenario.h"

static const char *root;
static struct fixture f;
static unsigned files, journals;

static void put(const char *target, const char *name, const void *p, size_t len)
{
	char path[512];
	FILE *o;

	bool exact = !strcmp(target, "node") || !strcmp(target, "checkpoint") ||
		     !strncmp(name, "slot-", 5);

	/* A target puts zeros behind its input. */
	while (len && !exact && !((const uint8_t *)p)[len - 1])
		len--;
	snprintf(path, sizeof(path), "%s/%s", root, target);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/%s/%s", root, target, name);
	o = fopen(path, "w");
	if (!o || fwrite(p, 1, len, o) != len || fclose(o))
		abort();
}

static void nodes_in(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i + 64 <= len; i += 8) {
		struct le32 bytes;
		char name[32];

		if (memcmp(p + i, "SOPNODE", 8) != 0)
			continue;
		memcpy(&bytes, p + i + 36, sizeof(bytes));
		snprintf(name, sizeof(name), "%u", files++);
		if (le32_get(bytes) <= 1500 && i + le32_get(bytes) <= len)
			put("node", name, p + i, le32_get(bytes));
	}
}

static void put_slot(const char *name, enum sop_slot_type type, const void *payload, size_t len)
{
	const struct sop_uuid volume = {{1, 2, 3}};
	const struct sop_chain_record r = {.id = {type != SOP_SLOT_NIL, type != SOP_SLOT_NIL},
		.slot = 5,
		.base = 4,
		.type = (uint8_t)type,
		.payload = payload,
		.len = len};
	uint8_t raw[4096];

	sop_slot_header_encode((struct sop_disk_commit *)raw, &r, &volume);
	if (len)
		memcpy(raw + sizeof(struct sop_disk_commit), payload, len);
	put("ops", name, raw, sizeof(struct sop_disk_commit) + len);
}

/* Of a shared volume: slots, one with two transactions of these operations, one with a mounter that
 * is there. */
static void put_slots(const uint8_t *ops, size_t len)
{
	static const char claim[] = "a claim of a mounter";
	const struct sop_disk_commit_txn h = {.lsn = le64_make(7), .len = le32_make((uint32_t)len)};
	size_t one = sop_round_up(sizeof(h) + len, 8);
	uint8_t batch[3000] = {0};
	struct {
		struct sop_disk_image image;
		struct sop_disk_mounted mounter;
	} image = {{.slot = le64_make(9), .mounts = le32_make(1), .n = le32_make(1)},
		{.who = le64_make(5), .number = le32_make(1)}};

	if (2 * one > sizeof(batch))
		return;
	for (unsigned i = 0; i < 2; i++) {
		memcpy(batch + i * one, &h, sizeof(h));
		memcpy(batch + i * one + sizeof(h), ops, len);
	}
	put_slot("slot-nil", SOP_SLOT_NIL, NULL, 0);
	put_slot("slot-batch", SOP_SLOT_BATCH, batch, 2 * one);
	put_slot("slot-base", SOP_SLOT_BASE, NULL, 0);
	put_slot("slot-mount", SOP_SLOT_MOUNT, claim, sizeof(claim));
	put_slot("slot-image", SOP_SLOT_IMAGE, &image, sizeof(image));
}

/* The records as they are, and the payloads of those that are short enough. */
static void journal_of(const uint8_t *p, size_t len)
{
	uint8_t *out = calloc(1, len);
	size_t records = SOP_MIN(len - 4096, (size_t)6000);
	unsigned payloads = 0;

	/* The header without its tail. */
	memcpy(out, p, 128);
	memcpy(out + 128, p + 4096, records);
	put("journal", "1", out, 128 + records);
	free(out);
	for (size_t at = 4096; at + sizeof(struct sop_disk_record) <= len;) {
		struct sop_disk_record r;
		char name[16];

		memcpy(&r, p + at, sizeof(r));
		if (le32_get(r.magic) != SOP_RECORD_MAGIC || le32_get(r.len) > len - at)
			break;
		snprintf(name, sizeof(name), "%u", payloads);
		if (le32_get(r.payload) && le32_get(r.payload) < 3000) {
			put("ops", name, p + at + sizeof(r), le32_get(r.payload));
			put_slots(p + at + sizeof(r), le32_get(r.payload));
			payloads++;
		}
		at += le32_get(r.len);
	}
	journals++;
}

static uint8_t *load(const char *file, uint64_t size, size_t *len)
{
	uint8_t *p;

	*len = (size_t)SOP_MIN(size, (uint64_t)1 << 20);
	p = malloc(*len + 1);
	if (!p || sim_peek(f.sim, f.path[0], file, 0, p, *len))
		abort();
	return p;
}

static void take_journal(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	size_t len;
	uint8_t *p = load(file, size, &len);

	(void)arg;
	(void)allocated;
	if (!strncmp(file, "journal/0", 9) && len > 8192)
		journal_of(p, len);
	free(p);
}

static void take(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	size_t len;
	uint8_t *p = load(file, size, &len);

	(void)arg;
	(void)allocated;
	if (!strcmp(file, "label.0"))
		put("label", "1", p, len);
	else if (!strcmp(file, "checkpoint"))
		put("checkpoint", "1", p, len);
	else if (!strncmp(file, "registry/", 9))
		put("registry", "1", p, 4096);
	else if (!strncmp(file, "segments/", 9)) {
		put("shard", "1", p, 4096);
		nodes_in(p, len);
	}
	free(p);
}

static const uint8_t items[][40] = {
	{0x01, 0x1f, 0x28, 0x07, 0x07, 0x05, 0x05, 0xa4, 0x83, 0x02, 0xe8, 0x07, 0xe8, 0x07, 0x01,
		0, 0, 0x80, 0xc4, 0x9f, 0xd5, 0x0c, 0x80, 0xca, 0xb5, 0xee, 0x01, 0x00, 0x05, 'h',
		'e', 'l', 'l', 'o'},
	{0x02, 0x00, 0x29, 0x08, 0x80, 0x80, 0x01},
	{0x01, 0x20, 0x28, 7, 7, 5, 5, 1, 0, 0xa8, 0x46, 0, 0x81, 0x80, 0x80, 0x01, 0x80, 0x20,
		0xa8, 0x46, 4, 3, 2, 1},
};

/* An item, and edits of it: one under its key, one that takes it to another. */
static void put_edits(void)
{
	const struct sop_edit places[] = {
		{0}, {.store = 16, .key = (const uint8_t *)"k", .key_len = 1}};
	uint8_t one[SOP_ITEM_BYTES_MAX], two[SOP_ITEM_BYTES_MAX], raw[SOP_ITEM_BYTES_MAX];
	struct sop_buf ops = {0};
	struct sop_item it = {.run = "a line, and another", .run_len = 6};

	it.attr =
		(struct sop_attr){.ino = 40, .version = 7, .size = 19, .mode = 0100644, .nlink = 1};
	for (size_t i = 0; i < SOP_ARRAY_LEN(places); i++) {
		int a = sop_item_encode(one, &it), b;
		size_t n;

		it.run_len = 19;
		it.attr.version++;
		b = sop_item_encode(two, &it);
		if (a < 0 || b < 0)
			abort();
		n = sop_edit_encode(raw, sizeof(raw), &places[i], one, (size_t)a, two, (size_t)b);
		if (!i)
			sop_buf_op(&ops, SOP_OP_PUT, 0, 16, "k", 1, one, (size_t)a);
		sop_buf_op(&ops, SOP_OP_EDIT, 0, 16, i ? "l" : "k", 1, raw, n);
	}
	put("ops", "edits", ops.p, ops.len);
	sop_buf_release(&ops);
}

/* Key type and duplicates, the length of the index, the index as on disk or as text, the key. */
static const struct {
	uint8_t type;
	const char *index;
	uint8_t index_len;
	const char *key;
} keys[] = {
	{0, "", 0, "some bytes"},
	{8, "", 0, "bytes#2"},
	{1, "", 0,
		"gr\xc3\xb6\xc3\x9f"
		"e"},
	{9, "", 0, "a#1#1"},
	{2, "", 0, "-9223372036854775808"},
	{10, "", 0, "42#7"},
	{3, "", 0, "-1.5e-300"},
	{4, "", 0, "{\"a\":1,\"b\":\"x\",\"c\":true,\"d\":null}"},
	{4, "\0\2\1\0a\1\3\1\0b", 10, "{\"a\":9007199254740993,\"b\":\"x\\u0000y\"}"},
	{12, "\1\0\1\0a", 5, "{\"a\":1.5,\"z\":[1,{\"q\":\"\\u002f\"}]}#3"},
	{0, "name:desc:string,age:number,\"x y\":bool", 37, "k"},
};

static void put_keys(void)
{
	for (size_t i = 0; i < SOP_ARRAY_LEN(keys); i++) {
		uint8_t raw[256] = {keys[i].type, keys[i].index_len};
		size_t len = strlen(keys[i].key);
		char name[16];

		memcpy(raw + 2, keys[i].index, keys[i].index_len);
		memcpy(raw + 2 + keys[i].index_len, keys[i].key, len);
		snprintf(name, sizeof(name), "%zu", i);
		put("key", name, raw, 2 + keys[i].index_len + len);
	}
}

/* The first byte says what: the script that is answered, or 'm' a message, 'z' a URL; then the
 * words, each behind the one before and a NUL. */
static const struct {
	const char *text;
	size_t len;
} replies[] = {
#define REPLY(text)                                                                                \
	{                                                                                          \
		text, sizeof(text) - 1                                                             \
	}
	REPLY("\0"
	      "0123456789abcdef\0"
	      "1\0"
	      "00000000000000000007\0"
	      "3\0"
	      "0"),
	REPLY("\1"
	      "00000000000000000007\0"
	      "0123456789abcdef\0"
	      "fedcba9876543210"),
	REPLY("\1"
	      "stale"),
	REPLY("\2"
	      "1"),
	REPLY("\3"
	      "1\0host\0/mnt\0"
	      "17\0"
	      "5\0"
	      "-3\0"
	      "7\0"
	      "7\0"
	      "2"),
	REPLY("\4"
	      "00000000000000000007"),
	REPLY("\5"
	      "7\0"
	      "1"),
	REPLY("\7"),
	REPLY("\10"
	      "ok\0"
	      "12"),
	REPLY("\10"
	      "young\0"
	      "1200"),
	REPLY("\10"
	      "deadlock\0"
	      "1\0"
	      "3\0p\0w\0"
	      "0\0"
	      "18446744073709551615\0"
	      "9"),
	REPLY("\11"
	      "held\0"
	      "1\0"
	      "3\0f\0r\0"
	      "0\0"
	      "5\0"
	      "9"),
	REPLY("m"
	      "t 00000000000000000007 0123456789abcdef"),
	REPLY("m"
	      "u 00000000000000000041"),
	REPLY("m"
	      "y"),
	REPLY("z"
	      "redis://user:p%40ss@[::1]:6380/2"),
	REPLY("z"
	      "rediss://host/1?ca=/etc/ca.pem"),
	REPLY("z"
	      "unix:///run/redis.sock?db=3"),
	REPLY("z"
	      "sentinel://a:1+b:2+c/main/4"),
#undef REPLY
};

/* A file of a disk, where in it, and the bytes: one in each of several files, and one cut off. */
static void put_damage(void)
{
	uint8_t raw[16];
	char name[16];

	for (unsigned i = 0; i < 12; i++) {
		for (unsigned j = 0; j < sizeof(raw); j++)
			raw[j] = (uint8_t)(i * 37 + j * (j + 11) + 1);
		raw[0] = (uint8_t)i;
		raw[1] = (uint8_t)(i * 5);
		raw[4] = i % 4 == 3 ? 0xf8 : 0;
		snprintf(name, sizeof(name), "%u", i);
		put("volume", name, raw, sizeof(raw));
	}
}

int main(int argc, char **argv)
{
	static const char *const lists[] = {"ro,cache=64M,commit=250ms",
		"session=write,killed=commit", "/data/d1:/data/d2", "checkpoint=1min", "1.5G"};
	char name[8];

	if (argc != 2)
		return 2;
	root = argv[1];
	mkdir(root, 0755);
	scenario_make(&f, 1, 0, NULL);
	if (fixture_open(&f))
		return 1;
	/* Commits alone first: what lets go of journal files would leave none to take. */
	for (unsigned op = 0; op < scenario_ops(); op++)
		if (scenario_is_txn(op))
			(void)scenario_run(&f, op, op, SCENARIO_NO_FAULTS);
	sim_each_file(f.sim, f.path[0], take_journal, NULL);
	if (!journals)
		return 1;
	for (unsigned op = 0; op < scenario_ops(); op++)
		if (!scenario_is_txn(op))
			(void)scenario_run(&f, op, op, SCENARIO_NO_FAULTS);
	sim_each_file(f.sim, f.path[0], take, NULL);
	put_edits();
	put_keys();
	put_damage();
	for (size_t i = 0; i < SOP_ARRAY_LEN(items); i++) {
		snprintf(name, sizeof(name), "%zu", i);
		put("item", name, items[i], sizeof(items[i]));
	}
	for (size_t i = 0; i < SOP_ARRAY_LEN(replies); i++) {
		snprintf(name, sizeof(name), "%zu", i);
		put("redis", name, replies[i].text, replies[i].len);
	}
	for (size_t i = 0; i < SOP_ARRAY_LEN(lists); i++) {
		snprintf(name, sizeof(name), "%zu", i);
		put("options", name, lists[i], strlen(lists[i]));
	}
	fixture_release(&f);
	return 0;
}
