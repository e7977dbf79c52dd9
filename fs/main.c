/* sopfs: mounts a volume and serves it.
 *
 *     options -> fork -> lock and recover the volume -> mount -> serve -> unmounted -> write out ->
 * unlock
 *
 * The parent returns when the first request has been answered (fs/daemon.h). Recovery, which may
 * take a while, comes before mounting: nobody meets a mount point that does not answer.
 *
 * Threads: the session loop's workers; one that makes the first request; one that takes the
 * signals. The first SIGTERM or SIGINT writes out and unmounts, waiting up to GRACE_MS for open
 * files to be closed, then detaches and serves those until they are; the second ends the loop at
 * once. Whatever ends the loop, the volume is closed after it: everything committed is on the
 * disks, and the lock is held until then. */
#define FUSE_USE_VERSION 312
#include "core/mountpoint.h"
#include "core/stdfds.h"
#include "fs/channel.h"
#include "fs/daemon.h"
#include "fs/messenger.h"
#include "fs/mountinfo.h"
#include "fs/options.h"
#include "fs/remount.h"
#include "fs/secret.h"
#include "fs/systemd.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#define GRACE_MS       5000
#define RETRY_MS       100
#define IN_USE_MS      2000
#define WORKERS_MAX    16
#define FILES_MAX      65536
#define STOP_USEC      120000000u /* what systemd grants the last writes, at least */
#define PROGRESS_EVERY 10	  /* seconds, when stderr is no terminal */

struct mounted {
	struct sopfs_options *o;
	char *mountpoint; /* canonical */
	char *settings;
	char *source; /* as mount(8) and df show it */
	struct sop_volume *volume;
	struct sopfs *fs;
	struct fuse_session *session;
	struct sopfs_channel *channel;
	struct sopfs_messenger *messenger;
	pthread_t signals, first;
	bool has_first;
	pthread_mutex_t lock;
	bool serving; /* under lock: from mounting to the end of the loop a signal means unmounting
		       */
	atomic_bool ended;
	atomic_int exit_code;
};

static int say(const struct sop_err *e)
{
	fprintf(stderr, "sopfs: %s\n", e->text);
	return sopfs_exit_code(e->code);
}

/* ---- signals -----------------------------------------------------------------------------------
 */

static void ending_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGQUIT);
	sigaddset(set, SIGHUP);
}

/* In this thread and all born of it. */
static void block_signals(void)
{
	sigset_t set;

	ending_signals(&set);
	sigaddset(&set, SOPFS_STOP_SIGNAL);
	sigaddset(&set, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* A signal that asks to end, within ms (-1: no bound). A hang-up asks in the foreground alone. */
static bool wait_signal(const struct mounted *m, int ms)
{
	const struct timespec wait = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
	sigset_t handled;
	int number;

	ending_signals(&handled);
	do {
		number = ms < 0 ? sigwaitinfo(&handled, NULL) : sigtimedwait(&handled, NULL, &wait);
	} while ((number < 0 && errno == EINTR) || (number == SIGHUP && !m->o->foreground));
	return number > 0;
}

/* True: a second signal came, nothing more is waited for. */
static bool unmount_in_time(struct mounted *m)
{
	struct sop_err e = {0};
	int waited, rc;

	if (sop_volume_sync(m->volume, &e))
		sop_log(sopfs_log(), SOP_LOG_ERROR, "main", "op=sync code=%s: %s",
			sop_err_name(e.code), e.text);
	for (waited = 0; waited < GRACE_MS; waited += RETRY_MS) {
		rc = sopfs_channel_unmount(m->channel, false, &e);
		if (!rc)
			return false;
		if (wait_signal(m, RETRY_MS))
			return true;
	}
	sop_log(sopfs_log(), SOP_LOG_WARNING, "main",
		"op=unmount code=EBUSY: %s: files are open still; detached, they are served until "
		"closed",
		m->mountpoint);
	sopfs_channel_unmount(m->channel, true, &e);
	return false;
}

static void *signal_thread(void *arg)
{
	struct mounted *m = arg;
	bool serving;

	wait_signal(m, -1);
	pthread_mutex_lock(&m->lock);
	serving = m->serving;
	/* Opening a volume may be cut at any moment, as by a crash. */
	if (!serving && !atomic_load(&m->ended))
		_exit(SOPFS_EXIT_INTERRUPTED);
	pthread_mutex_unlock(&m->lock);
	if (serving && !unmount_in_time(m))
		wait_signal(m, -1);
	while (!atomic_load(&m->ended)) {
		sopfs_channel_stop(m->channel);
		wait_signal(m, RETRY_MS);
	}
	return NULL;
}

/* ---- opening -----------------------------------------------------------------------------------
 */

static void show_progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
	static time_t last;
	bool tty = isatty(STDERR_FILENO);
	time_t now = time(NULL);

	(void)ctx;
	if (!last)
		last = now;
	if (now - last < (tty ? 1 : PROGRESS_EVERY))
		return;
	last = now;
	/* Slow is not stuck. */
	sopfs_notify_service("STATUS=%s %llu of %llu\nEXTEND_TIMEOUT_USEC=%u", what,
		(unsigned long long)done, (unsigned long long)total, 3 * PROGRESS_EVERY * 1000000u);
	fprintf(stderr, "%ssopfs: %s %llu of %llu%s", tty ? "\r" : "", what,
		(unsigned long long)done, (unsigned long long)total, tty ? "\033[K" : "\n");
	if (tty && done >= total)
		fputc('\n', stderr);
}

/* Mounted over a member folder, or over what holds it, the volume would hide the member from
 * everyone else; mounted in one, it would be asked for its own files. */
static int check_apart(const char *mountpoint, const char *folder, struct sop_err *e)
{
	sop_autofree char *real = realpath(folder, NULL);

	if (real && sop_paths_overlap(real, mountpoint))
		return sop_say(e, -EINVAL,
			"%s: is, holds or lies in %s, a disk folder of the volume; mount on "
			"another directory",
			mountpoint, folder);
	return 0;
}

static void tell_degraded(struct sop_volume *v)
{
	struct sop_volume_stat st;
	struct sop_volume_disk d;
	unsigned i;

	sop_volume_stat(v, &st);
	sopfs_log_name(st.name[0] ? st.name : "volume");
	if (!st.degraded)
		return;
	sop_log(sopfs_log(), SOP_LOG_WARNING, "main",
		"op=mount: DEGRADED: %u of %u disks are here, %u+%u are wanted for full redundancy",
		st.disks_online, st.disks, st.k, st.m);
	for (i = 0; sop_volume_disk(v, i, &d); i++)
		if (d.state != SOP_DISK_ONLINE)
			sop_log(sopfs_log(), SOP_LOG_WARNING, "main", "op=mount disk=%s state=%s",
				d.path, sop_disk_state_name(d.state));
}

/* What mount(8) and df show: the words of the command line, with folders by their full names. */
static char *shown_source(const struct sopfs_options *o)
{
	char *all = NULL, *longer;
	size_t i;

	if (o->source[0] == '/' || o->named)
		return strdup(o->source);
	for (i = 0; i < o->paths.n; i++) {
		if (asprintf(&longer, "%s%s%s", all ? all : "", all ? ":" : "", o->paths.path[i]) <
			0)
			longer = NULL;
		free(all);
		all = longer;
		if (!all)
			return NULL;
	}
	return all;
}

static int open_volume(struct mounted *m, struct sop_err *e)
{
	struct sopfs_options *o = m->o;
	struct sop_volume_disk d;
	int waited, rc;

	o->volume.log = o->fs.log = sopfs_log();
	o->fs.settings = m->settings;
	o->volume.progress = show_progress;
	/* umount(8) and kill(1) return before the daemon has ended: one that is just ending is
	 * waited for, so that the next command of a script finds the volume free. */
	for (waited = 0;; waited += RETRY_MS) {
		rc = sop_volume_open(
			&m->volume, (const char *const *)o->paths.path, o->paths.n, &o->volume, e);
		if (rc != SOP_EINUSE || waited >= IN_USE_MS)
			break;
		usleep(RETRY_MS * 1000);
	}
	if (sop_err_errno(rc) == ENOSPC && !o->volume.read_only)
		return sop_say(e, rc, "%s; make room there, or mount with -o ro", e->text);
	/* Those that were not given, too. One that is not there may hang. */
	for (unsigned i = 0; !rc && sop_volume_disk(m->volume, i, &d); i++)
		if (d.state == SOP_DISK_ONLINE)
			rc = check_apart(m->mountpoint, d.path, e);
	if (rc)
		return rc;
	tell_degraded(m->volume);
	m->source = shown_source(o);
	if (!m->source)
		return sop_fail(e, -ENOMEM, "%s", o->source);
	o->fs.mountpoint = m->mountpoint;
	o->fs.source = m->source;
	o->fs.allow_other = o->allow_other;
	return sopfs_new(&m->fs, m->volume, &o->fs, e);
}

static int mount_it(struct mounted *m, struct sop_err *e)
{
	char name[] = "sopfs", debug[] = "-odebug";
	char *argv[] = {name, debug, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(m->o->debug ? 2 : 1, argv);
	const struct sopfs_channel_opts opts = {
		.source = m->source,
		.allow_other = m->o->allow_other,
		.mount_flags = m->o->mount_flags,
		.messenger = m->messenger,
		.statx = sopfs_answer_statx,
	};
	int rc;

	m->session = fuse_session_new(&args, &sopfs_ops, sizeof(sopfs_ops), m->fs);
	fuse_opt_free_args(&args);
	if (!m->session)
		return sop_say(e, -EIO, "libfuse made no session (its own message is above)");
	sopfs_set_session(m->fs, m->session);
	/* A signal from here on finds all it needs to unmount. */
	pthread_mutex_lock(&m->lock);
	rc = sopfs_channel_open(&m->channel, m->session, m->mountpoint, &opts, e);
	m->serving = !rc;
	pthread_mutex_unlock(&m->lock);
	if (!rc && sopfs_control_start(m->fs, e))
		sop_log(sopfs_log(), SOP_LOG_WARNING, "main",
			"op=control code=%s: %s; sopctl will not find this mount",
			sop_err_name(e->code), e->text);
	return rc;
}

/* ---- serving -----------------------------------------------------------------------------------
 */

/* umount(8) asks the kernel alone, and does not wait for a daemon, unless its own table names a
 * helper: then it runs umount.sopfs. mount(8) writes the table, for a mount that is there (-f). It
 * is no error that it cannot: the mount is good without. */
static void register_umount(const struct mounted *m)
{
	sop_autofree char *source = shown_source(m->o);

	if (geteuid() != 0 || !source)
		return;
	sopfs_run((const char *const[]){"mount", "-i", "-f", "-t", "fuse.sopfs",
		"--no-canonicalize", "-o", "rw,helper=sopfs", "--", source, m->mountpoint, NULL});
}

static void *first_request(void *arg)
{
	struct mounted *m = arg;
	struct sop_err e = {0};

	if (sopfs_channel_ready(m->channel, &e)) {
		fprintf(stderr, "sopfs: %s\n", e.text);
		atomic_store(&m->exit_code, SOPFS_EXIT_FAILED);
		while (!atomic_load(&m->ended)) {
			sopfs_channel_stop(m->channel);
			usleep(RETRY_MS * 1000);
		}
		return NULL;
	}
	register_umount(m);
	sop_log(sopfs_log(), SOP_LOG_INFO, "main", "op=mount: %s serves", m->mountpoint);
	if (m->o->verbose)
		fprintf(stderr, "sopfs: %s mounted on %s\n", m->o->source, m->mountpoint);
	sopfs_notify_service(
		"READY=1\nMAINPID=%ld\nSTATUS=serving %s", (long)getpid(), m->mountpoint);
	sopfs_daemon_report(SOPFS_EXIT_OK);
	return NULL;
}

static int loop(struct mounted *m)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int rc;

	if (!config)
		return -ENOMEM;
	/* More workers than processors: some of them wait for the disks, or for a lock in the
	 * kernel that another request of ours must first give back. */
	fuse_loop_cfg_set_max_threads(config, WORKERS_MAX);
	fuse_loop_cfg_set_idle_threads(config, WORKERS_MAX);
	rc = -pthread_create(&m->first, NULL, first_request, m);
	if (!rc) {
		m->has_first = true;
		rc = fuse_session_loop_mt(m->session, config);
	}
	fuse_loop_cfg_destroy(config);
	return rc;
}

/* In the order that keeps every promise: nothing comes in any more; sessions end; the volume writes
 * out and gives its lock back. The signal thread uses the volume and the channel, so it ends first;
 * the first request, should it never have been answered, comes back when the descriptor is closed.
 */
static int finish(struct mounted *m)
{
	struct sop_err e = {0};
	int code;

	sopfs_notify_service("STOPPING=1\nSTATUS=writing out\nEXTEND_TIMEOUT_USEC=%u", STOP_USEC);
	pthread_mutex_lock(&m->lock);
	m->serving = false;
	atomic_store(&m->ended, true);
	pthread_mutex_unlock(&m->lock);
	pthread_kill(m->signals, SIGTERM); /* only to wake it */
	pthread_join(m->signals, NULL);
	if (m->channel)
		sopfs_channel_unmount(m->channel, true, NULL);
	if (m->fs) {
		sopfs_control_stop(m->fs);
		sopfs_free(m->fs);
	}
	if (m->session)
		fuse_session_destroy(m->session);
	sopfs_messenger_stop(m->messenger); /* the last descriptor of the connection */
	if (m->has_first)
		pthread_join(m->first, NULL);
	sopfs_channel_close(m->channel);
	code = atomic_load(&m->exit_code);
	if (m->volume && sop_volume_close(m->volume, &e)) {
		sop_log(sopfs_log(), SOP_LOG_ERROR, "main", "op=close code=%s: %s",
			sop_err_name(e.code), e.text);
		code = code ? code : SOPFS_EXIT_SYSTEM;
	}
	sop_log(sopfs_log(), SOP_LOG_INFO, "main", "op=unmount: done");
	sopfs_log_finish();
	return code;
}

static int serve(struct mounted *m)
{
	struct sop_err e = {0};
	int rc;

	block_signals();
	rc = sopfs_messenger_start(&m->messenger, &e);
	if (rc)
		return say(&e);
	rc = -pthread_create(&m->signals, NULL, signal_thread, m);
	if (rc) {
		sop_fail(&e, rc, "thread");
		sopfs_messenger_stop(m->messenger);
		return say(&e);
	}
	rc = open_volume(m, &e);
	if (!rc)
		rc = mount_it(m, &e);
	if (rc) {
		atomic_store(&m->exit_code, say(&e));
	} else {
		rc = loop(m);
		if (rc && !atomic_load(&m->exit_code)) {
			sop_log(sopfs_log(), SOP_LOG_ERROR, "main", "op=loop: %s",
				strerror(abs(rc)));
			atomic_store(&m->exit_code, SOPFS_EXIT_INTERNAL);
		}
	}
	return finish(m);
}

/* Segments are files: a volume of many disks keeps many of them open. */
static void raise_limits(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur >= FILES_MAX)
		return;
	r.rlim_cur = SOP_MIN(r.rlim_max, FILES_MAX);
	setrlimit(RLIMIT_NOFILE, &r);
}

static int print_settings(const struct mounted *m)
{
	sop_autofree char *full = m->o->mountpoint ? sop_mountpoint_name(m->o->mountpoint) : NULL;

	fputs(m->settings, stdout);
	if (m->o->mountpoint)
		printf("mountpoint = %s\n", full ? full : m->o->mountpoint);
	return fflush(stdout) ? SOPFS_EXIT_SYSTEM : SOPFS_EXIT_OK;
}

/* With -N all of the daemon moves to the other namespace: so SOURCE is looked for there too. */
static int check_mountpoint(struct mounted *m, struct sop_err *e)
{
	int rc = sop_namespace_enter(m->o->namespace, e);

	if (!rc)
		rc = sopfs_mountpoint_check(&m->mountpoint, m->o->mountpoint, e);
	for (size_t i = 0; i < m->o->paths.n && !rc; i++)
		rc = check_apart(m->mountpoint, m->o->paths.path[i], e);
	return rc;
}

static int remount(const struct sopfs_options *o, struct sop_err *e)
{
	int rc = sop_namespace_enter(o->namespace, e);

	return rc ? rc : sopfs_remount(o, e);
}

static int run_daemon(struct mounted *m, struct sop_err *e)
{
	int rc = sopfs_log_open(m->o->foreground, m->o->debug, m->o->log_file, e);

	if (!rc)
		rc = sopfs_secret_find(m->o, e);
	/* Until the volume has said what it is called. */
	sopfs_log_name(m->o->named ? m->o->source : m->o->paths.path[0]);
	if (!rc)
		rc = sopfs_daemon_start(m->o->foreground, e);
	if (rc)
		return say(e);
	rc = serve(m);
	sopfs_daemon_report(rc);
	return rc;
}

static int run(struct sopfs_options *o)
{
	struct mounted m = {.o = o, .lock = PTHREAD_MUTEX_INITIALIZER};
	struct sop_err e = {0};
	int rc = 0;

	m.settings = sopfs_options_dump(o);
	if (!m.settings)
		rc = sop_fail(&e, -ENOMEM, "settings");
	else if (o->dump)
		rc = print_settings(&m);
	else if (o->remount)
		rc = remount(o, &e);
	else
		rc = check_mountpoint(&m, &e);
	if (rc < 0)
		rc = say(&e);
	else if (!o->dump && !o->remount && !o->fake)
		rc = run_daemon(&m, &e);
	free(m.source);
	free(m.mountpoint);
	free(m.settings);
	return rc;
}

int main(int argc, char **argv)
{
	struct sopfs_options o;
	struct sop_err e = {0};
	int rc;

	sop_stdfds_take();
	rc = sopfs_options_parse(&o, argc, argv, &e);
	if (rc) {
		fprintf(stderr, "sopfs: %s\n", e.text);
		/* A pattern that matches no folder is no error of usage. */
		rc = rc == -ENOENT ? SOPFS_EXIT_FAILED : SOPFS_EXIT_USAGE;
	} else if (o.help) {
		sopfs_options_usage(false);
	} else if (o.version) {
		printf("sopfs %s, libfuse %s\n", SOPFS_VERSION, fuse_pkgversion());
	} else {
		umask(0);
		raise_limits();
		/* A bound on what the allocator keeps: cache= is to be believed. */
		mallopt(M_ARENA_MAX, 4);
		rc = run(&o);
	}
	sopfs_options_release(&o);
	return rc;
}
