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

# -- both turn a shared lock into an exclusive one: one after the other
open(A + '/f', 'w').write('x' * 100)
both, go = Pipe(), Pipe()
def upgrade(top):
    f = os.open(top + '/f', os.O_RDWR)
    fcntl.flock(f, fcntl.LOCK_SH)
    both.say()
    go.hear()
    fcntl.flock(f, fcntl.LOCK_EX)
cs = [child(lambda: upgrade(A)), child(lambda: upgrade(B)), child(lambda: upgrade(A))]
for c in cs:
    both.hear()
go.say(3)
check([result(c) for c in cs] == [0, 0, 0], 'upgrades')

# -- what would be a deadlock of processes is none of descriptions: another thread lets go
f = os.open(A + '/f', os.O_RDWR)
check(call(f, OFD_SETLK, WR, 0, 1) == 0, 'OFD')
has, let = Pipe(), Pipe()
def other():
    g = os.open(B + '/f', os.O_RDWR)
    check(call(g, OFD_SETLK, WR, 1, 1) == 0, 'OFD of the other')
    has.say()
    check(call(g, OFD_SETLKW, WR, 0, 1) == 0, 'the other waits')
    let.hear()
    return call(g, OFD_SETLK, UN)
c = child(other)
has.hear()
time.sleep(.3)
got = []
t = threading.Thread(target=lambda: got.append(call(f, OFD_SETLKW, WR, 1, 1)))
t.start()
time.sleep(.3)
check(not got, 'OFD waits: %s' % got)
check(call(f, OFD_SETLK, UN, 0, 1) == 0, 'unlock')
let.say()
check(result(c) == 0, 'the other unlocks')
t.join(60)
check(got == [0], 'a waiter that might have been a deadlock is let in: %s' % got)
os.close(f)

# -- who has been interrupted waits no more, whatever the server was doing meanwhile
f = os.open(A + '/f', os.O_RDWR)
check(call(f, fcntl.F_SETLK, WR, 0, 1) == 0, 'lock')
tries, end = Pipe(), Pipe()
def interrupted():
    class Stop(Exception):
        pass
    def stop(*x):
        raise Stop()
    signal.signal(signal.SIGALRM, stop)
    g = os.open(B + '/f', os.O_RDWR)
    check(call(g, fcntl.F_SETLK, WR, 1, 1) == 0, 'lock of the other')
    while True:
        os.kill(redis, signal.SIGSTOP)
        if not os.fork():
            time.sleep(.6)
            os.kill(redis, signal.SIGCONT)
            os._exit(0)
        e = 0
        try:
            signal.setitimer(signal.ITIMER_REAL, .3)
            fcntl.lockf(g, fcntl.LOCK_EX, 1, 0)
        except Stop:
            e = errno.EINTR
        except OSError as x:
            e = x.errno
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.wait()
        if e == errno.EINTR:
            break
        check(e == errno.ENOLCK, 'interrupted: %d' % e)
    tries.say()
    end.hear()
    return call(g, fcntl.F_SETLK, UN)
c = child(interrupted)
tries.hear()
got = []
t = threading.Thread(target=lambda: got.append(call(f, fcntl.F_SETLKW, WR, 1, 1)))
t.start()
time.sleep(.5)
check(not got, 'no deadlock with who has been interrupted: %s' % got)
end.say()
check(result(c) == 0, 'the other unlocks')
t.join(60)
check(got == [0], 'who waits is let in: %s' % got)
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

# ---- a mount sleeps until its locks are another's. What is written under them is refused, whatever else has been
# unlocked meanwhile; what is written under one that was taken later is not.
mount_at "$A" "$LOG"
mount_at "$B" "$WORK/b.log"
echo old >"$A/lost"
echo old >"$A/later"
cat >"$WORK/sleeps.py" <<'PY'
import errno, fcntl, os, sys, time
lost, later = os.open(sys.argv[1] + '/lost', os.O_RDWR), os.open(sys.argv[1] + '/later', os.O_RDWR)
fcntl.flock(lost, fcntl.LOCK_EX)
fcntl.lockf(lost, fcntl.LOCK_EX)
fcntl.lockf(lost, fcntl.LOCK_UN)
fcntl.lockf(later, fcntl.LOCK_EX, 1, 10)
fcntl.lockf(later, fcntl.LOCK_UN, 1, 10)
print('held', flush=True)
sys.stdin.read()
def commit(f, text):
    try:
        os.pwrite(f, text, 0)
        fcntl.lockf(f, fcntl.LOCK_UN)
        return 'committed'
    except OSError as e:
        return errno.errorcode[e.errno]
print('lost', commit(lost, b'sleeper'))
while True:
    try:
        fcntl.lockf(later, fcntl.LOCK_EX, 1, 10)
        break
    except OSError as e:
        if e.errno != errno.ENOLCK:
            raise
        time.sleep(.1)
print('later', commit(later, b'new'))
PY
mkfifo "$WORK/go"
python3 "$WORK/sleeps.py" "$B" <"$WORK/go" >"$WORK/sleeps" 2>&1 &
sleeps=$!
exec 6>"$WORK/go"
wait_until 60 grep -q held "$WORK/sleeps" || fail "no locks"
sleeping=$(daemon_of "$B")
kill -STOP "$sleeping"
wait_until 60 takes "$A" lost || { kill -CONT "$sleeping"; fail "the sleeper's lock is not free"; }
kill -CONT "$sleeping"
wait_until 30 mounters "$A" 2 || fail "the sleeper does not come back"
exec 6>&-
wait "$sleeps" || fail "the sleeper: $(cat "$WORK/sleeps")"
grep -q '^lost EBUSY$' "$WORK/sleeps" || fail "what was written under a lost lock: $(cat "$WORK/sleeps")"
grep -q '^later committed$' "$WORK/sleeps" || fail "what was written under a new lock: $(cat "$WORK/sleeps")"
assert_eq "$(cat "$A/lost")" old "under the lost lock"
assert_eq "$(head -c 3 "$A/later")" new "under the new one"
unmount_and_wait "$B"
unmount_volume
check_volume
