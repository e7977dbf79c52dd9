#!/bin/bash
# The files of .sop, and the one that holds a transaction, whatever is asked of them that other files are asked:
# no call ends the daemon, and none leaves anything behind.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
mount_volume
echo data >"$MNT/file"
cat >"$WORK/calls.py" <<'PY'
import errno, fcntl, os, sys
mnt = sys.argv[1]
os.chdir(mnt)
file = os.open('file', os.O_RDWR)
def outcome(fn, *args):
    try:
        return fn(*args)
    except OSError as e:
        return errno.errorcode[e.errno]
    finally:
        os.stat('.sop')
def expect(what, got, *want):
    if got not in want:
        sys.exit(f'FAILED: {what}: {got}, not {want}')
def check(name, fd):
    for whence in os.SEEK_DATA, os.SEEK_HOLE:
        for off in 0, 5, 1 << 40:
            expect(f'{name}: lseek', outcome(os.lseek, fd, off, whence), 'EINVAL', 'EPERM', 'ESPIPE')
    outcome(os.copy_file_range, fd, file, 10, 0, 0)
    expect(f'{name}: copied to', outcome(os.copy_file_range, file, fd, 4, 0, 0), 'EPERM', 'EBADF')
    expect(f'{name}: ftruncate', outcome(os.ftruncate, fd, 0), 'EPERM', 'EINVAL')
    expect(f'{name}: fallocate', outcome(os.posix_fallocate, fd, 0, 10), 'EPERM', 'EBADF')
    expect(f'{name}: fchmod', outcome(os.fchmod, fd, 0o777), 'EPERM')
    expect(f'{name}: setxattr', outcome(os.setxattr, fd, 'user.a', b'b'), 'EPERM', 'EACCES')
    expect(f'{name}: again for writing', outcome(os.open, f'/proc/self/fd/{fd}', os.O_RDWR), 'EPERM', 'EACCES')
    for call in os.fsync, os.fdatasync, os.fstat, os.fstatvfs, os.listxattr, lambda fd: os.getxattr(fd, 'user.a'):
        outcome(call, fd)
for name in 'status', 'status.json', 'metrics', 'events':
    # Locks go with the last descriptor.
    for lock, kind in (fcntl.flock, fcntl.LOCK_EX), (fcntl.lockf, fcntl.LOCK_SH):
        for i in range(3):
            fd = os.open('.sop/' + name, os.O_RDONLY | os.O_NONBLOCK)
            expect(f'{name}: {lock.__name__}', outcome(lock, fd, kind | fcntl.LOCK_NB), None)
            other = os.open('.sop/' + name, os.O_RDONLY | os.O_NONBLOCK)
            if lock is fcntl.flock:
                expect(f'{name}: locked twice', outcome(lock, other, kind | fcntl.LOCK_NB), 'EAGAIN')
            os.close(other)
            os.close(fd)
    fd = os.open('.sop/' + name, os.O_RDONLY | os.O_NONBLOCK)
    check(name, fd)
    os.close(fd)
hold = os.open('.sop/txn/t.hold', os.O_RDWR | os.O_CREAT | os.O_EXCL)
check('hold', hold)
expect('hold: flock', outcome(fcntl.flock, hold, fcntl.LOCK_EX), 'EPERM')
os.mkdir('.sop/txn/t/made')
os.write(hold, b'commit')
check('hold, committed', hold)
os.close(hold)
os.stat('made')
PY
python3 "$WORK/calls.py" "$MNT" || fail "see above"
assert_eq "$(daemon_of "$MNT")" "$PID" "the daemon"
unmount_volume
check_volume
