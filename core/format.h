/* Every structure on disk, as bytes. The prose (why, what a crash leaves) is in DISK-FORMAT.md.
 *
 * All integers are little-endian; tree keys alone are big-endian, so that memcmp orders them.
 * Checksums are CRC32C. "crc" covers the whole structure with the crc field itself taken as zero,
 * unless said. */
#ifndef SOP_FORMAT_H
#define SOP_FORMAT_H

#include "core/le.h"

#define SOP_FORMAT_VERSION 1

/* Feature bits in labels. An unknown incompat bit: refuse. An unknown ro_compat bit: read only. */
#define SOP_INCOMPAT_SHARED 1ULL /* goes with SOP_LABEL_SHARED: what is committed is in slots */
#define SOP_INCOMPAT_KNOWN  SOP_INCOMPAT_SHARED
#define SOP_RO_COMPAT_KNOWN 0ULL

/* ---- files in a member folder --------------------------------------------------------------
 *   label.0 label.1            two copies of the label
 *   lock                       locked by the mounter; holds its claim as text
 *   segments/XX/ID.SHARD       DATA members: shard files; XX = low byte of ID, ID 16 hex digits
 *   registry/NNNNNNNN          REGISTRY members: registry files
 *   journal/NNNNNNNNNNNNNNNN   REGISTRY members: journal files; journal/spare.N: to be used again
 *   checkpoint                 REGISTRY members: the last checkpoint
 *   slots/commit.N slots/commit.N.R   REGISTRY members of a shared volume: slot N (16 hex digits),
 * its round R (decimal, when not 0); slots/floors/N.W, slots/image.N.W, slots/live.W: of mounter W;
 * slots/stage.*: temporary */
#define SOP_PATH_LABEL0	    "label.0"
#define SOP_PATH_LABEL1	    "label.1"
#define SOP_PATH_LOCK	    "lock"
#define SOP_PATH_SEGMENTS   "segments"
#define SOP_PATH_REGISTRY   "registry"
#define SOP_PATH_JOURNAL    "journal"
#define SOP_PATH_CHECKPOINT "checkpoint"
#define SOP_PATH_SLOTS	    "slots"
#define SOP_PATH_FLOORS	    "slots/floors"

/* ---- label ---------------------------------------------------------------------------------- */
#define SOP_LABEL_MAGIC	  "SOPLABEL"
#define SOP_LABEL_SIZE	  32768
#define SOP_MEMBERS_MAX	  128
#define SOP_PROFILES_MAX  16
#define SOP_PROFILE_NAME  24 /* bytes, with the ending NUL */
#define SOP_VOLUME_NAME	  64
#define SOP_MEMBER_PATH	  208
#define SOP_EC_MAX	  32 /* k + m at most */
#define SOP_PROFILE_DISKS (SOP_MEMBERS_MAX / 8)

enum sop_member_role { SOP_ROLE_DATA = 1, SOP_ROLE_REGISTRY = 2 };

struct sop_disk_profile {
	char name[SOP_PROFILE_NAME];	  /* 0: "default" or a name; empty: unused */
	uint8_t k;			  /* 24 */
	uint8_t m;			  /* 25 */
	uint8_t flags;			  /* 26: 1 = no repair on read */
	uint8_t pad[5];			  /* 27 */
	uint8_t disks[SOP_PROFILE_DISKS]; /* 32: bit i: member i may be used; all zero: every disk
					   */
};
static_assert(sizeof(struct sop_disk_profile) == 48, "profile");

struct sop_disk_member {
	uint8_t uuid[16]; /* 0 */
	uint8_t role;	  /* 16: enum sop_member_role bits; 0: slot unused */
	uint8_t state;	  /* 17: enum sop_member_state */
	struct le16 to;	  /* 18: DRAINING: 1 + the member that takes its content; 0: the others */
	uint8_t flags;	  /* 20: enum sop_member_flags */
	uint8_t pad[3];	  /* 21 */
	struct le64 current_since; /* 24: generation since which its registry replica is current; 0:
				      is not */
	char path[SOP_MEMBER_PATH]; /* 32: last known, ended by NUL */
};
static_assert(sizeof(struct sop_disk_member) == 240, "member");

enum sop_member_state {
	SOP_MEMBER_ONLINE = 0,
	SOP_MEMBER_OFFLINE = 1,	 /* set aside or missing: its content may be stale */
	SOP_MEMBER_DRAINING = 2, /* gets nothing new */
	SOP_MEMBER_REMOVED = 3,
};

enum sop_member_flags {
	SOP_MEMBER_BY_HAND = 1,	 /* OFFLINE until it is put online by hand */
	SOP_MEMBER_AWAY = 2,	 /* DRAINING, and set aside or missing as well */
	SOP_MEMBER_SET_BACK = 4, /* was set back to an old image: no shard on it is believed */
	SOP_MEMBER_WHOLE = 8,	 /* has missed nothing, though its replica is still to be made */
};

struct sop_disk_label {
	char magic[8];		    /* 0 */
	struct le32 version;	    /* 8 */
	struct le32 crc;	    /* 12: over all SOP_LABEL_SIZE bytes */
	struct le64 incompat;	    /* 16 */
	struct le64 ro_compat;	    /* 24 */
	uint8_t volume_uuid[16];    /* 32 */
	uint8_t disk_uuid[16];	    /* 48 */
	struct le64 generation;	    /* 64: the newest label of a volume has the highest */
	struct le64 created_ns;	    /* 72 */
	struct le16 index;	    /* 80: of this member */
	struct le16 members;	    /* 82: entries in use in members[] */
	struct le16 profiles;	    /* 84: entries in use in profiles[] */
	struct le16 flags;	    /* 86: enum sop_label_flags */
	struct le32 hashmod;	    /* 88: blocks of a registry file */
	struct le32 node_bytes;	    /* 92: default size bound of a tree node */
	char name[SOP_VOLUME_NAME]; /* 96: the volume's label, NUL ended */
	uint8_t pad[512 - 160];	    /* 160 */
	struct sop_disk_profile profile[SOP_PROFILES_MAX]; /* 512 */
	struct sop_disk_member member[SOP_MEMBERS_MAX];	   /* 1280 */
	uint8_t tail[SOP_LABEL_SIZE - 1280 - SOP_MEMBERS_MAX * 240];
};
static_assert(sizeof(struct sop_disk_label) == SOP_LABEL_SIZE, "label");

enum sop_label_flags { SOP_LABEL_SHARED = 1 };

/* ---- segments: shard files -----------------------------------------------------------------
 * One header block, then fragments. The same offset in the k+m shard files of a segment belongs
 * together: a blob is one fragment in each. */
#define SOP_SHARD_MAGIC	  "SOPSHARD"
#define SOP_SHARD_HEADER  4096
#define SOP_SEGMENT_BYTES (256u << 20) /* a shard file is closed when it has grown to this */

struct sop_disk_shard {
	char magic[8];		       /* 0 */
	struct le32 version;	       /* 8 */
	struct le32 crc;	       /* 12: over SOP_SHARD_HEADER bytes */
	uint8_t volume_uuid[16];       /* 16 */
	struct le64 segment;	       /* 32 */
	uint8_t k;		       /* 40 */
	uint8_t m;		       /* 41 */
	uint8_t shard;		       /* 42: which of the k+m this file is */
	uint8_t stream;		       /* 43: enum sop_stream */
	uint8_t flags;		       /* 44: SOP_SEGMENT_NO_REPAIR, _LENGTHS */
	uint8_t pad[3];		       /* 45 */
	struct le64 created_ns;	       /* 48 */
	struct le16 disks[SOP_EC_MAX]; /* 56: member index of shard 0, 1, ... */
	uint8_t tail[SOP_SHARD_HEADER - 120];
};
static_assert(sizeof(struct sop_disk_shard) == SOP_SHARD_HEADER, "shard header");

/* Which open segment a blob goes to: what lives and dies together lies together. */
enum sop_stream { SOP_STREAM_NODES, SOP_STREAM_SMALL, SOP_STREAM_BULK, SOP_STREAMS };

/* A blob of len bytes is cut into k slices of `slice` bytes (the last padded with zeros); shard i <
 * k holds slice i, the others parity. A fragment is this header, then the slice in blocks of
 * SOP_BLOCK_BYTES (the last may be shorter), each followed by its CRC32C (le32). Fragments start at
 * multiples of 8. Segment, offset, nonce, shard, length of the blob and block number go into the
 * seed of a block's checksum, so that a block of another blob, shard, place or time does not
 * verify, nor one that is looked for by a wrong length. */
#define SOP_FRAG_MAGIC	0x47415246u /* "FRAG" */
#define SOP_BLOCK_BYTES 4096
#define SOP_SLICE_ALIGN 64
#define SOP_BLOB_MAX	(4u << 20) /* bytes of data in one blob */

struct sop_disk_fragment {
	struct le32 magic;   /* 0 */
	struct le32 crc;     /* 4: over bytes 8..39 */
	struct le64 segment; /* 8 */
	struct le64 off;     /* 16: of this header in the shard file */
	struct le32 len;     /* 24: of the whole blob, bytes of data */
	struct le32 nonce;   /* 28 */
	uint8_t shard;	     /* 32 */
	uint8_t k;	     /* 33 */
	uint8_t m;	     /* 34 */
	uint8_t kind;	     /* 35: enum sop_blob_kind */
	struct le32 slice;   /* 36 */
};
static_assert(sizeof(struct sop_disk_fragment) == 40, "fragment");

enum sop_blob_kind { SOP_BLOB_DATA = 1, SOP_BLOB_NODE = 2 };

/* A blob's address, kept with whoever refers to it. segment 0: none. */
struct sop_disk_blobref {
	struct le64 segment; /* 0 */
	struct le64 off;     /* 8: of the fragments in the shard files */
	struct le32 len;     /* 16 */
	struct le32 nonce;   /* 20: random; must be the fragments' own */
};
static_assert(sizeof(struct sop_disk_blobref) == 24, "blobref");

/* ---- B-tree node: the data of a blob of kind NODE ------------------------------------------
 * Header, then `count` entries packed in key order. A leaf entry: le16 key length, le32 value
 * length, key, value. An inner entry: le16 key length, le32 8, key, le64 child handle; its key is
 * the lowest key that may be under the child; the first entry's key is empty. */
#define SOP_NODE_MAGIC "SOPNODE"

struct sop_disk_node {
	char magic[8];	    /* 0 */
	struct le64 handle; /* 8 */
	struct le64 store;  /* 16 */
	struct le64 lsn;    /* 24: of the last change in it */
	struct le32 count;  /* 32 */
	struct le32 bytes;  /* 36: header and entries */
	uint8_t level;	    /* 40: 0 = leaf */
	uint8_t version;    /* 41 */
	uint8_t flags;	    /* 42: 1 = root of its store */
	uint8_t pad[21];    /* 43 */
};
static_assert(sizeof(struct sop_disk_node) == 64, "node");

/* ---- registry: where each node lies --------------------------------------------------------
 * Handle h is slot h % 126 of block b = (h / 126) % hashmod of file h / 126 / hashmod. A block has
 * two places, written in turn, so that a torn write loses neither: its version `seq` lies at offset
 * b * 8192 + (seq & 1) * 4096; the higher valid one counts. */
#define SOP_REGISTRY_MAGIC 0x47455253u /* "SREG" */
#define SOP_REGISTRY_BLOCK 4096
#define SOP_REGISTRY_SLOTS 126

struct sop_disk_slot {
	struct sop_disk_blobref ref; /* 0: segment 0: free; then off is the next free handle or 0 */
	struct le64 lsn;	     /* 24: of the checkpoint that wrote it */
};
static_assert(sizeof(struct sop_disk_slot) == 32, "slot");

struct sop_disk_registry_block {
	struct le32 magic;	 /* 0 */
	struct le32 crc;	 /* 4 */
	uint8_t volume_uuid[16]; /* 8 */
	struct le32 file;	 /* 24 */
	struct le32 block;	 /* 28 */
	struct le64 lsn;	 /* 32: of the last checkpoint that changed it */
	struct le32 seq;	 /* 40: of this version: one more than the version before */
	uint8_t pad[20];	 /* 44 */
	struct sop_disk_slot slot[SOP_REGISTRY_SLOTS];
};
static_assert(sizeof(struct sop_disk_registry_block) == SOP_REGISTRY_BLOCK, "registry block");

/* ---- journal -------------------------------------------------------------------------------
 * A file is one header block, then records, each padded to a multiple of 8. Files are recycled, so
 * old records may follow the last: they do not chain (prev_crc, lsn, epoch). */
#define SOP_JOURNAL_MAGIC  "SOPJRNL"
#define SOP_JOURNAL_HEADER 4096

struct sop_disk_journal {
	char magic[8];		 /* 0 */
	struct le32 version;	 /* 8 */
	struct le32 crc;	 /* 12: over SOP_JOURNAL_HEADER bytes */
	uint8_t volume_uuid[16]; /* 16 */
	struct le64 number;	 /* 32: of this file: 1, 2, ... */
	struct le64 epoch;	 /* 40: generation of the mount that wrote it */
	struct le64 first_lsn;	 /* 48: of the first transaction in it */
	struct le32 chain;	 /* 56: prev_crc of the first record */
	struct le64 salt;	 /* 60: random, 48 bits: in every record of this life of the file */
	uint8_t tail[SOP_JOURNAL_HEADER - 68];
};
static_assert(sizeof(struct sop_disk_journal) == SOP_JOURNAL_HEADER, "journal header");

#define SOP_RECORD_MAGIC 0x43455253u /* "SREC" */

struct sop_disk_record {
	struct le32 magic;    /* 0 */
	struct le32 crc;      /* 4: over the record with this field zero */
	struct le32 len;      /* 8: header, payload and padding */
	struct le32 prev_crc; /* 12: crc of the record before, across files too */
	struct le64 lsn;      /* 16: TXN: its own; BARRIER: everything up to it is on the media */
	struct le64 epoch;    /* 24 */
	struct le64 time_ns;  /* 32: wall clock */
	struct le64 next_ino; /* 40: lowest inode number never given out */
	uint8_t type;	      /* 48: enum sop_record_type */
	uint8_t flags;	      /* 49 */
	uint8_t pad[2];	      /* 50 */
	struct le32 payload;  /* 52: bytes of payload */
	struct le64 salt;     /* 56: the file's salt << 16 | number of the attempt to append it */
};
static_assert(sizeof(struct sop_disk_record) == 64, "record");

enum sop_record_type { SOP_RECORD_TXN = 1, SOP_RECORD_BARRIER = 2 };

/* The payload of a TXN record: operations, in the order they are applied. */
enum sop_op_type {
	SOP_OP_PUT = 1,	       /* store, key, value: insert or replace */
	SOP_OP_DEL = 2,	       /* store, key */
	SOP_OP_ALLOC = 3,      /* blobref: is referred to once from now on */
	SOP_OP_REF = 4,	       /* blobref: one more reference */
	SOP_OP_FREE = 5,       /* blobref: one reference less; the last one frees it */
	SOP_OP_STORE_NEW = 6,  /* store; value: its options */
	SOP_OP_STORE_DROP = 7, /* store, which is empty */
	SOP_OP_STORE_TIME = 8, /* store; value: le64 mtime_s, le32 mtime_ns (all ones: it stays),
				  the same for ctime */
	SOP_OP_STORE_SET = 9,  /* store; value: its options from now on */
	SOP_OP_EDIT = 10, /* store, key, value: a PUT of what the value, a sop_disk_edit, makes of
			     a record that is there */
};

enum sop_op_flags {
	SOP_OPF_SUBDIR =
		1,	   /* the item put or removed is a directory: counts in the store's nlink */
	SOP_OPF_QUIET = 2, /* PUT, DEL: no name: the store's times and the count of names stay */
};

/* Before each op's bytes. ALLOC, REF, FREE: key_len 24 (the ref is the key), value_len 0; store: of
 * FREE the inode that let go (readers of it may hold the blob), else 0. */
struct sop_disk_op {
	uint8_t type;	       /* 0 */
	uint8_t flags;	       /* 1 */
	struct le16 key_len;   /* 2 */
	struct le32 value_len; /* 4 */
	struct le64 store;     /* 8 */
};
static_assert(sizeof(struct sop_disk_op) == 16, "op");

/* The value of EDIT: this; when key_len is not 0, le64 store and the key of the record that it
 * applies to, else that is under the operation's own; then steps. It applies to no other record. */
struct sop_disk_edit {
	struct le64 version; /* 0: of the record */
	struct le32 crc;     /* 8: over all of the record */
	struct le16 len;     /* 12: of the record */
	struct le16 key_len; /* 14 */
};
static_assert(sizeof(struct sop_disk_edit) == 16, "edit");

/* Of the record, from where the step before ended: bytes that stay, bytes that go, and how many
 * come, which follow. What is behind the last step stays. */
struct sop_disk_edit_step {
	struct le16 keep; /* 0 */
	struct le16 drop; /* 2 */
	struct le16 add;  /* 4 */
};
static_assert(sizeof(struct sop_disk_edit_step) == 6, "edit step");

/* ---- checkpoint ----------------------------------------------------------------------------
 * The header, then flips, uncommitted ranges, pending frees; published whole by rename. */
#define SOP_CHECKPOINT_MAGIC "SOPCHKPT"

struct sop_disk_checkpoint {
	char magic[8];		  /* 0 */
	struct le32 version;	  /* 8 */
	struct le32 crc;	  /* 12: over the whole file */
	uint8_t volume_uuid[16];  /* 16 */
	struct le64 epoch;	  /* 32: generation of the mount that wrote it */
	struct le64 lsn;	  /* 40: the image holds everything up to it */
	struct le64 journal;	  /* 48: number of the journal file that goes on from lsn */
	struct le32 chain;	  /* 56: prev_crc of that file's first record */
	struct le32 flags;	  /* 60: 1 = clean: written by an unmount, nothing follows */
	struct le64 master_root;  /* 64: handle of the root of store 1; 0: empty */
	struct le64 master_count; /* 72 */
	struct le64 next_ino;	  /* 80 */
	struct le64 next_handle;  /* 88 */
	struct le64 free_handle;  /* 96: first of the chain of free handles, 0: none */
	struct le64 time_ns;	  /* 104 */
	struct le64 flips;	  /* 112: entries of each kind */
	struct le64 uncommitted;  /* 120 */
	struct le64 pending;	  /* 128 */
	struct le64 items;	  /* 136: names in all directories */
	struct le64 slot;	  /* 144: shared: the first slot not in the image; else 0 */
	struct le64 base;	  /* 152: shared: slot of the BASE that mounters go by; else 0 */
	uint8_t pad[256 - 160];	  /* 160 */
};
static_assert(sizeof(struct sop_disk_checkpoint) == 256, "checkpoint");

/* ---- slots of a shared volume ------------------------------------------------------------------
 * A register: this header and its payload, a file of its own, linked once and never changed. */
#define SOP_SLOT_MAGIC "SOPSLOT"
enum sop_slot_type {
	SOP_SLOT_NIL = 0, /* nobody's; who and seq are 0 */
	SOP_SLOT_BATCH =
		1, /* transactions: struct sop_disk_commit_txn, operations, padding to 8; each */
	SOP_SLOT_BASE = 2,  /* the mounter is alone, and all before is in its checkpoint */
	SOP_SLOT_MOUNT = 3, /* a mounter enters; the payload is its claim, as in the lock file */
	SOP_SLOT_IMAGE = 4, /* a checkpoint of this mounter, in a file: struct sop_disk_image */
	SOP_SLOT_SEEN = 5,  /* struct sop_disk_seen: the mounter knows of the newest image */
	SOP_SLOT_LEAVE = 6, /* the mounter has ended; no payload */
	SOP_SLOT_FENCE = 7, /* struct sop_disk_fence: another is dead, or to be taken for it */
};

struct sop_disk_commit {
	char magic[8];		 /* 0: SOP_SLOT_MAGIC and a NUL */
	struct le32 version;	 /* 8 */
	struct le32 crc;	 /* 12: over the 128 bytes */
	uint8_t volume_uuid[16]; /* 16 */
	struct le64 slot;	 /* 32 */
	struct le64 who;	 /* 40: random, of the mounter */
	struct le64 seq;	 /* 48: its records, counted */
	struct le64 epoch;	 /* 56: of the mounter; 0: it has none yet */
	struct le64 base;	 /* 64: slot of the BASE it goes by; of a BASE: its own */
	struct le32 payload;	 /* 72: bytes */
	struct le32 payload_crc; /* 76 */
	struct le64 next_ino; /* 80: of a mounter that is alone: the lowest not given out; else 0 */
	uint8_t type;	      /* 88 */
	uint8_t pad[128 - 89]; /* 89 */
};
static_assert(sizeof(struct sop_disk_commit) == 128, "commit slot");

struct sop_disk_commit_txn {
	struct le64 lsn;     /* 0: the first of a record is the next; then one more each */
	struct le64 time_ns; /* 8 */
	struct le32 len; /* 16: of the operations that follow; then zeros up to a multiple of 8 */
	struct le32 pad; /* 20 */
};
static_assert(sizeof(struct sop_disk_commit_txn) == 24, "transaction in a slot");

/* Payload of an IMAGE; behind it, who is there: `n` of struct sop_disk_mounted. */
struct sop_disk_image {
	struct le64 slot;	  /* 0: the first that is not in it */
	struct le64 lsn;	  /* 8: the last that is */
	struct le64 floor_slot;	  /* 16: the image that mounters begin with now */
	struct le64 floor_lsn;	  /* 24 */
	struct le64 floor_who;	  /* 32 */
	struct le32 floor_number; /* 40: 0: it is the base */
	struct le32 mounts;	  /* 44: MOUNT records since the base */
	struct le32 n;		  /* 48 */
	struct le32 pad;	  /* 52 */
};
static_assert(sizeof(struct sop_disk_image) == 56, "image");

struct sop_disk_mounted {
	struct le64 who;    /* 0 */
	struct le64 image;  /* 8: LSN of the image it began with */
	struct le64 seen;   /* 16: slot of the newest one it knows of */
	struct le64 pin;    /* 24: none of its readers looks at anything older */
	struct le32 number; /* 32: of its MOUNT record */
	struct le32 maker;  /* 36: number of who made the image; 0: it is the base */
};
static_assert(sizeof(struct sop_disk_mounted) == 40, "mounter");

struct sop_disk_seen {
	struct le64 slot; /* 0: of the newest image */
	struct le64 pin;  /* 8 */
};
static_assert(sizeof(struct sop_disk_seen) == 16, "seen");

struct sop_disk_fence {
	struct le64 who; /* 0 */
};
static_assert(sizeof(struct sop_disk_fence) == 8, "fence");

/* The registry's slot of a handle gets `to`. from: the blob it held, freed by this checkpoint. */
struct sop_disk_flip {
	struct le64 handle;	    /* 0 */
	struct sop_disk_blobref to; /* 8: segment 0: the handle is freed; off = next in the chain */
	struct sop_disk_blobref from; /* 32: segment 0: none */
};
static_assert(sizeof(struct sop_disk_flip) == 56, "flip");

/* Written to a segment, not yet referred to by any committed transaction at the checkpoint's LSN.
 */
struct sop_disk_uncommitted {
	struct sop_disk_blobref ref;
};

/* Freed by the transaction `lsn`, not yet given back: readers may have pinned it. SOP_LSN_GARBAGE:
 * of a session that ended without a commit; it was never live. */
#define SOP_LSN_GARBAGE UINT64_MAX
struct sop_disk_pending {
	struct le64 lsn;	     /* 0 */
	struct sop_disk_blobref ref; /* 8 */
};
static_assert(sizeof(struct sop_disk_pending) == 32, "pending");

/* ---- system stores -------------------------------------------------------------------------
 * A store's id is the inode number of its directory. Key and value of each system store: */
#define SOP_STORE_MASTER                                                                           \
	1u /* be64 id, 's' -> sop_disk_store;  be64 ino, 'i' -> item (inode of a                   \
	      directory or of an item with several names) */
#define SOP_STORE_SEGMENTS 2u /* be64 segment -> sop_disk_segment */
#define SOP_STORE_SHARED                                                                           \
	3u /* be64 segment, be64 off -> le32 references (only when more than one) */
#define SOP_STORE_DEAD	   4u /* be64 segment, be64 page -> le16 dead bytes of a page partly dead */
#define SOP_STORE_DOOMED   5u /* be64 extent tree -> le64 inode: being emptied in the background */
#define SOP_STORE_PREPARED 6u /* be64 transaction, be32 part -> bytes of what was prepared */
#define SOP_STORE_ROOT	   16u
#define SOP_INO_FIRST	   32u

struct sop_disk_store {
	struct le64 root;	 /* 0: handle; 0: empty */
	struct le64 count;	 /* 8: items */
	struct le64 subdirs;	 /* 16 */
	struct le64 lsn;	 /* 24: of the last change */
	struct le64 mtime_s;	 /* 32: two's complement */
	struct le64 ctime_s;	 /* 40 */
	struct le32 mtime_ns;	 /* 48 */
	struct le32 ctime_ns;	 /* 52 */
	struct le32 options_len; /* 56 */
	struct le32 pad;	 /* 60 */
				 /* 64: options, as in STORE_NEW */
};
static_assert(sizeof(struct sop_disk_store) == 64, "store");

/* STORE_NEW's value: what shapes a store, fixed at creation, and what does not (STORE_SET). */
struct sop_disk_store_options {
	uint8_t version;	 /* 0: 1 */
	uint8_t key_type;	 /* 1: enum sop_key_type */
	uint8_t flags;		 /* 2: enum sop_option_flags */
	uint8_t value_class;	 /* 3: 0 automatic, 1 small, 2 medium, 3 big */
	struct le32 node_bytes;	 /* 4: 0: the volume's */
	struct le32 slot_length; /* 8: items a node holds at most; 0: bounded by bytes alone */
	uint8_t session;	 /* 12: 0 inherited, 1 close, 2 write */
	uint8_t cache_class;	 /* 13: 0 as any other, 1 kept longer, 2 let go first */
	uint8_t profile_len;	 /* 14: EC profile's name, after this struct */
	uint8_t pad;		 /* 15 */
	struct le16 index_len;	 /* 16: index: fields, after the profile */
	struct le16 note_len;	 /* 18: description, after the index */
};
static_assert(sizeof(struct sop_disk_store_options) == 20, "store options");

enum sop_option_flags {
	SOP_OPTION_DUPLICATES = 1, /* keys carry the number of the duplicate */
	SOP_OPTION_BALANCE = 2,	   /* leaf load balancing */
};

/* A field of the index of a store with JSON maps for keys; then its name. */
struct sop_disk_index_field {
	uint8_t flags;	      /* 0: 1 = descending */
	uint8_t type;	      /* 1: enum sop_field_type */
	struct le16 name_len; /* 2 */
};
static_assert(sizeof(struct sop_disk_index_field) == 4, "index field");

/* A prepared transaction, as the parts of PREPARED put together: this header, the note, locks,
 * ranges, then operations as in a TXN record, ALLOC and REF among them though they are done
 * already. */
#define SOP_PREPARED_MAGIC "SOPPREPD"
#define SOP_PREPARED_PART  4096 /* bytes of each part but the last */

struct sop_disk_prepared {
	char magic[8];	      /* 0 */
	struct le32 version;  /* 8: 1 */
	struct le32 crc;      /* 12: over the whole, with this field zero */
	struct le64 time_ns;  /* 16: when it was prepared */
	struct le32 note_len; /* 24 */
	struct le32 locks;    /* 28 */
	struct le32 ranges;   /* 32 */
	struct le32 ops_len;  /* 36 */
};
static_assert(sizeof(struct sop_disk_prepared) == 40, "prepared");

struct sop_disk_lock {	     /* a key it depends on; then the key */
	struct le64 store;   /* 0 */
	struct le16 key_len; /* 8 */
	uint8_t flags;	     /* 10: 1 = is written, 2 = ends with the number of a duplicate */
	uint8_t pad;	     /* 11 */
};
static_assert(sizeof(struct sop_disk_lock) == 12, "lock");

struct sop_disk_range {	      /* a range it depends on; then its ends */
	struct le64 store;    /* 0 */
	uint8_t flags;	      /* 8: enum sop_range_flags */
	uint8_t pad[3];	      /* 9 */
	struct le16 from_len; /* 12 */
	struct le16 to_len;   /* 14 */
};
static_assert(sizeof(struct sop_disk_range) == 16, "range");

enum sop_range_flags {
	SOP_RANGE_FROM = 1,
	SOP_RANGE_TO = 2,
	SOP_RANGE_FROM_EXCLUSIVE = 4,
	SOP_RANGE_TO_EXCLUSIVE = 8,
	SOP_RANGE_DESCENDING = 16,
	SOP_RANGE_COUNT = 32, /* the number of items of the store */
};

#define SOP_SEGMENT_SEALED 1 /* nothing is appended any more */
/* These also in shard headers. */
#define SOP_SEGMENT_NO_REPAIR 2 /* shards that reads find bad stay so */
#define SOP_SEGMENT_LENGTHS   4 /* the seeds of checksums have the length of the blob in them */

struct sop_disk_segment {
	uint8_t k;		       /* 0 */
	uint8_t m;		       /* 1 */
	uint8_t stream;		       /* 2 */
	uint8_t flags;		       /* 3: SOP_SEGMENT_... */
	struct le32 stale;	       /* 4: bit i: shard i has missed writes */
	struct le64 end;	       /* 8: append offset */
	struct le64 live;	       /* 16: bytes of a shard file that live blobs take up */
	struct le16 disks[SOP_EC_MAX]; /* 24 */
};
static_assert(sizeof(struct sop_disk_segment) == 88, "segment");

#endif
