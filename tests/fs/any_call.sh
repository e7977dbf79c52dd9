#!/bin/bash
# Any call, by several at once, on anything there is: files, directories, typed stores, .sop, ranges, mirrors of
# transactions and the files that hold them. Most fail; none may end the daemon, and the volume stays whole. What is
# called follows from the seed, what becomes of it does not.
. "$(dirname "$0")/functions.sh"
requires python3
requires_root
new_volume 2 1+1
mount_volume
cat >"$WORK/calls.py" <<'PY'
import ctypes, errno, fcntl, mmap, os, random, stat, sys
mnt, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.chdir(mnt)
R = random.Random(seed)
pick = R.choice
libc = ctypes.CDLL(None, use_errno=True)
TYPED = ('ints', 'sop.key', b'int64'), ('dups', 'sop.unique', b'0'), ('people', 'sop.key', b'json:age')
IN_ALL = ['.', 'a', 'a/b'] + [t[0] for t in TYPED]
DIRS = IN_ALL + ['.sop', '.sop/txn', '.sop/commit', '.sop/range', '.sop/range/a', '.sop/range/a/..z', '.sop/range/..z',
                 '.sop/range/ints/3..9', '.sop/range/dups/a..z', '.sop/range/people/desc:..z', '.sop/range/desc:..z/a']
DIRS += ['.sop/txn/%s/%s' % (t, d) for t in 'tu' for d in IN_ALL]
NAMES = ['f', 'g', 'b', 'x', 'x..y', 'p%q', '5', '7', 'k', 'k#2', 'n' * 250, '{"age":7}', '{"age":7,"z":1}', '.sop', 't', 'u',
         't.hold', 'commit', 'range', 'txn', 'status', 'events', 'a..z', 'desc:..z', '%zz..', '%00..%ff']
HOW = [0, 0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_CREAT | os.O_TRUNC, os.O_DIRECTORY,
       os.O_TMPFILE, os.O_PATH, os.O_DIRECT, os.O_CREAT | os.O_SYNC]
ATTRS = ['user.a', 'user.' + 'x' * 100, 'trusted.t', 'security.capability', 'system.posix_acl_access',
         'system.posix_acl_default', 'sop.session', 'sop.key', 'sop.layout', 'sop.version', 'sop.note', 'bad.x', 'user.']
NOBODY = b'\xff' * 4
ACL = b'\2\0\0\0\1\0\7\0' + NOBODY + b'\2\0\6\0\5\0\0\0\4\0\5\0' + NOBODY + b'\x10\0\7\0' + NOBODY + b'\x20\0\4\0' + NOBODY
VALUES = [b'', b'x', b'write', b'close', b'v' * 5000, ACL]
FLAGS = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR]
OFFS = [0, 1, 5, 4096, 100000, 1 << 40, (1 << 63) - 1]
fds = []
def path():
    return pick(DIRS) + ('/' + pick(NAMES) if R.random() < .9 else '')
def fd():
    return pick(fds) if fds else -1
def add(f):
    fds.append(f)
    if len(fds) > 40: os.close(fds.pop(R.randrange(len(fds))))
def c(fn, *args):
    if fn(*args): raise OSError(ctypes.get_errno(), 'call')
def first_of(d):
    with os.scandir(d) as entries:
        for _, _e in zip(range(50), entries): pass
def mapped(f):
    m = mmap.mmap(f, 4096, pick([mmap.MAP_SHARED, mmap.MAP_PRIVATE]))
    m.flush(); m.close()
CALLS = [
    lambda: add(os.open(path(), pick(FLAGS) | pick(HOW) | os.O_NONBLOCK | os.O_NOCTTY, 0o644)),
    lambda: add(os.open(path(), pick(FLAGS) | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY, 0o644)),
    lambda: add(os.open(pick(DIRS), os.O_RDONLY | os.O_DIRECTORY)),
    lambda: add(os.open('/proc/self/fd/%d' % fd(), pick(FLAGS) | pick(HOW[:6]) | os.O_NONBLOCK)),
    lambda: os.close(fds.pop(R.randrange(len(fds)))) if fds else None,
    lambda: os.mkdir(path()), lambda: os.rmdir(path()), lambda: os.unlink(path()),
    lambda: c(libc.renameat2, -100, path().encode(), -100, path().encode(), pick([0, 0, 1, 2, 4])),
    lambda: os.link(path(), path(), follow_symlinks=False),
    lambda: c(libc.linkat, -100, b'/proc/self/fd/%d' % fd(), -100, path().encode(), 0x400),
    lambda: os.symlink('f', path()),
    lambda: os.mknod(path(), pick([stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR]) | 0o600),
    lambda: first_of(pick(DIRS)), lambda: os.listdir(pick(DIRS)),
    lambda: os.stat(path()), lambda: os.lstat(path()), lambda: os.fstat(fd()), lambda: os.statvfs(path()),
    lambda: os.fstatvfs(fd()), lambda: os.utime(path()),
    lambda: os.chmod(path(), pick([0o600, 0o755, 0o4755, 0o2755, 0o1777])), lambda: os.fchmod(fd(), 0o644),
    lambda: os.chown(path(), 0, pick([0, 5]), follow_symlinks=False),
    lambda: os.truncate(path(), pick(OFFS[:5])), lambda: os.ftruncate(fd(), pick(OFFS[:5])),
    lambda: os.setxattr(pick([path(), fd()]), pick(ATTRS), pick(VALUES), pick([0, 0, 1, 2])),
    lambda: os.getxattr(pick([path(), fd()]), pick(ATTRS)), lambda: os.listxattr(pick([path(), fd()])),
    lambda: os.removexattr(pick([path(), fd()]), pick(ATTRS)),
    lambda: os.pread(fd(), pick([1, 10, 70000]), pick(OFFS[:6])),
    lambda: os.pwrite(fd(), pick([b'commit', b'commit\n', b'x' * 9, b'y' * 70000]), pick(OFFS[:5])),
    lambda: os.lseek(fd(), pick(OFFS), pick([os.SEEK_SET, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE])),
    lambda: os.copy_file_range(fd(), fd(), pick([1, 5000, 1 << 20]), pick(OFFS[:4]), pick(OFFS[:4])),
    lambda: os.posix_fallocate(fd(), pick(OFFS[:4]), 100), lambda: os.fsync(fd()), lambda: mapped(fd()),
    lambda: fcntl.flock(fd(), pick([fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN]) | fcntl.LOCK_NB),
    lambda: fcntl.lockf(fd(), pick([fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN]) | fcntl.LOCK_NB, R.randrange(100)),
    lambda: os.mkdir('.sop/txn/' + pick('tu')), lambda: os.rmdir('.sop/txn/' + pick('tu')),
    lambda: add(os.open('.sop/txn/%s.hold' % pick('tu'), os.O_RDWR | os.O_CREAT)),
    lambda: os.rename('.sop/txn/' + pick('tu'), '.sop/commit/x'),
]
def attempt(fn, *args):
    try:
        fn(*args)
        return 1
    except (ValueError, OverflowError):
        return 0
    except OSError as e:
        if e.errno in (errno.ENOTCONN, errno.ECONNABORTED): sys.exit('FAILED: the daemon has ended')
        return 0
done = 0
for i in range(count):
    if i % 1000 == 0:
        for d in IN_ALL[1:]: attempt(os.mkdir, d)
        for t in TYPED: attempt(os.setxattr, *t)
    done += attempt(pick(CALLS))
assert done > count / 20, done
PY
callers=()
for i in 1 2 3; do
	python3 "$WORK/calls.py" "$MNT" "$((SEED + i))" "${LONG:+10}3000" &
	callers+=($!)
done
for p in "${callers[@]}"; do
	wait "$p" || fail "see above"
done
assert_eq "$(daemon_of "$MNT")" "$PID" "the daemon"
unmount_volume
check_volume
