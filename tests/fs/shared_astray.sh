#!/bin/bash
# Mounts of one shared volume whose clocks, or whose servers, are not what they should be: a wall clock that is an
# hour off, and jumps; a replica of the server that lags and takes its place; two servers that each believe to be
# the master. Nothing is lost or doubled.
. "$(dirname "$0")/functions.sh"
# shellcheck source=tests/fs/redis.sh
. "$(dirname "$0")/redis.sh"
requires cc

# ---- the wall clock of one is off

# Seconds to add to the wall clock, as the file says now.
cat >"$WORK/clock.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *off;

__attribute__((constructor)) static void begin(void)
{
	int fd = open(getenv("CLOCK_OFF"), O_RDWR | O_CLOEXEC);

	off = mmap(NULL, sizeof(*off), PROT_READ, MAP_SHARED, fd, 0);
	if (off == MAP_FAILED)
		abort();
	close(fd);
}

int clock_gettime(clockid_t id, struct timespec *t)
{
	static int (*real)(clockid_t, struct timespec *);
	int rc;

	if (!real)
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	rc = real(id, t);
	if (off && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		t->tv_sec += *off;
	return rc;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
	struct timespec s;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &s);
	t->tv_sec = s.tv_sec;
	t->tv_usec = s.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out)
{
	struct timespec s;

	clock_gettime(CLOCK_REALTIME, &s);
	if (out)
		*out = s.tv_sec;
	return s.tv_sec;
}
C
cc -shared -fPIC -O1 -o "$WORK/clock.so" "$WORK/clock.c" -ldl
set_clock() { # SECONDS: B's wall clock, from ours
	python3 -c 'import mmap, struct, sys
with open(sys.argv[1], "r+b") as f:
    mmap.mmap(f.fileno(), 8)[:] = struct.pack("l", int(sys.argv[2]))' "$WORK/clock" "$1"
}
truncate -s 8 "$WORK/clock"
set_clock 3600
with_clock() {
	ASAN_OPTIONS="verify_asan_link_order=0:$ASAN_OPTIONS" CLOCK_OFF="$WORK/clock" LD_PRELOAD="$WORK/clock.so" "$@"
}
# Counts up the number in FILE as often as it is told, each time under the lock of FILE.lock, and says how often it
# could: what is refused did not count.
cat >"$WORK/count.py" <<'PY'
import errno, fcntl, os, sys
done = 0
for i in range(int(sys.argv[2])):
    lock = os.open(sys.argv[1] + ".lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        f = os.open(sys.argv[1], os.O_RDWR)
        n = int(os.pread(f, 20, 0))
        os.pwrite(f, b"%d" % (n + 1), 0)
        os.close(f)
        done += 1
    except OSError as e: # no lock to be had now, or another was first
        if e.errno not in (errno.ENOLCK, errno.EBUSY):
            raise
    os.close(lock)
print(done)
PY
# counts FILE N: at both mounts at once; the number there at the end is how often they could.
counts() {
	local before
	before=$(cat "$A/$1")
	python3 "$WORK/count.py" "$A/$1" "$2" >"$WORK/counted.a" &
	local pid=$!
	python3 "$WORK/count.py" "$B/$1" "$2" >"$WORK/counted.b"
	wait "$pid" || fail "counting on A"
	echo "counted $(cat "$WORK/counted.a") and $(cat "$WORK/counted.b") of $2 times"
	assert_eq "$(cat "$A/$1")" $((before + $(cat "$WORK/counted.a") + $(cat "$WORK/counted.b"))) "counted by both"
	assert_eq "$(cat "$B/$1")" "$(cat "$A/$1")" "on the other"
}
# held FILE: somebody on B has its lock, until descriptor 5 is closed.
held() {
	: >"$WORK/held"
	exec 5> >(lock flock ex "$1" wait >"$WORK/held")
	wait_until 60 test -s "$WORK/held" || fail "no lock"
}
renewed() { # the server has been asked that often since
	[ "$(status "$B" .redis.round_trips)" -ge "$1" ]
}

start_server redis
new_volume 3 2+1 --shared
mount_at "$A" "$LOG"
with_clock mount_at "$B" "$WORK/b.log"
wait_until 60 mounters "$A" 2 || fail "they do not meet"
echo 0 >"$A/n"
: >"$A/n.lock"
[ "$(stat -c %Y "$A/n")" -lt $(($(date +%s) + 1800)) ] || fail "the clock of A is off"
echo x >"$B/f"
[ "$(stat -c %Y "$A/f")" -gt $(($(date +%s) + 1800)) ] || fail "the clock of B is not off"
counts n 10
held "$B/f"
expect_exit 1 lock flock ex "$A/f" </dev/null
asked=$(status "$B" .redis.round_trips)
set_clock -3600
# Some renewals with the clock as it is now.
wait_until 120 renewed $((asked + 4)) || fail "the lease is not renewed"
expect_exit 1 lock flock ex "$A/f" </dev/null
exec 5>&-
counts n 10
mounters "$A" 2 || fail "one was taken for dead"
unmount_and_wait "$B"
unmount_volume

# ---- a replica that lags takes the place of its master

free_port() {
	python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=$(free_port)
stop_server redis
start_server redis --port "$port" --bind 127.0.0.1 --repl-diskless-sync-delay 0
start_server replica --replicaof 127.0.0.1 "$port"
mount_at "$A" "$LOG"
mount_at "$B" "$WORK/b.log"
wait_until 60 mounters "$A" 2 || fail "they do not meet"
held "$B/f"
has_all() {
	redis replica info replication | grep -q '^master_link_status:up' &&
		[ "$(redis replica dbsize)" = "$(redis redis dbsize)" ]
}
wait_until 60 has_all || fail "the replica does not follow"
redis replica replicaof no one >/dev/null
# Of this the replica knows nothing.
: >"$WORK/held2"
exec 7> >(lock flock ex "$B/n" wait >"$WORK/held2" 5>&-)
wait_until 60 test -s "$WORK/held2" || fail "no second lock"
for i in $(seq 10); do
	echo "$i" >>"$A/log"
done
stop_server redis
mv "$WORK/replica.sock" "$WORK/redis.sock"
for i in $(seq 11 20); do
	echo "$i" >>"$B/log"
	assert_eq "$(tail -n 1 "$A/log")" "$i" "line $i"
done
wait_until 60 is_up "$A" || fail "A does not find it"
wait_until 60 is_up "$B" || fail "B does not find it"
wait_until 60 mounters "$A" 2 || fail "they do not meet there"
for f in f n; do
	expect_exit 1 lock flock ex "$A/$f" </dev/null
done
exec 5>&- 7>&-
assert_eq "$(cat "$A/log")" "$(seq 20)" "all lines"
wait_until 60 takes "$A" n || fail "the lock is still held"

# ---- two masters: each mount has its own, and each gives out the lock

start_server other
unmount_and_wait "$B"
"$SOPFS" "$SOURCE" "$B" -o "log=$WORK/b.log,redis=unix://$WORK/other.sock,lease=8"
wait_until 60 mounters "$B" 1 || fail "B has no server of its own"
wait_until 60 takes "$B" n || fail "the other server gives no lock"
counts n 20
unmount_and_wait "$B"
unmount_volume
check_volume
