#!/bin/bash
# Locks between two mounts of one shared volume, and what is read and written under them: files that are open
# all the time; conversions, deadlocks and interrupted waits; what a mount that has lost its locks may commit.
. "$(dirname "$0")/functions.sh"
# shellcheck source=tests/fs/redis.sh
. "$(dirname "$0")/redis.sh"

start_server redis
new_volume 3 2+1 --shared
cat >"$WORK/far.py" <<'PY'
import errno, fcntl, os, signal, struct, sys, threading, time
A, B, redis = sys.argv[1], sys.argv[2], int(sys.argv[3])
OFD_SETLK, OFD_SETLKW = 37, 38
RD, WR, UN = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
def check(c, what):
    if not c:
        raise SystemExit('FAILED: ' + what)
def call(fd, cmd, type, start=0, len=0):
    try:
        fcntl.fcntl(fd, cmd, struct.pack('hhqqi4x', type, 0, start, len, 0))
        return 0
    except OSError as e:
        return e.errno
def child(fn):
    pid = os.fork()
    if not pid:
        try:
            os._exit(fn() or 0)
        except BaseException as e:
            print('child:', repr(e), flush=True)
            os._exit(99)
    return pid
def result(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
class Pipe:
    """One says that it has come to a place, another waits for that."""
    def __init__(self):
        self.r, self.w = os.pipe()
    def say(self, n=1):
        os.write(self.w, b'x' * n)
    def hear(self):
        os.read(self.r, 1)

# -- lock, read again, write, unlock: a counter in a file that is open all the time
for kind in fcntl.lockf, fcntl.flock:
    open(A + '/counter', 'w').write('0')
    def count(top):
        f = os.open(top + '/counter', os.O_RDWR)
        os.pread(f, 20, 0)
        for _ in range(20):
            kind(f, fcntl.LOCK_EX)
            os.pwrite(f, b'%d' % (int(os.pread(f, 20, 0)) + 1), 0)
            kind(f, fcntl.LOCK_UN)
        os.close(f)
    check([result(c) for c in [child(lambda: count(A)), child(lambda: count(B))]] == [0, 0], 'counters')
    check(open(A + '/counter').read() == '40', 'counted ' + open(A + '/counter').read())

print('OK')
PY
for session in close write; do
	mount_at "$A" "$LOG" 8 "session=$session"
	mount_at "$B" "$WORK/b.log" 8 "session=$session"
	timeout 200 python3 "$WORK/far.py" "$A" "$B" "${SERVER[redis]}" >"$WORK/out" 2>&1 || {
		cat "$WORK/out"
		fail "session=$session: see above"
	}
	grep -q '^OK$' "$WORK/out" || fail "it did not come to its end"
	unmount_and_wait "$B"
	unmount_volume
done
check_volume
