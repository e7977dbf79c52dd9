/* What a check has found, as people read it: paths, and what is wrong. */
#include "core/check_own.h"

#include <stdio.h>

#define DEPTH_MAX 512 /* of directories, in paths and in the search for cycles */

static size_t put_text(char *buf, size_t size, size_t at, const char *text)
{
	while (*text && at + 1 < size)
		buf[at++] = *text++;
	buf[at] = '\0';
	return at;
}

/* Names are any bytes: what a terminal would not show as it is, is shown as \ooo. */
static size_t put_name(char *buf, size_t size, size_t at, const void *name, size_t len)
{
	const uint8_t *p = name;

	for (size_t i = 0; i < len; i++) {
		char one[8];

		snprintf(one, sizeof(one),
			p[i] < 0x20 || p[i] == 0x7f || p[i] == '\\' ? "\\%03o" : "%c", p[i]);
		at = put_text(buf, size, at, one);
	}
	return at;
}

static size_t put_directory(const struct sop_check *c, uint64_t store, char *buf, size_t size,
	size_t at, unsigned depth)
{
	const struct inode *i = sop_check_inode(c, store);
	char text[48];

	if (store == SOP_STORE_ROOT)
		return put_text(buf, size, at, "/");
	if (!i || !i->names || depth > DEPTH_MAX) {
		snprintf(text, sizeof(text), "(directory %llu)/", (unsigned long long)store);
		return put_text(buf, size, at, text);
	}
	at = put_directory(c, i->names->store, buf, size, at, depth + 1);
	at = put_name(buf, size, at, i->names->key, i->names->len);
	return put_text(buf, size, at, "/");
}

static const char *system_name(uint64_t store)
{
	static const char *const names[] = {"", "(index of directories)", "(table of segments)",
		"(shared blobs)", "(partly free pages)", "(files being removed)",
		"(prepared transactions)"};

	return store < SOP_ARRAY_LEN(names) ? names[store] : "(system store)";
}

/* An item of MASTER goes by one of its names. */
static size_t put_inode(const struct sop_check *c, uint64_t ino, char *buf, size_t size)
{
	const struct inode *i = sop_check_inode(c, ino);
	char text[48];
	size_t at;

	if (i && i->dir)
		return put_directory(c, ino, buf, size, 0, 0);
	if (!i || !i->names) {
		snprintf(text, sizeof(text), "(inode %llu)", (unsigned long long)ino);
		return put_text(buf, size, 0, text);
	}
	at = put_directory(c, i->names->store, buf, size, 0, 0);
	return put_name(buf, size, at, i->names->key, i->names->len);
}

static bool is_orphaned_tree(const struct sop_check_record *r)
{
	return r->store == SOP_STORE_DOOMED && !r->key;
}

void sop_check_path(
	const struct sop_check *c, const struct sop_check_record *r, char *buf, size_t size)
{
	size_t at;

	buf[0] = '\0';
	if (r->kind == SOP_CHECK_ITEMS || r->kind == SOP_CHECK_NEXT) {
		put_text(buf, size, 0, "(volume)");
	} else if (r->kind == SOP_CHECK_ACCOUNT || r->kind == SOP_CHECK_REFS ||
		   r->kind == SOP_CHECK_DEAD || (r->kind == SOP_CHECK_PLACE && !r->store)) {
		snprintf(buf, size, "(segment %016llx)", (unsigned long long)r->ref.segment);
	} else if (is_orphaned_tree(r)) {
		put_text(buf, size, 0, system_name(SOP_STORE_DOOMED));
	} else if (r->item_store && r->item_store != SOP_STORE_MASTER) {
		at = put_directory(c, r->item_store, buf, size, 0, 0);
		put_name(buf, size, at, r->item_key, r->item_klen);
	} else if (r->item_store) {
		put_inode(c, r->ino, buf, size);
	} else if (r->store == SOP_STORE_MASTER && r->ino) {
		put_inode(c, r->ino, buf, size);
	} else if (r->store && r->store < SOP_STORE_ROOT) {
		put_text(buf, size, 0, system_name(r->store));
	} else if (r->key && r->kind != SOP_CHECK_NODE && r->kind != SOP_CHECK_SHAPE &&
		   r->kind != SOP_CHECK_ORPHAN) {
		at = put_directory(c, r->store, buf, size, 0, 0);
		put_name(buf, size, at, r->key, r->klen);
	} else if (r->kind == SOP_CHECK_ORPHAN) {
		snprintf(buf, size, "(inode %llu)", (unsigned long long)r->ino);
	} else {
		put_directory(c, r->store, buf, size, 0, 0);
	}
}

static void keys_text(const struct sop_check_record *r, char *buf, size_t size)
{
	size_t at = 0;

	if (!r->key && !r->to) {
		put_text(buf, size, 0, "all entries");
		return;
	}
	at = put_text(buf, size, at, "entries");
	if (r->key) {
		at = put_text(buf, size, at, " from \"");
		at = put_name(buf, size, at, r->key, r->klen);
		at = put_text(buf, size, at, "\"");
	}
	if (r->to) {
		at = put_text(buf, size, at, " to before \"");
		at = put_name(buf, size, at, r->to, r->to_len);
		put_text(buf, size, at, "\"");
	}
}

static void node_text(const struct sop_check_record *r, char *buf, size_t size)
{
	char keys[400] = "";

	if (r->len) {
		put_text(keys, sizeof(keys), 0, "the extents of this range");
	} else if (r->store && r->store < SOP_STORE_ROOT) {
		snprintf(keys, sizeof(keys), "%s",
			r->store == SOP_STORE_MASTER ? "directories, and files with several names"
						     : "a part of the accounts");
		if (r->store == SOP_STORE_MASTER && r->key && r->klen >= 8)
			snprintf(keys, sizeof(keys),
				"directories, and files with several names, from inode %llu on",
				(unsigned long long)be64_get(r->key));
	} else {
		keys_text(r, keys, sizeof(keys));
	}
	if (r->kind == SOP_CHECK_SHAPE)
		snprintf(buf, size,
			"%s: tree node %llu cannot be used, but what is in it can be read: %s",
			keys, (unsigned long long)r->handle, r->why);
	else
		snprintf(buf, size, "%s: tree node %llu cannot be read: %s", keys,
			(unsigned long long)r->handle, r->why);
}

void sop_check_what(
	const struct sop_check *c, const struct sop_check_record *r, char *buf, size_t size)
{
	unsigned long long is = r->is, want = r->want;

	(void)c;
	buf[0] = '\0';
	switch (r->kind) {
	case SOP_CHECK_SHARDS:
		snprintf(buf, size,
			"blob %016llx:%llu: %u shard%s not verify; the others make up for it",
			(unsigned long long)r->ref.segment, (unsigned long long)r->ref.off,
			r->disks, r->disks == 1 ? " does" : "s do");
		break;
	case SOP_CHECK_DATA:
		snprintf(buf, size, "blob %016llx:%llu: too few shards are left",
			(unsigned long long)r->ref.segment, (unsigned long long)r->ref.off);
		break;
	case SOP_CHECK_XATTRS:
		snprintf(buf, size, "extended attributes: too few shards are left");
		break;
	case SOP_CHECK_NODE:
	case SOP_CHECK_SHAPE:
		node_text(r, buf, size);
		break;
	case SOP_CHECK_RECORD:
		snprintf(buf, size, "the record of this entry makes no sense");
		break;
	case SOP_CHECK_STATE:
		snprintf(buf, size, "store %llu: its state cannot be read: %s",
			(unsigned long long)r->store, r->why);
		break;
	case SOP_CHECK_DANGLING:
		snprintf(buf, size, "the name is there, inode %llu is not",
			(unsigned long long)r->ino);
		break;
	case SOP_CHECK_TWIN:
		snprintf(buf, size, "its inode number %llu is that of another file, too",
			(unsigned long long)r->ino);
		break;
	case SOP_CHECK_NO_INODE:
		snprintf(buf, size,
			"its inode %llu is not there, its entries are: owner, mode and attributes "
			"are lost, and become those of root, 0700",
			(unsigned long long)r->ino);
		break;
	case SOP_CHECK_ORPHAN:
		snprintf(buf, size, "%s",
			r->key ? "a directory that lies in itself: no way leads to it from the root"
			       : "no name leads to it");
		break;
	case SOP_CHECK_LINKS:
		snprintf(buf, size, "counts %llu names and has %llu", is, want);
		break;
	case SOP_CHECK_PARENT:
		snprintf(
			buf, size, "names directory %llu as its parent and lies in %llu", is, want);
		break;
	case SOP_CHECK_EXTENT:
		if (r->ref.segment)
			snprintf(buf, size,
				"there is no blob of %u bytes at %016llx:%llu: what can be read "
				"there is not of this file",
				r->ref.len, (unsigned long long)r->ref.segment,
				(unsigned long long)r->ref.off);
		else
			snprintf(buf, size,
				"an extent overlaps the one before or lies past the end");
		break;
	case SOP_CHECK_COUNT:
		snprintf(buf, size, "counts %llu entries and has %llu", is, want);
		break;
	case SOP_CHECK_SUBDIRS:
		snprintf(buf, size, "counts %llu directories and has %llu", is, want);
		break;
	case SOP_CHECK_ITEMS:
		snprintf(buf, size, "counts %llu names and has %llu", is, want);
		break;
	case SOP_CHECK_REFS:
		snprintf(buf, size, "blob at %llu: %llu references counted, %llu met",
			(unsigned long long)r->ref.off, is, want);
		break;
	case SOP_CHECK_ACCOUNT:
		snprintf(buf, size, "%llu bytes of a shard are live by account, %llu were met", is,
			want);
		break;
	case SOP_CHECK_DEAD:
		snprintf(buf, size,
			"page at %llu: %llu bytes of it are dead by account, at most %llu can be",
			(unsigned long long)r->ref.off, is, want);
		break;
	case SOP_CHECK_NEXT:
		snprintf(buf, size, "the next inode number is %llu, and %llu is in use", is,
			want - 1);
		break;
	case SOP_CHECK_KINDS:
		break;
	case SOP_CHECK_PLACE:
		snprintf(buf, size, "blob at %llu overlaps another or lies past the end",
			(unsigned long long)r->ref.off);
		break;
	}
}

void sop_check_report_all(
	const struct sop_check *c, void (*report)(void *arg, const char *line), void *arg)
{
	char path[1024], what[768], line[2048];

	for (size_t i = 0; i < c->n_rec; i++) {
		const struct sop_check_record *r = &c->rec[i];

		sop_check_path(c, r, path, sizeof(path));
		sop_check_what(c, r, what, sizeof(what));
		if (r->len)
			snprintf(line, sizeof(line), "%s: bytes %llu-%llu: %s", path,
				(unsigned long long)r->off,
				(unsigned long long)(r->off + r->len - 1), what);
		else
			snprintf(line, sizeof(line), "%s: %s", path, what);
		report(arg, line);
	}
}
