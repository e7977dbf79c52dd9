/* fsck.sopfs: check a volume, and repair it. All of the work is sop_fsck()'s (core/fsck.h); here
 * are options, what is printed, and the exit code. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "core/sop.h"
#include "core/source.h"
#include "core/stdfds.h"
#include "mount-helpers/complain.h"

#ifndef SOPFS_VERSION
#define SOPFS_VERSION "0.1"
#endif

#define PROGRAM	      "fsck.sopfs"
#define complain(...) tool_complain(PROGRAM, EXIT_USAGE, __VA_ARGS__)

/* As fsck(8) has them; bits. */
enum exit_code {
	EXIT_FIXED = 1,
	EXIT_LEFT = 4,
	EXIT_OPERATIONAL = 8,
	EXIT_USAGE = 16,
	EXIT_CANCELLED = 32,
};

static const char usage[] =
	"usage: " PROGRAM " [options] SOURCE...\n"
	"Check a sopfs volume: labels, journal, registry, trees, names, every shard, accounts. "
	"SOURCE\n"
	"is one of its folders, or several (with ':' between, or one after the other), or NAME of\n"
	"/etc/sopfs/NAME.conf; the others are found by the labels. Asks before it repairs, when\n"
	"there is a terminal to ask on.\n"
	"\n"
	"  -n              change nothing; works beside a mounter, too: then it tells what two "
	"looks\n"
	"                  in a row find the same\n"
	"  -y              repair without asking\n"
	"  -a, -p          repair without asking; be quick about a volume that was closed in "
	"order,\n"
	"                  and leave the values of files to a scrub (for boot; -f checks all)\n"
	"  -f              check all, though the volume was closed in order; with --discard-lost:\n"
	"                  though a disk is missing, which may have what seems lost\n"
	"  --discard-lost  with -y: remove what cannot be had back. Files that have lost bytes go "
	"as\n"
	"                  a whole: copy first what still reads. Nothing is removed without this\n"
	"  --no-data       do not verify the values of files\n"
	"  -C[FD]          print progress (to FD), also where there is no terminal\n"
	"  -v              print more\n"
	"  -h, --help      print this\n"
	"  -V, --version   print the version\n"
	"\n"
	"Exit code, a sum: 0 nothing is wrong, 1 things were repaired, 4 things are left as they "
	"were,\n"
	"8 the check could not be made, 16 wrong usage, 32 cancelled.\n";

struct args {
	struct sop_fsck_opts fsck;
	struct sop_paths folders;
	const char *source; /* for commands that are printed */
	bool no, yes, automatic, force, verbose, progress;
	FILE *out; /* of progress */
};

static volatile sig_atomic_t stopped;

static void on_signal(int sig)
{
	(void)sig;
	stopped = 1;
}

static volatile sig_atomic_t unread;

/* Who read what is printed has seen enough. A repair is not left in its middle for that. */
static void on_pipe(int sig)
{
	(void)sig;
	unread = 1;
}

/* --- arguments ------------------------------------------------------------- */

static int add_source(struct args *a, const char *text)
{
	struct sop_err e = {0};

	return sop_source_find(&a->folders, text, &e) ? complain("%s", e.text) : 0;
}

static int parse_fd(struct args *a, const char *text)
{
	char *end;
	long fd;

	a->progress = true;
	if (!text)
		return 0;
	fd = strtol(text, &end, 10);
	if (!*text || *end || fd < 0 || fd > 65535)
		return complain("-C%s: must be the number of an open file", text);
	/* 0 is what fsck(8) gives when it wants a bar on the terminal. */
	a->out = fd ? fdopen((int)fd, "w") : stderr;
	return a->out ? 0 : complain("-C%s: %s", text, strerror(errno));
}

/* 0: go on; > 0: error, said; -1: nothing is left to do. */
static int parse(struct args *a, int argc, char **argv)
{
	enum { OPT_DISCARD = 256, OPT_NO_DATA };
	static const struct option longs[] = {
		{"discard-lost", no_argument, NULL, OPT_DISCARD},
		{"no-data", no_argument, NULL, OPT_NO_DATA},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int c, rc = 0;

	a->out = stderr;
	while (!rc && (c = getopt_long(argc, argv, "anpyfvC::hV", longs, NULL)) != -1) {
		switch (c) {
		case 'n':
			a->no = true;
			break;
		case 'y':
			a->yes = true;
			break;
		case 'a':
		case 'p':
			a->automatic = true;
			break;
		case 'f':
			a->force = true;
			break;
		case 'v':
			a->verbose = true;
			break;
		case 'C':
			rc = parse_fd(a, optarg);
			break;
		case OPT_DISCARD:
			a->fsck.discard_lost = true;
			break;
		case OPT_NO_DATA:
			a->fsck.no_data = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return -1;
		case 'V':
			puts(PROGRAM " (sopfs) " SOPFS_VERSION);
			return -1;
		default: /* getopt has said what is wrong */
			return tool_misused(PROGRAM, EXIT_USAGE);
		}
	}
	if (!rc && a->no + a->yes + a->automatic > 1)
		rc = complain("-n, -y and -a (or -p) exclude each other");
	if (!rc && a->fsck.discard_lost && !a->yes)
		rc = complain("--discard-lost removes what is lost for good: give -y with it");
	for (int i = optind; i < argc && !rc; i++)
		rc = add_source(a, argv[i]);
	if (!rc && !a->folders.n) {
		complain("no folder was given");
		return tool_misused(PROGRAM, EXIT_USAGE);
	}
	a->source = rc ? "" : argv[optind];
	a->fsck.force = a->force;
	a->fsck.quick = a->automatic && !a->force;
	a->fsck.no_data = a->fsck.no_data || a->fsck.quick;
	return rc;
}

/* --- progress -------------------------------------------------------------- */

struct screen {
	const struct args *a;
	bool tty, drawn;
	struct timespec began, last;
	char what[64];
};

static double since(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - t->tv_sec) + (double)(now.tv_nsec - t->tv_nsec) / 1e9;
}

static void wipe(struct screen *s)
{
	if (s->drawn)
		fputs("\r\033[K", s->a->out);
	s->drawn = false;
	fflush(s->a->out);
}

static void progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
	struct screen *s = ctx;
	double spent, left, share = total ? (double)done / (double)total : 0;

	if (!s->tty && !s->a->progress)
		return;
	if (strcmp(what, s->what)) {
		snprintf(s->what, sizeof(s->what), "%s", what);
		clock_gettime(CLOCK_MONOTONIC, &s->began);
		s->last = s->began;
		return;
	}
	if (since(&s->last) < (s->tty ? 0.2 : 10.0))
		return;
	clock_gettime(CLOCK_MONOTONIC, &s->last);
	spent = since(&s->began);
	left = share > 0 ? spent / share - spent : 0;
	fprintf(s->a->out, "%s%s: %.1f%%, %.1f/s, %.0f s left%s", s->tty ? "\r" : "", what,
		100 * SOP_MIN(share, 1.0), (double)done / (spent > 0 ? spent : 1), left,
		s->tty ? "\033[K" : "\n");
	s->drawn = s->tty;
	fflush(s->a->out);
}

static bool stop(void *ctx)
{
	(void)ctx;
	return stopped != 0;
}

/* --- what is printed ------------------------------------------------------- */

static const char *const state_text[SOP_FOUND_STATES] = {
	[SOP_FOUND_NOTE] = "",
	[SOP_FOUND_FIXABLE] = "can be repaired",
	[SOP_FOUND_FIXED] = "REPAIRED",
	[SOP_FOUND_HELP] = "needs you",
	[SOP_FOUND_LOST] = "LOST, cannot be had back from this volume",
	[SOP_FOUND_DISCARDED] = "was lost, REMOVED",
};

static void print_next(const struct args *a, const struct sop_finding *f)
{
	if (f->next[0]) {
		printf("    next: %s\n", f->next);
	} else if (f->state == SOP_FOUND_FIXABLE && !a->fsck.repair) {
		printf("    next: " PROGRAM " -y %s\n", a->source);
	} else if (f->state == SOP_FOUND_FIXABLE) {
		printf("    next: see what the log says of this disk, then " PROGRAM " -y %s\n",
			a->source);
	} else if (f->state == SOP_FOUND_LOST) {
		printf("    next: bring back missing disks, or copy what still reads and restore "
		       "the "
		       "rest; to remove what is lost: " PROGRAM " -y --discard-lost %s\n",
			a->source);
	}
}

static void found(void *ctx, const struct sop_finding *f)
{
	struct screen *s = ctx;

	wipe(s);
	if (f->state == SOP_FOUND_NOTE && !s->a->verbose)
		return;
	printf("%s: ", f->object);
	if (f->len)
		printf("bytes %llu-%llu: ", (unsigned long long)f->off,
			(unsigned long long)(f->off + f->len - 1));
	printf("%s%s%s\n", f->what, state_text[f->state][0] ? ": " : "", state_text[f->state]);
	print_next(s->a, f);
}

static void print_summary(const struct args *a, const struct sop_fsck_report *r)
{
	const uint64_t *n = r->found;
	uint64_t left = n[SOP_FOUND_FIXABLE] + n[SOP_FOUND_HELP] + n[SOP_FOUND_LOST];
	uint64_t done = n[SOP_FOUND_FIXED] + n[SOP_FOUND_DISCARDED];

	printf("%s: ", r->name);
	if (r->quick)
		printf("was closed in order");
	else
		printf("%llu items, %llu blobs, %llu bytes", (unsigned long long)r->items,
			(unsigned long long)r->blobs, (unsigned long long)r->blob_bytes);
	if (!left && !done)
		printf(r->unsteady ? ": nothing that is certain" : ": clean");
	if (n[SOP_FOUND_FIXED])
		printf("; %llu repaired", (unsigned long long)n[SOP_FOUND_FIXED]);
	if (n[SOP_FOUND_DISCARDED])
		printf("; %llu lost and removed", (unsigned long long)n[SOP_FOUND_DISCARDED]);
	if (n[SOP_FOUND_FIXABLE])
		printf("; %llu can be repaired", (unsigned long long)n[SOP_FOUND_FIXABLE]);
	if (n[SOP_FOUND_HELP])
		printf("; %llu need you", (unsigned long long)n[SOP_FOUND_HELP]);
	if (n[SOP_FOUND_LOST])
		printf("; %llu lost", (unsigned long long)n[SOP_FOUND_LOST]);
	putchar('\n');
	if (r->user[0] && !a->fsck.repair)
		printf("%s: in use, or left so by a crash (%s)\n", r->name, r->user);
	if (r->unsteady)
		printf("%s: changes too fast to tell about trees and accounts: unmount it for "
		       "that\n",
			r->name);
}

/* --- running --------------------------------------------------------------- */

static int code_of(const struct sop_fsck_report *r)
{
	const uint64_t *n = r->found;
	int code = 0;

	if (n[SOP_FOUND_FIXED] || n[SOP_FOUND_DISCARDED])
		code |= EXIT_FIXED;
	if (n[SOP_FOUND_FIXABLE] || n[SOP_FOUND_HELP] || n[SOP_FOUND_LOST])
		code |= EXIT_LEFT;
	return code;
}

static int run(struct args *a, struct sop_fsck_report *r)
{
	struct screen s = {.a = a, .tty = isatty(fileno(a->out)) && !getenv("NO_COLOR")};
	struct sop_err e = {0};
	int rc;

	a->fsck.found = found;
	a->fsck.progress = progress;
	a->fsck.stop = stop;
	a->fsck.ctx = &s;
	rc = sop_fsck((const char *const *)a->folders.path, a->folders.n, &a->fsck, r, &e);
	wipe(&s);
	if (rc == -ECANCELED) {
		complain("cancelled");
		return code_of(r) | EXIT_CANCELLED;
	}
	if (rc) {
		complain("%s", e.text);
		return code_of(r) | EXIT_OPERATIONAL;
	}
	print_summary(a, r);
	return code_of(r);
}

/* Without -n, -y or -a: look, then ask. */
static int run_asking(struct args *a, struct sop_fsck_report *r)
{
	int code = run(a, r);
	char answer[16];

	if (code & ~EXIT_LEFT || !r->found[SOP_FOUND_FIXABLE])
		return code;
	if (!isatty(STDIN_FILENO)) {
		complain("nothing was repaired: -y repairs (or -n, when that is all you want)");
		return code;
	}
	printf("Repair what can be repaired? [y/N] ");
	fflush(stdout);
	if (!fgets(answer, sizeof(answer), stdin) || (answer[0] != 'y' && answer[0] != 'Y'))
		return code;
	a->fsck.repair = true;
	return run(a, r);
}

int main(int argc, char **argv)
{
	struct args a = {0};
	sop_autofree struct sop_fsck_report *report = calloc(1, sizeof(*report));
	struct sigaction stopping = {.sa_handler = on_signal}, piping = {.sa_handler = on_pipe};
	int rc;

	sop_stdfds_take();
	umask(umask(0) & 077); /* what is made is its owner's to use */
	rc = report ? parse(&a, argc, argv) : complain("out of memory");
	if (rc) {
		sop_paths_release(&a.folders);
		return rc > 0 ? rc : 0;
	}
	setvbuf(stdout, NULL, _IOLBF, 0); /* in order with what goes to stderr */
	sigaction(SIGINT, &stopping, NULL);
	sigaction(SIGTERM, &stopping, NULL);
	sigaction(SIGPIPE, &piping, NULL);
	a.fsck.repair = a.yes || a.automatic;
	rc = a.no || a.fsck.repair ? run(&a, report) : run_asking(&a, report);
	sop_paths_release(&a.folders);
	/* A full disk at the other end is an error to tell. */
	if ((fflush(stdout) || ferror(stdout)) && !unread) {
		complain("standard output: %s", strerror(errno));
		rc |= EXIT_OPERATIONAL;
	}
	return rc;
}
