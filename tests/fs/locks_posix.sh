#!/bin/bash
# What POSIX, Linux and flock(2) say of locks beyond the common: who loses what by which close, by fork,
# dup and exit; EDEADLK; conversions; what F_GETLK answers; OFD locks beside POSIX ones; waits that are
# killed. Under both kinds of session.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
cat >"$WORK/locks.py" <<'PY'
import ctypes, errno, fcntl, json, os, signal, struct, subprocess, sys, threading, time
os.chdir(sys.argv[1])
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38
RD, WR, UN = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
def check(c, what):
    if not c:
        raise SystemExit('FAILED: ' + what)
def pack(type, start=0, len=0, whence=0):
    return struct.pack('hhqqi4x', type, whence, start, len, 0)
def call(fd, cmd, type, start=0, len=0, whence=0):
    try:
        fcntl.fcntl(fd, cmd, pack(type, start, len, whence))
        return 0
    except OSError as e:
        return e.errno
def setlk(fd, type, start=0, len=0, whence=0):
    e = call(fd, fcntl.F_SETLK, type, start, len, whence)
    return errno.EAGAIN if e == errno.EACCES else e
def lock(*args):
    e = setlk(*args)
    check(e == 0, 'a lock that nobody holds: ' + errno.errorcode.get(e, str(e)))
def getlk(fd, type, start=0, len=0, cmd=fcntl.F_GETLK):
    t, w, s, l, p = struct.unpack('hhqqi4x', fcntl.fcntl(fd, cmd, pack(type, start, len)))
    return (t, s, l, p) if t != UN else None
def child(fn):
    """Runs fn in a process of its own; its result, if that is not None, is the exit code."""
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
def other(type, start=0, len=0, flags=os.O_RDWR, path='l'):
    """What another process would get: 0 or an error."""
    return result(child(lambda: setlk(os.open(path, flags), type, start, len)))
def waited():
    """Requests that wait for a lock, all that ever came to the daemon."""
    status = subprocess.check_output([sys.argv[2], 'status', '--json', sys.argv[3]])
    return json.loads(status)['requests']['SETLKW']
def asked(n):
    eventually(lambda: waited() >= n, 'a request for a lock')
    time.sleep(.05) # counted, and put in line
def eventually(fn, what):
    for _ in range(600):
        if fn():
            return
        time.sleep(.05)
    check(False, what)

def new(path='l', flags=os.O_RDWR):
    global number
    number += 1
    p = '%s%d' % (path, number)
    with open(p, 'w') as f:
        f.write('x' * 100)
    return p
number = 0

# -- ranges, F_GETLK, conversion
p = new()
a = os.open(p, os.O_RDWR)
lock(a, WR, 10, 10)
def look():
    f = os.open(p, os.O_RDWR)
    me = os.getppid()
    check(getlk(f, RD, 0, 0) == (WR, 10, 10, me), 'GETLK %s' % (getlk(f, RD, 0, 0),))
    check(getlk(f, RD, 0, 10) is None, 'before it')
    check(getlk(f, WR, 20, 0) is None, 'behind it')
    check(setlk(f, RD, 19, 1) == errno.EAGAIN, 'its last byte')
    check(setlk(f, RD, 20, 1) == 0, 'the byte behind it')
check(result(child(look)) == 0, 'ranges')
check(getlk(a, WR, 0, 0) is None, 'one\'s own is in nobody\'s way')
check(setlk(a, RD, 12, 4) == 0, 'converted in the middle')
def look():
    f = os.open(p, os.O_RDWR)
    check(getlk(f, RD, 0, 0)[:3] == (WR, 10, 2), 'left of it')
    check(getlk(f, RD, 12, 0)[:3] == (WR, 16, 4), 'right of it')
    check(getlk(f, WR, 12, 2)[:3] == (RD, 12, 4), 'itself')
    check(setlk(f, RD, 12, 4) == 0, 'shared')
check(result(child(look)) == 0, 'split')
check(setlk(a, WR, 12, 4) == 0, 'and back')
check(result(child(lambda: check(getlk(os.open(p, os.O_RDWR), RD)[:3] == (WR, 10, 10), 'joined'))) == 0, 'joined')
check(setlk(a, UN, 15, 0) == 0, 'unlocked to the end')
check(result(child(lambda: check(getlk(os.open(p, os.O_RDWR), RD)[:3] == (WR, 10, 5), 'cut'))) == 0, 'cut')
check(setlk(a, WR, -5, 5, os.SEEK_END) == 0, 'from the end')
check(result(child(lambda: check(getlk(os.open(p, os.O_RDWR), RD, 20)[:3] == (WR, 95, 5), 'from the end'))) == 0, 'SEEK_END')
check(setlk(a, WR, 50, 0) == 0, 'to the end of all')
check(result(child(lambda: check(getlk(os.open(p, os.O_RDWR), RD, 1 << 62)[:3] == (WR, 50, 0), 'infinite'))) == 0, 'infinite')
check(setlk(a, WR, -1, 1) == errno.EINVAL, 'a negative start')
check(setlk(os.open(p, os.O_RDONLY), WR, 200, 1) == errno.EBADF, 'a write lock needs a writer')
check(setlk(os.open(p, os.O_WRONLY), RD, 200, 1) == errno.EBADF, 'a read lock needs a reader')

# -- the first close of any descriptor, of whatever kind
for kind in os.O_RDWR, os.O_RDONLY:
    for how in 'open', 'dup':
        p = new()
        a = os.open(p, kind)
        b = os.open(p, kind) if how == 'open' else os.dup(a)
        lock(a, RD)
        check(other(WR, path=p) == errno.EAGAIN, 'held')
        os.close(b)
        check(other(WR, path=p) == 0, 'first close by %s of %s' % (how, kind))
        os.close(a)
        check(other(WR, path=p) == 0, 'last close')
# ... which others wait for already
for kind in os.O_RDWR, os.O_RDONLY:
    p = new()
    a = os.open(p, kind)
    b = os.dup(a)
    lock(a, RD)
    w = child(lambda: call(os.open(p, os.O_RDWR), fcntl.F_SETLKW, WR))
    time.sleep(.2)
    os.close(b)
    check(result(w) == 0, 'a waiter is let in by the first close')
    os.close(a)

# -- fork: a child has none of them, and takes none away
p = new()
a = os.open(p, os.O_RDONLY)
lock(a, RD)
def look():
    check(setlk(os.open(p, os.O_RDWR), WR) == errno.EAGAIN, 'not inherited')
    os.close(a)
check(result(child(look)) == 0, 'fork')
check(other(WR, path=p) == errno.EAGAIN, 'the child\'s closes are the child\'s')
os.close(a)

# -- a process that goes, also when a child of it keeps the description
for kind in os.O_RDWR, os.O_RDONLY:
    p = new()
    r, w = os.pipe()
    keep = os.pipe()
    def locker():
        os.close(keep[1])
        f = os.open(p, kind)
        lock(f, RD)
        if not os.fork():
            os.read(keep[0], 1)
            os._exit(0)
        os.write(w, b'x')
        time.sleep(60)
    c = child(locker)
    os.read(r, 1)
    check(other(WR, path=p) == errno.EAGAIN, 'held by the process')
    waiter = child(lambda: call(os.open(p, os.O_RDWR), fcntl.F_SETLKW, WR))
    os.kill(c, signal.SIGKILL)
    os.waitpid(c, 0)
    check(result(waiter) == 0, 'a waiter is let in by the end of the holder')
    check(other(WR, path=p) == 0, 'a killed process holds nothing')
    os.close(keep[1])

# -- EDEADLK
def deadlock(kind):
    p = new()
    f = os.open(p, os.O_RDWR)
    lock(f, WR, 0, 1)
    r, w = os.pipe()
    def two():
        g = os.open(p, os.O_RDWR)
        lock(g, WR, 1, 1)
        os.write(w, b'x')
        return call(g, fcntl.F_SETLKW, WR, 0, 1)
    before = waited()
    c = child(two)
    os.read(r, 1)
    asked(before + 1)
    check(call(f, fcntl.F_SETLKW, WR, 1, 1) == errno.EDEADLK, 'EDEADLK')
    os.close(f)
    check(result(c) == 0, 'the other goes on')
deadlock(0)
# of three, over two files
p, q = new(), new()
f, g = os.open(p, os.O_RDWR), os.open(q, os.O_RDWR)
lock(f, WR, 0, 1)
pipes = os.pipe()
def second():
    x, y = os.open(p, os.O_RDWR), os.open(q, os.O_RDWR)
    lock(y, WR, 5, 5)
    os.write(pipes[1], b'x')
    return call(x, fcntl.F_SETLKW, WR, 0, 1)
def third():
    x, y = os.open(p, os.O_RDWR), os.open(q, os.O_RDWR)
    lock(x, RD, 50, 5)
    os.write(pipes[1], b'x')
    return call(y, fcntl.F_SETLKW, RD, 7, 1)
before = waited()
cs = [child(second)]
os.read(pipes[0], 1)
cs.append(child(third))
os.read(pipes[0], 1)
asked(before + 2)
check(call(f, fcntl.F_SETLKW, WR, 50, 1) == errno.EDEADLK, 'a ring of three')
check(call(f, fcntl.F_SETLK, WR, 50, 1) in (errno.EAGAIN, errno.EACCES), 'who does not wait gets EAGAIN')
os.close(f)
check([result(c) for c in cs] == [0, 0], 'both go on')
# two that turn a read lock into a write lock
p = new()
f = os.open(p, os.O_RDWR)
lock(f, RD)
def upgrade():
    x = os.open(p, os.O_RDWR)
    lock(x, RD)
    os.write(pipes[1], b'x')
    return call(x, fcntl.F_SETLKW, WR)
before = waited()
c = child(upgrade)
os.read(pipes[0], 1)
asked(before + 1)
check(call(f, fcntl.F_SETLKW, WR) == errno.EDEADLK, 'two upgrades')
check(setlk(f, UN) == 0, 'unlock')
check(result(c) == 0, 'one upgrade')

# -- OFD: of the description, not of the process; no EDEADLK
p = new()
a, b = os.open(p, os.O_RDWR), os.open(p, os.O_RDWR)
check(call(a, OFD_SETLK, WR) == 0, 'OFD')
check(call(b, OFD_SETLK, RD) in (errno.EAGAIN, errno.EACCES), 'another description of one process')
check(getlk(b, RD, cmd=OFD_GETLK)[0] == WR, 'OFD_GETLK')
check(setlk(b, RD) == errno.EAGAIN, 'POSIX beside OFD')
d = os.dup(a)
os.close(d)
check(call(b, OFD_SETLK, RD) != 0, 'a copy closed takes none away')
os.close(os.open(p, os.O_RDONLY))
check(call(b, OFD_SETLK, RD) != 0, 'nor another description')
c = child(lambda: call(a, OFD_SETLK, WR))
check(result(c) == 0, 'inherited with the description')
os.close(a)
eventually(lambda: call(b, OFD_SETLK, WR) == 0, 'given up with the description')
os.close(b)
for kind in os.O_RDWR, os.O_RDONLY:
    p = new()
    a, b = os.open(p, kind), os.open(p, kind)
    check(call(a, OFD_SETLK, RD) == 0, 'OFD')
    os.close(b)
    check(other(WR, path=p) == errno.EAGAIN, 'OFD: the close of another descriptor')
    os.close(a)
    check(other(WR, path=p) == 0, 'OFD: at once after the close')
# What would be a deadlock of processes is none of threads with descriptions of their own.
p = new()
a, b = os.open(p, os.O_RDWR), os.open(p, os.O_RDWR)
check(call(a, OFD_SETLK, WR, 0, 1) == 0 and call(b, OFD_SETLK, WR, 1, 1) == 0, 'OFD')
got = []
t = threading.Thread(target=lambda: got.append(call(a, OFD_SETLKW, WR, 1, 1)))
u = threading.Thread(target=lambda: got.append(call(b, OFD_SETLKW, WR, 0, 1)))
t.start()
u.start()
time.sleep(.5)
check(not got, 'OFD: no EDEADLK %s' % got)
check(call(a, OFD_SETLK, UN, 0, 1) == 0, 'another thread lets it go')
u.join()
check(call(b, OFD_SETLK, UN) == 0, 'unlock')
t.join()
check(got == [0, 0], 'OFD waiters')
os.close(a)
os.close(b)

# -- flock: at once after a close; conversions; beside fcntl
p = new()
for kind in os.O_RDWR, os.O_RDONLY:
    for _ in range(60):
        a = os.open(p, kind)
        fcntl.flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(a)
a, b = os.open(p, os.O_RDONLY), os.open(p, os.O_RDONLY)
fcntl.flock(a, fcntl.LOCK_SH)
fcntl.flock(b, fcntl.LOCK_SH)
try:
    fcntl.flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    check(False, 'shared and exclusive')
except BlockingIOError:
    pass
fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the failed one of a has lost its lock
fcntl.flock(b, fcntl.LOCK_UN)
r, w = os.pipe()
def upgrade():
    f = os.open(p, os.O_RDONLY)
    fcntl.flock(f, fcntl.LOCK_SH)
    os.write(w, b'x')
    time.sleep(.3)
    fcntl.flock(f, fcntl.LOCK_EX)
cs = [child(upgrade) for _ in range(3)]
check([result(c) for c in cs] == [0, 0, 0], 'upgrades one after the other')
fcntl.flock(a, fcntl.LOCK_EX)
check(other(WR, path=p) == 0, 'flock and fcntl do not see each other')
d = os.dup(a)
os.close(a)
check(subprocess.run(['flock', '-n', p, 'true']).returncode == 1, 'a copy keeps it')
os.close(d)
check(subprocess.run(['flock', '-n', p, 'true']).returncode == 0, 'the last close gives it up')
f = open(p, 'r+')
fcntl.flock(f, fcntl.LOCK_EX)
r, w = os.pipe()
c = child(lambda: (os.close(w), os.read(r, 1), 0)[2])
f.close()
check(subprocess.run(['flock', '-n', p, 'true']).returncode == 1, 'a child keeps it')
os.close(w)
result(c)
check(subprocess.run(['flock', '-w', '20', p, 'true']).returncode == 0, 'until it ends')

# -- a file of .sop: as any other
p = os.path.join(sys.argv[3], '.sop/status')
for take in (lambda f: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB), lambda f: lock(f, RD)):
    for _ in range(3):
        a = os.open(p, os.O_RDONLY)
        take(a)
        os.close(a)
check(result(child(lambda: fcntl.flock(os.open(p, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB))) == 0, 'a lock of .sop/status goes with its close')

# -- a process goes on when its first thread has ended, and keeps its locks
p = new()
r, w = os.pipe()
go = os.pipe()
def leaderless():
    lock(os.open(p, os.O_RDONLY), RD)
    def second():
        while 'Z' != open('/proc/%d/stat' % os.getpid()).read().split(')')[-1].split()[0]:
            time.sleep(.01)
        os.write(w, b'x')
        os.read(go[0], 1)
        os._exit(0)
    threading.Thread(target=second).start()
    ctypes.CDLL(None).pthread_exit(None)
c = child(leaderless)
os.read(r, 1)
check(other(WR, path=p) == errno.EAGAIN, 'it has its lock still')
os.write(go[1], b'x')
check(result(c) == 0, 'it ends')
check(other(WR, path=p) == 0, 'and its lock with it')

# -- waits end by signals
p = new()
a = os.open(p, os.O_RDWR)
lock(a, WR)
fcntl.flock(a, fcntl.LOCK_EX)
for wait in (lambda f: fcntl.lockf(f, fcntl.LOCK_EX), lambda f: fcntl.flock(f, fcntl.LOCK_EX),
             lambda f: call(f, OFD_SETLKW, WR)):
    for sig in signal.SIGKILL, signal.SIGTERM:
        r, w = os.pipe()
        def waiter():
            f = os.open(p, os.O_RDWR)
            os.write(w, b'x')
            wait(f)
        c = child(waiter)
        os.read(r, 1)
        time.sleep(.1)
        os.kill(c, sig)
        check(result(c) == -sig, 'a waiter dies of signal %d' % sig)
    def interrupted():
        class Stop(Exception):
            pass
        def stop(*x):
            raise Stop()
        signal.signal(signal.SIGALRM, stop)
        f = os.open(p, os.O_RDWR)
        try:
            signal.setitimer(signal.ITIMER_REAL, .2)
            wait(f)
            return 1
        except Stop:
            return 0
    check(result(child(interrupted)) == 0, 'EINTR')
check(setlk(a, UN) == 0, 'unlock')
fcntl.flock(a, fcntl.LOCK_UN)
check(other(WR, path=p) == 0, 'nobody has been left waiting')
print('OK')
PY
for session in close write; do
	mount_volume "session=$session"
	mkdir "$MNT/$session"
	timeout 200 python3 "$WORK/locks.py" "$MNT/$session" "$SOPCTL" "$MNT" >"$WORK/out" 2>&1 || {
		cat "$WORK/out"
		fail "session=$session: see above"
	}
	grep -q '^OK$' "$WORK/out" || fail "it did not come to its end"
	unmount_volume
done
check_volume
