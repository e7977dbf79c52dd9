#!/bin/bash
# copy_file_range shares what is stored: no space is taken, holes stay holes, both files live on when the
# other goes or changes, and what a session holds is copied as it is. FICLONE is not for FUSE: cp
# --reflink=always says so, auto copies by reference all the same.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
mount_volume commit=100ms

used() { # bytes of the disks, when all is given back that can be
	du -s -B1 "${DISKS[0]}/segments" | cut -f1
}

head -c 24M /dev/urandom >"$WORK/a"
cp "$WORK/a" "$MNT/a"
before=$(used)
cp --reflink=auto "$MNT/a" "$MNT/b"
cmp "$WORK/a" "$MNT/b" || fail "the copy differs"
assert_eq "$(stat -c %b "$MNT/b")" "$(stat -c %b "$MNT/a")" "blocks"
sync "$MNT/b"
after=$(used)
[ $((after - before)) -lt 3000000 ] || fail "a copy takes $((after - before)) bytes"
expect_exit 1 cp --reflink=always "$MNT/a" "$MNT/c"
expect_says "not supported"
rm -f "$MNT/c"

# Whoever changes, the other does not.
dd if=/dev/zero of="$MNT/a" bs=1M count=4 seek=3 conv=notrunc status=none
cmp "$WORK/a" "$MNT/b" || fail "the copy follows its source"
cp "$MNT/a" "$WORK/a2"
truncate -s 5M "$MNT/b"
cmp "$WORK/a2" "$MNT/a" || fail "the source follows its copy"
rm "$MNT/a"
head -c 5M "$WORK/a" | cmp - "$MNT/b" || fail "the copy went with its source"

# Holes, sessions, bounds.
python3 - "$MNT" <<'PY'
import errno, os, sys
os.chdir(sys.argv[1])
def check(c, what):
    if not c:
        raise SystemExit('FAILED: ' + what)
def err(call):
    try:
        call()
        return 0
    except OSError as e:
        return e.errno
def copy(a, b, n, x, y):
    done = 0
    while done < n:
        k = os.copy_file_range(a, b, n - done, x + done, y + done)
        if not k:
            break
        done += k
    return done
s = os.open('s', os.O_CREAT | os.O_RDWR)
os.ftruncate(s, 64 << 20)
os.pwrite(s, b'x' * 100000, 32 << 20)
d = os.open('d', os.O_CREAT | os.O_RDWR)
os.pwrite(d, b'y' * 300000, 0)
check(copy(s, d, 64 << 20, 0, 0) == 64 << 20, 'a session not committed is copied')
check(os.lseek(d, 0, os.SEEK_DATA) == 32 << 20, 'holes stay holes')
check(os.fstat(d).st_blocks < 1000, 'and take no space')
check(copy(s, d, 5, 64 << 20, 0) == 0, 'at the end there is nothing')
os.close(s)
os.close(d)
check(os.stat('d').st_size == 64 << 20 and os.stat('d').st_blocks < 1000, 'committed')
with open('d', 'rb') as f:
    f.seek((32 << 20) - 2)
    check(f.read(5) == b'\0\0xxx', 'its bytes')
r = os.open('b', os.O_RDONLY)
w = os.open('e', os.O_CREAT | os.O_RDWR)
check(copy(r, w, 1 << 20, 1 << 20, 5) == 1 << 20, 'anywhere')
a = os.open('e', os.O_WRONLY | os.O_APPEND)
check(err(lambda: os.copy_file_range(r, a, 5, 0, 0)) == errno.EBADF, 'not to an appender')
check(err(lambda: os.copy_file_range(w, r, 5, 0, 0)) == errno.EBADF, 'not to a reader')
check(err(lambda: os.copy_file_range(w, w, 100, 0, 50)) == errno.EINVAL, 'no overlap')
check(err(lambda: os.copy_file_range(r, os.open('.', os.O_RDONLY), 5, 0, 0)) in (errno.EISDIR, errno.EBADF), 'no directory')
os.close(a)
# The source goes before the copy is committed.
os.unlink('b')
os.close(r)
os.close(w)
PY
dd if="$WORK/a" bs=1M skip=1 count=1 status=none | cmp - <(tail -c +6 "$MNT/e") || fail "the piece differs"
rm "$MNT"/*
unmount_volume
check_volume
mount_volume
unmount_volume
mount_volume
[ "$(used)" -lt 3000000 ] || fail "$(used) bytes stay when all is gone"
unmount_volume

mount_volume session=write
cp "$WORK/a" "$MNT/a"
cp "$MNT/a" "$MNT/b"
dd if=/dev/zero of="$MNT/a" bs=1M count=4 seek=3 conv=notrunc status=none
cmp "$WORK/a" "$MNT/b" || fail "session=write: the copy differs"
cmp "$WORK/a2" "$MNT/a" || fail "session=write: the source differs"
kill_daemon
mount_volume
cmp "$WORK/a" "$MNT/b" || fail "session=write: the copy differs after a crash"
unmount_volume
check_volume
