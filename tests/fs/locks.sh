#!/bin/bash
# flock and fcntl locks, between descriptors and processes, waited for and interrupted; a lock moves a
# session to the newest version, giving it back commits: programs that lock and re-read work.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
mount_volume
cat >"$WORK/locks.py" <<'PY'
import ctypes, errno, fcntl, os, signal, struct, subprocess, sys, time
os.chdir(sys.argv[1])
def check(c, what):
    if not c:
        raise SystemExit('FAILED: ' + what)
def busy(call):
    try:
        call()
        return False
    except OSError as e:
        check(e.errno in (errno.EAGAIN, errno.EACCES), str(e))
        return True
me = sys.executable
open('l', 'w').write('0')
a, b = os.open('l', os.O_RDWR), os.open('l', os.O_RDWR)
fcntl.flock(a, fcntl.LOCK_EX)
check(busy(lambda: fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)), 'flock excludes')
fcntl.flock(a, fcntl.LOCK_SH)
fcntl.flock(b, fcntl.LOCK_SH | fcntl.LOCK_NB)
os.close(a)
fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.close(b)
# A waiter is let in by a close; another is interrupted.
a = os.open('l', os.O_RDWR)
fcntl.flock(a, fcntl.LOCK_EX)
p = subprocess.Popen([me, '-c', 'import fcntl,os\nf=os.open("l",os.O_RDWR)\nprint("w",flush=True)\nfcntl.flock(f,2)\nprint("got",flush=True)'], stdout=subprocess.PIPE)
check(p.stdout.readline() == b'w\n', 'waiter')
os.close(a)
check(p.stdout.readline() == b'got\n', 'let in')
p.wait()
a = os.open('l', os.O_RDWR)
fcntl.lockf(a, fcntl.LOCK_EX, 10, 0)
p = subprocess.Popen([me, '-c', '''
import fcntl, os, signal
class T(Exception): pass
def h(*x): raise T()
signal.signal(signal.SIGALRM, h)
f = os.open("l", os.O_RDWR)
fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
signal.setitimer(signal.ITIMER_REAL, .3)
try:
    fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
    print("granted")
except T:
    print("interrupted")
'''], stdout=subprocess.PIPE)
check(p.stdout.read() == b'interrupted\n', 'interrupted')
p.wait()
fcntl.lockf(a, fcntl.LOCK_UN, 10, 0)
os.close(a)
# Lock, re-read, write, unlock: a counter without a lost update, the file open all the time.
count = '''
import fcntl, os, sys
f = os.open("counter", os.O_RDWR)
for i in range(%d):
    fcntl.%s(f, fcntl.LOCK_EX)
    n = int(os.pread(f, 20, 0) or b"0")
    os.pwrite(f, b"%%d" %% (n + 1), 0)
    fcntl.%s(f, fcntl.LOCK_UN)
os.close(f)
'''
for kind in 'lockf', 'flock':
    open('counter', 'w').write('0')
    ps = [subprocess.Popen([me, '-c', count % (60, kind, kind)]) for _ in range(3)]
    for p in ps:
        check(p.wait() == 0, 'counter ' + kind)
    check(open('counter').read() == '180', kind + ' loses updates: ' + open('counter').read())
# The lock of a process that shares a descriptor, and ends or closes it while who opened it has it still.
for ends in lambda f: os._exit(0), lambda f: os.close(f) or os._exit(0):
    open('child', 'w').write('old')
    f = os.open('child', os.O_RDWR)
    pid = os.fork()
    if not pid:
        fcntl.lockf(f, fcntl.LOCK_EX)
        os.pwrite(f, b'new', 0)
        ends(f)
    check(os.waitpid(pid, 0)[1] == 0, 'child')
    check(open('child').read() == 'new', 'written under the lock of a child')
    os.close(f)
# A description that only a mapping has still: its lock goes with that, and what was written by it is there.
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
open('mapped', 'w').write('old')
f = os.open('mapped', os.O_RDWR)
fcntl.flock(f, fcntl.LOCK_EX)
m = libc.mmap(None, 4096, 3, 1, f, 0)
check(m != 2 ** 64 - 1, 'mmap')
os.close(f)
p = subprocess.Popen([me, '-c', 'import fcntl,os\nf=os.open("mapped",os.O_RDWR)\nprint("w",flush=True)\nfcntl.flock(f,2)\nprint(os.read(f,3).decode(),flush=True)'], stdout=subprocess.PIPE)
check(p.stdout.readline() == b'w\n', 'waiter')
time.sleep(.3)
ctypes.memmove(m, b'new', 3)
check(libc.munmap(m, 4096) == 0, 'munmap')
check(p.stdout.readline() == b'new\n', 'written in a mapping under a lock')
p.wait()
try:
    import sqlite3
    db = sqlite3.connect('db', timeout=60)
    db.execute('create table t (x)')
    db.commit()
    job = 'import sqlite3\nd=sqlite3.connect("db",timeout=60)\nfor i in range(15):\n d.execute("begin immediate"); d.execute("insert into t values(1)"); d.commit()'
    ps = [subprocess.Popen([me, '-c', job]) for _ in range(3)]
    for p in ps:
        check(p.wait() == 0, 'sqlite')
    check(db.execute('select count(*) from t').fetchone()[0] == 45, 'sqlite rows')
    check(db.execute('pragma integrity_check').fetchone()[0] == 'ok', 'sqlite integrity')
except ImportError:
    pass
print('OK')
PY
timeout 100 python3 "$WORK/locks.py" "$MNT" | grep -q OK || fail "see above"
unmount_volume
check_volume
