/* onefile [-s SEED] [-n OPS] [-l MAX] [-o SIZE-OF-OP] [-w] [-b] [-m MODEL] FILE: random operations
 * on one file, each compared with what an array of bytes would hold: read, write, vectors, mapped
 * reads and writes, truncate, every mode of fallocate, copy_file_range in the file and by way of a
 * second one (FILE.2), SEEK_DATA and SEEK_HOLE, sendfile and splice, O_DIRECT and O_SYNC writes,
 * appends, fsync, msync, dropping cached pages, closing and opening again.
 *
 * -w: the file system has session=write: operations go through two descriptors in turn, and the
 * size is also asked for by path. Without it a descriptor shows its own session. -b: st_blocks
 * never counts more than the size, as nothing is set aside. -m: the model is written there at the
 * end, to be compared after another mount.
 *
 * The seed is printed, and with a failure the last operations. A mode that the file system refuses
 * with EOPNOTSUPP is left out from then on. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE	 4096u
#define LOG_MAX	 40u
#define LOG_LINE 160u

enum op {
	OP_READ,
	OP_READV,
	OP_MAPREAD,
	OP_SENDFILE,
	OP_WRITE,
	OP_WRITE_MORE, /* writes are the most common */
	OP_WRITEV,
	OP_MAPWRITE,
	OP_DIRECT_READ,
	OP_DIRECT_WRITE,
	OP_SYNC_WRITE,
	OP_APPEND,
	OP_SPLICE,
	OP_TRUNCATE,
	OP_ALLOCATE,
	OP_PUNCH,
	OP_ZERO,
	OP_COLLAPSE,
	OP_INSERT,
	OP_COPY_WITHIN,
	OP_COPY_AROUND,
	OP_SEEK,
	OP_FSYNC,
	OP_DROP,
	OP_REOPEN,
	OPS
};

static const char *const op_name[OPS] = {"read", "readv", "mapread", "sendfile", "write", "write",
	"writev", "mapwrite", "direct read", "direct write", "sync write", "append", "splice",
	"truncate", "allocate", "punch", "zero", "collapse", "insert", "copy within", "copy around",
	"seek", "fsync", "drop", "reopen"};

static const char *path, *model_path;
static char path2[4096];
static uint64_t seed = 1, rng;
static size_t max_size = 512 * 1024, max_op = 96 * 1024;
static unsigned long ops = 2000, count[OPS];
static bool each_write, blocks, off_limits[OPS];

static int fd[2] = {-1, -1};
static uint8_t *model; /* zeros beyond the size */
static size_t size;
static uint8_t *buf, *aligned;

static char log_line[LOG_MAX][LOG_LINE];
static unsigned long log_next;

static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(log_line[log_next++ % LOG_MAX], LOG_LINE, fmt, ap);
	va_end(ap);
}

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
	va_list ap;

	printf("the last operations:\n");
	for (unsigned long i = log_next > LOG_MAX ? log_next - LOG_MAX : 0; i < log_next; i++)
		printf("  %s\n", log_line[i % LOG_MAX]);
	printf("FAILED (seed %llu): ", (unsigned long long)seed);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	exit(1);
}

static uint64_t draw(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return below ? (rng >> 11) % below : 0;
}

/* Short ones and aligned ones more often than chance would have it. */
static size_t draw_len(size_t most)
{
	size_t len = draw(4) ? (size_t)draw(most < 9000 ? most : 9000) : (size_t)draw(most);

	if (draw(4) == 0)
		len = len / PAGE * PAGE;
	return len ? len : 1;
}

static size_t draw_off(size_t below)
{
	size_t off = (size_t)draw(below);

	return draw(4) ? off : off / PAGE * PAGE;
}

static int any_fd(void)
{
	return fd[each_write ? draw(2) : 0];
}

static void fill(uint8_t *p, size_t len)
{
	uint64_t x = rng | 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		p[i] = (uint8_t)(x >> 56) | 1; /* never zero: what is written is no hole */
	}
}

static void same(const char *what, const uint8_t *have, size_t off, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (have[i] != model[off + i])
			die("%s of %zu at %zu: byte %zu is %02x, not %02x (size %zu)", what, len,
				off, off + i, have[i], model[off + i], size);
}

static void grown(size_t end)
{
	if (end > size)
		size = end;
}

static void open_all(int flags)
{
	for (int i = 0; i < (each_write ? 2 : 1); i++) {
		fd[i] = open(path, O_RDWR | flags, 0644);
		if (fd[i] < 0)
			die("open: %s", strerror(errno));
		flags = 0;
	}
}

static void close_all(void)
{
	for (int i = 0; i < 2; i++) {
		if (fd[i] >= 0 && close(fd[i]))
			die("close: %s", strerror(errno));
		fd[i] = -1;
	}
}

static void check_size(void)
{
	struct stat st;

	for (int i = 0; i < (each_write ? 2 : 1); i++) {
		if (fstat(fd[i], &st))
			die("fstat: %s", strerror(errno));
		if ((size_t)st.st_size != size)
			die("fstat says %zu bytes, not %zu", (size_t)st.st_size, size);
		if (blocks && (size_t)st.st_blocks * 512 > (size + PAGE - 1) / PAGE * PAGE)
			die("%zu blocks for %zu bytes", (size_t)st.st_blocks, size);
	}
	if (each_write && (stat(path, &st) || (size_t)st.st_size != size))
		die("stat says %zu bytes, not %zu", (size_t)st.st_size, size);
	if (lseek(fd[0], 0, SEEK_END) != (off_t)size)
		die("SEEK_END is not %zu", size);
}

/* ---- reading ---- */

static bool pick(size_t *off, size_t *len)
{
	if (!size)
		return false;
	*off = draw_off(size);
	*len = draw_len(max_op);
	if (*len > size - *off)
		*len = size - *off;
	return true;
}

static void do_read(enum op op, bool direct)
{
	size_t off, len;
	ssize_t n;
	int f = any_fd();

	if (!pick(&off, &len))
		return;
	if (direct) {
		off = off / PAGE * PAGE;
		len = (len + PAGE - 1) / PAGE * PAGE;
	}
	note("%s %zu at %zu", op_name[op], len, off);
	if (direct && fcntl(f, F_SETFL, O_DIRECT))
		die("O_DIRECT: %s", strerror(errno));
	if (op == OP_READV) {
		size_t half = len / 2;
		struct iovec v[2] = {{buf, half}, {buf + half, len - half}};

		n = preadv2(f, v, 2, (off_t)off, 0);
	} else {
		n = pread(f, direct ? aligned : buf, len, (off_t)off);
	}
	if (direct)
		fcntl(f, F_SETFL, 0);
	if (len > size - off)
		len = size - off;
	if (n != (ssize_t)len)
		die("%s: %zd bytes of %zu: %s", op_name[op], n, len, strerror(errno));
	same(op_name[op], direct ? aligned : buf, off, len);
}

static void do_mapread(void)
{
	size_t off, len, from;
	uint8_t *p;

	if (!pick(&off, &len))
		return;
	from = off / PAGE * PAGE;
	note("mapread %zu at %zu", len, off);
	p = mmap(NULL, off - from + len, PROT_READ, draw(2) ? MAP_SHARED : MAP_PRIVATE, any_fd(),
		(off_t)from);
	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	same("mapread", p + (off - from), off, len);
	/* The rest of the last page is zeros. */
	if (off + len == size)
		for (size_t i = size; i % PAGE; i++)
			if (p[i - from])
				die("mapread: byte %zu behind the end (%zu) is %02x", i, size,
					p[i - from]);
	munmap(p, off - from + len);
}

static void do_sendfile(void)
{
	size_t off, len, done = 0;
	int p[2];

	if (!pick(&off, &len))
		return;
	if (len > 60000)
		len = 60000;
	note("sendfile %zu at %zu", len, off);
	if (pipe(p))
		die("pipe: %s", strerror(errno));
	while (done < len) {
		off_t at = (off_t)(off + done);
		ssize_t n = sendfile(p[1], any_fd(), &at, len - done);

		if (n <= 0 || read(p[0], buf + done, (size_t)n) != n)
			die("sendfile: %zd: %s", n, strerror(errno));
		done += (size_t)n;
	}
	close(p[0]);
	close(p[1]);
	same("sendfile", buf, off, len);
}

/* Holes are zeros and end where data begins; all that is not zero is in data. */
static void do_seek(void)
{
	size_t at = size ? draw_off(size) : 0;
	int f = any_fd();

	note("seek from %zu", at);
	if (lseek(f, (off_t)size, SEEK_DATA) != -1 || errno != ENXIO)
		die("SEEK_DATA at the end gives no ENXIO");
	while (at < size) {
		off_t data = lseek(f, (off_t)at, SEEK_DATA), hole;
		size_t to = data < 0 ? size : (size_t)data;

		if (data < 0 && errno != ENXIO)
			die("SEEK_DATA: %s", strerror(errno));
		if (to < at || to > size)
			die("SEEK_DATA from %zu is %zu, of %zu", at, to, size);
		for (size_t i = at; i < to; i++)
			if (model[i])
				die("SEEK_DATA from %zu is %zu, but byte %zu is data", at, to, i);
		if (data < 0)
			return;
		hole = lseek(f, data, SEEK_HOLE);
		if (hole <= data || (size_t)hole > size)
			die("SEEK_HOLE from %zu is %zd", to, (ssize_t)hole);
		at = (size_t)hole;
	}
}

/* ---- writing ---- */

static void do_write(enum op op)
{
	size_t off = draw_off(draw(8) ? (size < max_size ? size + 1 : size) : max_size);
	size_t len = draw_len(max_op);
	bool direct = op == OP_DIRECT_WRITE;
	int f = any_fd(), flags = 0;
	ssize_t n;

	if (direct) {
		off = off / PAGE * PAGE;
		len = (len + PAGE - 1) / PAGE * PAGE;
	}
	if (op == OP_APPEND)
		off = size;
	if (off + len > max_size)
		len = max_size - off;
	if (!len)
		return;
	note("%s %zu at %zu", op_name[op], len, off);
	fill(direct ? aligned : buf, len);
	if (direct && fcntl(f, F_SETFL, O_DIRECT))
		die("O_DIRECT: %s", strerror(errno));
	if (op == OP_SYNC_WRITE)
		flags = RWF_DSYNC;
	if (op == OP_APPEND && each_write)
		flags = RWF_APPEND;
	if (op == OP_WRITEV || flags) {
		size_t a = len / 3, b = len / 2;
		struct iovec v[3] = {{buf, a}, {buf + a, b - a}, {buf + b, len - b}};

		n = pwritev2(f, v, 3, flags & RWF_APPEND ? 0 : (off_t)off, flags);
	} else {
		n = pwrite(f, direct ? aligned : buf, len, (off_t)off);
	}
	if (direct)
		fcntl(f, F_SETFL, 0);
	if (n != (ssize_t)len)
		die("%s: %zd of %zu: %s", op_name[op], n, len, strerror(errno));
	memcpy(model + off, direct ? aligned : buf, len);
	grown(off + len);
}

static void do_mapwrite(void)
{
	size_t off, len, from;
	uint8_t *p, *q = NULL;

	if (!pick(&off, &len))
		return;
	from = off / PAGE * PAGE;
	note("mapwrite %zu at %zu", len, off);
	p = mmap(NULL, off - from + len, PROT_READ | PROT_WRITE, MAP_SHARED, any_fd(), (off_t)from);
	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	if (draw(2)) /* a second mapping sees it at once */
		q = mmap(NULL, off - from + len, PROT_READ, MAP_SHARED, any_fd(), (off_t)from);
	fill(p + (off - from), len);
	memcpy(model + off, p + (off - from), len);
	if (q && q != MAP_FAILED)
		same("second mapping", q + (off - from), off, len);
	if (draw(2) && msync(p, off - from + len, draw(2) ? MS_SYNC : MS_ASYNC))
		die("msync: %s", strerror(errno));
	munmap(p, off - from + len);
	if (q && q != MAP_FAILED)
		munmap(q, off - from + len);
}

static void do_splice(void)
{
	size_t off = draw_off(size + 1), len = draw_len(60000), done = 0;
	int p[2];

	if (off + len > max_size)
		len = max_size - off;
	if (!len || pipe(p))
		return;
	note("splice %zu at %zu", len, off);
	fill(buf, len);
	if (write(p[1], buf, len) != (ssize_t)len)
		die("pipe: %s", strerror(errno));
	while (done < len) {
		loff_t at = (loff_t)(off + done);
		ssize_t n = splice(p[0], NULL, any_fd(), &at, len - done, SPLICE_F_MOVE);

		if (n <= 0)
			die("splice: %zd: %s", n, strerror(errno));
		done += (size_t)n;
	}
	close(p[0]);
	close(p[1]);
	memcpy(model + off, buf, len);
	grown(off + len);
}

static void do_truncate(void)
{
	size_t to = draw(16) ? draw_off(draw(2) ? size + 1 : max_size + 1) : 0;

	note("truncate %zu -> %zu", size, to);
	if (ftruncate(any_fd(), (off_t)to))
		die("truncate: %s", strerror(errno));
	if (to < size)
		memset(model + to, 0, size - to);
	size = to;
}

static void do_fallocate(enum op op)
{
	size_t off = draw_off(max_size), len = draw_len(max_op), tail;
	bool keep = draw(2) || op == OP_PUNCH;
	int mode = keep ? FALLOC_FL_KEEP_SIZE : 0;

	if (op == OP_PUNCH)
		mode |= FALLOC_FL_PUNCH_HOLE;
	if (op == OP_ZERO)
		mode |= FALLOC_FL_ZERO_RANGE;
	if (off + len > max_size)
		len = max_size - off;
	if (op == OP_COLLAPSE || op == OP_INSERT) {
		mode = op == OP_COLLAPSE ? FALLOC_FL_COLLAPSE_RANGE : FALLOC_FL_INSERT_RANGE;
		off = draw_off(size + 1) / PAGE * PAGE;
		len = (len + PAGE - 1) / PAGE * PAGE;
		if (off >= size || (op == OP_COLLAPSE && off + len >= size) ||
			(op == OP_INSERT && size + len > max_size))
			return;
	}
	note("%s %zu at %zu%s", op_name[op], len, off, keep ? ", size kept" : "");
	if (fallocate(any_fd(), mode, (off_t)off, (off_t)len)) {
		if (errno != EOPNOTSUPP || op == OP_PUNCH || op == OP_ALLOCATE || op == OP_ZERO)
			die("%s: %s", op_name[op], strerror(errno));
		off_limits[op] = true;
		return;
	}
	if (op == OP_COLLAPSE) {
		tail = size - off - len;
		memmove(model + off, model + off + len, tail);
		memset(model + off + tail, 0, len);
		size -= len;
	} else if (op == OP_INSERT) {
		memmove(model + off + len, model + off, size - off);
		memset(model + off, 0, len);
		size += len;
	} else {
		if (op != OP_ALLOCATE)
			memset(model + off, 0, len);
		if (!keep)
			grown(off + len);
	}
}

/* All of it, in as many calls as it takes. */
static void copy_range(int from, size_t from_off, int to, size_t to_off, size_t len)
{
	while (len) {
		loff_t a = (loff_t)from_off, b = (loff_t)to_off;
		ssize_t n = copy_file_range(from, &a, to, &b, len, 0);

		if (n <= 0)
			die("copy_file_range: %zd: %s", n, strerror(errno));
		from_off += (size_t)n;
		to_off += (size_t)n;
		len -= (size_t)n;
	}
}

static void do_copy(enum op op)
{
	size_t off, len, to = draw_off(draw(2) ? size + 1 : max_size);
	int f = any_fd(), second;

	if (!pick(&off, &len))
		return;
	if (to + len > max_size)
		len = max_size - to;
	if (op == OP_COPY_WITHIN && to < off + len && off < to + len)
		return; /* overlapping: EINVAL by the kernel */
	if (!len)
		return;
	note("%s %zu from %zu to %zu", op_name[op], len, off, to);
	if (op == OP_COPY_WITHIN) {
		copy_range(f, off, any_fd(), to, len);
	} else {
		size_t there = draw_off(PAGE * 4);

		/* To the second file and back; it is committed in between, or not. */
		second = open(path2, O_RDWR | O_CREAT | (draw(2) ? O_TRUNC : 0), 0644);
		if (second < 0)
			die("%s: %s", path2, strerror(errno));
		copy_range(f, off, second, there, len);
		if (draw(2)) {
			if (close(second) || (second = open(path2, O_RDONLY)) < 0)
				die("%s: %s", path2, strerror(errno));
		}
		copy_range(second, there, any_fd(), to, len);
		if (close(second))
			die("%s: %s", path2, strerror(errno));
	}
	memmove(model + to, model + off, len);
	grown(to + len);
}

/* ---- the run ---- */

static void check_all(const char *when)
{
	for (size_t off = 0; off < size; off += max_op) {
		size_t len = size - off < max_op ? size - off : max_op;

		if (pread(fd[0], buf, len, (off_t)off) != (ssize_t)len)
			die("%s: short read at %zu: %s", when, off, strerror(errno));
		same(when, buf, off, len);
	}
	if (pread(fd[0], buf, PAGE, (off_t)size) != 0)
		die("%s: there is something behind the end", when);
}

static void step(enum op op)
{
	switch (op) {
	case OP_READ:
	case OP_READV:
		do_read(op, false);
		break;
	case OP_DIRECT_READ:
		do_read(op, true);
		break;
	case OP_MAPREAD:
		do_mapread();
		break;
	case OP_SENDFILE:
		do_sendfile();
		break;
	case OP_WRITE:
	case OP_WRITE_MORE:
	case OP_WRITEV:
	case OP_DIRECT_WRITE:
	case OP_SYNC_WRITE:
	case OP_APPEND:
		do_write(op);
		break;
	case OP_MAPWRITE:
		do_mapwrite();
		break;
	case OP_SPLICE:
		do_splice();
		break;
	case OP_TRUNCATE:
		do_truncate();
		break;
	case OP_ALLOCATE:
	case OP_PUNCH:
	case OP_ZERO:
	case OP_COLLAPSE:
	case OP_INSERT:
		do_fallocate(op);
		break;
	case OP_COPY_WITHIN:
	case OP_COPY_AROUND:
		do_copy(op);
		break;
	case OP_SEEK:
		do_seek();
		break;
	case OP_FSYNC:
		note("fsync");
		if (draw(2) ? fsync(any_fd()) : fdatasync(any_fd()))
			die("fsync: %s", strerror(errno));
		break;
	case OP_DROP:
		note("drop pages");
		posix_fadvise(fd[0], 0, 0, POSIX_FADV_DONTNEED);
		break;
	case OP_REOPEN:
		note("reopen");
		close_all();
		open_all(0);
		check_all("opened again");
		break;
	case OPS:
		break;
	}
}

static void save_model(void)
{
	FILE *f = model_path ? fopen(model_path, "w") : NULL;

	if (model_path && (!f || fwrite(model, 1, size, f) != size || fclose(f)))
		die("%s: %s", model_path, strerror(errno));
}

int main(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "s:n:l:o:m:wb")) != -1)
		switch (c) {
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			ops = strtoul(optarg, NULL, 0);
			break;
		case 'l':
			max_size = strtoul(optarg, NULL, 0) / PAGE * PAGE;
			break;
		case 'o':
			max_op = strtoul(optarg, NULL, 0);
			break;
		case 'm':
			model_path = optarg;
			break;
		case 'b':
			blocks = true;
			break;
		case 'w':
			each_write = true;
			break;
		default:
			return 2;
		}
	if (optind + 1 != argc || max_size < PAGE || max_op < PAGE)
		return 2;
	path = argv[optind];
	snprintf(path2, sizeof(path2), "%s.2", path);
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	rng = seed * 0x9E3779B97F4A7C15ull | 1;
	for (int i = 0; i < 10; i++)
		draw(2);
	model = calloc(1, max_size + 2 * max_op);
	buf = malloc(max_op + 2 * PAGE);
	if (!model || !buf || posix_memalign((void **)&aligned, PAGE, max_op + 2 * PAGE))
		return 2;
	open_all(O_CREAT | O_TRUNC);
	for (unsigned long i = 0; i < ops; i++) {
		enum op op = (enum op)draw(OPS);

		if (off_limits[op])
			continue;
		count[op]++;
		step(op);
		check_size();
	}
	check_all("at the end");
	close_all();
	save_model();
	for (int i = 0; i < OPS; i++)
		printf("%s%s %lu", i ? ", " : "", op_name[i], count[i]);
	printf("; size %zu\n", size);
	return 0;
}
