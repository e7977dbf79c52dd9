#!/bin/bash
# Two mounts of one shared volume: what one has closed the other sees, at once, whatever its kernel has
# cached; who reads keeps his version; names are made once; one that is killed or stopped holds nobody up.
. "$(dirname "$0")/functions.sh"
# shellcheck source=tests/fs/disks.sh
. "$(dirname "$0")/disks.sh"
requires setfattr getfattr python3

new_volume 4 2+1 --shared -L "$NAME"
A=$MNT
B=$WORK/b
mkdir "$B"
MOUNTS+=("$B")

mount_b() {
	"$SOPFS" "$SOURCE" "$B" -o "log=$WORK/b.log"
}

mount_volume
mount_b

# ---- what one commits the other sees

echo one >"$A/f"
assert_eq "$(cat "$B/f")" one "made on A, read on B"
echo two >"$B/f"
assert_eq "$(cat "$A/f")" two "rewritten on B, read on A"
for i in $(seq 20); do
	echo "$i" >"$A/f"
	assert_eq "$(cat "$B/f")" "$i" "rewritten on A, read on B"
	echo "$i" >>"$B/f"
	assert_eq "$(cat "$A/f")" "$i"$'\n'"$i" "appended on B, read on A"
done

# Names that were not there, and are; that were there, and are not; and listings.
for i in $(seq 10); do
	[ ! -e "$B/n$i" ] || fail "n$i is there too early"
	: "$(ls "$B")"
	echo x >"$A/n$i"
	[ -e "$B/n$i" ] || fail "n$i is not there"
	assert_eq "$(find "$B" -maxdepth 1 -name "n$i" | wc -l)" 1 "the listing on B"
	mv "$B/n$i" "$B/m$i"
	[ ! -e "$A/n$i" ] || fail "n$i is still there"
	assert_eq "$(cat "$A/m$i")" x "renamed on B"
	rm "$A/m$i"
	[ ! -e "$B/m$i" ] || fail "m$i is still there"
	assert_eq "$(find "$B" -maxdepth 1 -name "[nm]$i" | wc -l)" 0 "the listing on B"
done

mkdir -p "$A/d/e"
echo deep >"$B/d/e/f"
assert_eq "$(cat "$A/d/e/f")" deep "in a directory of the other"
rm -r "$A/d"
[ ! -e "$B/d" ] || fail "a directory is still there"

chmod 600 "$A/f"
assert_eq "$(stat -c %a "$B/f")" 600 "mode"
chmod 644 "$B/f"
assert_eq "$(stat -c %a "$A/f")" 644 "mode"
setfattr -n user.x -v 1 "$A/f"
assert_eq "$(getfattr --only-values -n user.x "$B/f")" 1 "attribute"
ln -s f "$B/link"
assert_eq "$(readlink "$A/link")" f "symbolic link"
ln "$A/f" "$A/hard"
assert_eq "$(stat -c %h "$B/f")" 2 "links"
truncate -s 1 "$B/hard"
assert_eq "$(stat -c %s "$A/f")" 1 "size by another name"

head -c 3000000 /dev/urandom >"$WORK/big"
cp "$WORK/big" "$A/big"
cmp "$WORK/big" "$B/big" || fail "a large file"
cp "$B/big" "$B/copy"
cmp "$WORK/big" "$A/copy" || fail "a copy"

# ---- who reads keeps his version

echo old >"$A/f"
exec 5<"$B/f"
echo new >"$A/f"
assert_eq "$(cat <&5)" old "opened before it was rewritten"
assert_eq "$(cat "$B/f")" new "opened after"
exec 5<&-
exec 5<"$B/big"
rm "$A/big"
cmp "$WORK/big" - <&5 || fail "opened before it was removed"
assert_eq "$(stat -Lc %s "/proc/$$/fd/5")" 3000000 "its size"
exec 5<&-
[ ! -e "$B/big" ] || fail "it is still there"
setfattr -n user.whose -v mine "$A/f"
exec 5<"$A/f"
mv "$B/f" "$B/moved"
echo theirs >"$B/f"
setfattr -n user.whose -v theirs "$B/f"
! getfattr --only-values -n user.whose "/proc/$$/fd/5" 2>/dev/null | grep theirs ||
	fail "an attribute of the file that has the name now"
exec 5<&-
mv "$B/moved" "$B/f"

# ---- a name is made once

mkdir "$A/names"
claim() { # MOUNT: the names that were made there
	local i
	for i in $(seq 40); do
		(set -C && : >"$1/names/$i") 2>/dev/null && echo "$i"
		mkdir "$1/names/d$i" 2>/dev/null && echo "d$i"
	done
	return 0
}
claim "$A" >"$WORK/made.a" &
pid=$!
claim "$B" >"$WORK/made.b"
wait "$pid"
assert_eq "$(cat "$WORK/made.a" "$WORK/made.b" | LC_ALL=C sort)" \
	"$(find "$A/names" -mindepth 1 -printf '%P\n' | LC_ALL=C sort)" "each is made by one of the two"
assert_eq "$(find "$B/names" -mindepth 1 | wc -l)" 80 "all of them"

# ---- a name that another mounter has given to another file: what is open here by it changes nothing there, and
# its user is told

mkdir "$A/close" "$A/write"
setfattr -n sop.session -v write "$A/write"
cat >"$WORK/lost.py" <<'PY'
import ctypes, errno, os, sys
a, b = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def fails(what, code, fn):
    try: fn()
    except OSError as e:
        if e.errno == code: return
        raise SystemExit('FAILED: %s: %s' % (what, e))
    raise SystemExit('FAILED: %s is answered as done' % what)
def linkat(fd, to):
    if libc.linkat(-100, b'/proc/self/fd/%d' % fd, -100, to.encode(), 0x400): raise OSError(ctypes.get_errno(), 'link')
def replaced(name): os.unlink(b + name)
def renamed(name): os.rename(b + name, b + name + '2')
def linked(name): os.link(b + name, b + name + '2'); os.unlink(b + name)
# Of a directory with session=write each fails; a session's own changes do at their commit.
changes = {
    'write': lambda fd, name: os.pwrite(fd, b'W', 0),
    'append': lambda fd, name: os.write(fd, b'W'),
    'fchmod': lambda fd, name: os.fchmod(fd, 0o700),
    'fchown': lambda fd, name: os.fchown(fd, 5, 5),
    'futimens': lambda fd, name: os.utime(fd, (1, 1)),
    'link': lambda fd, name: linkat(fd, a + name + 'L'),
}
def state(name):
    st = os.stat(b + name)
    return open(b + name).read(), st.st_mode, st.st_uid, st.st_mtime_ns, st.st_nlink, os.listxattr(b + name)
for way in '/close/', '/write/':
    for how in replaced, renamed, linked:
        for what, change in changes.items():
            name = '%s%s-%s' % (way, how.__name__, what)
            with open(a + name, 'w') as f: f.write('mine')
            fd = os.open(a + name, os.O_WRONLY | (os.O_APPEND if what == 'append' else 0))
            os.pwrite(fd, b'M', 0); os.fsync(fd)
            how(name)
            with open(b + name, 'w') as f: f.write('theirs')
            before = state(name)
            fails(name, errno.ENOENT if what == 'link' else errno.ESTALE, lambda: change(fd, name))
            try: os.close(fd)
            except OSError: pass
            if state(name) != before: raise SystemExit('FAILED: %s: %r has become %r' % (name, before, state(name)))
# A session that was under way, and has looked since: its commit tells.
for how in replaced, renamed, linked:
    name = '/close/%s-session' % how.__name__
    with open(a + name, 'w') as f: f.write('mine')
    fd = os.open(a + name, os.O_RDWR); os.pwrite(fd, b'M', 0)
    how(name)
    with open(b + name, 'w') as f: f.write('theirs')
    try: os.fstat(fd)
    except OSError as e:
        if e.errno != errno.ESTALE: raise
    fails(name, errno.ENOENT, lambda: os.fsync(fd))
    os.close(fd)
    if state(name)[0] != 'theirs': raise SystemExit('FAILED: %s: %r' % (name, state(name)))
PY
python3 "$WORK/lost.py" "$A" "$B" || fail "see above"
rm -r "$A/close" "$A/write"

# ---- session=write: a look at an open file tells what the other has written, and then it is read

mkdir "$A/write"
setfattr -n sop.session -v write "$A/write"
cat >"$WORK/written.py" <<'PY'
import ctypes, os, sys
a, b = sys.argv[1:3]
libc = ctypes.CDLL(None, use_errno=True)
def size_with_birth(fd): # what ls and stat ask for by another request than fstat's
    buf = ctypes.create_string_buffer(256)
    check(libc.statx(fd, b'', 0x1000, 0xfff, buf) == 0, 'statx')
    return int.from_bytes(buf.raw[40:48], sys.byteorder)
def check(c, what):
    if not c: raise SystemExit('FAILED: ' + what)
mine = os.open(a + '/write/f', os.O_RDWR | os.O_CREAT)
os.pwrite(mine, b'a' * 100, 0)
theirs = os.open(b + '/write/f', os.O_RDWR)
for i in range(1, 50):
    check(os.pread(mine, 9999, 0) == os.pread(theirs, 9999, 0), 'before')
    os.pwrite(theirs, b'%04d' % i, 0)
    os.pwrite(theirs, b'b' * 100, i * 100)
    check(os.fstat(mine).st_size == i * 100 + 100, 'its size')
    got = os.pread(mine, 9999, 0)
    check(got[0:4] == b'%04d' % i and got[i * 100:] == b'b' * 100, 'round %d: %r' % (i, got))
    # One's own write passes over what the other has written: a look tells of it all the same.
    os.pwrite(theirs, b'X', 50)
    os.pwrite(mine, b'Y', 60)
    check(os.fstat(mine).st_size == i * 100 + 100, 'its size after a write')
    got = os.pread(mine, 9999, 0)
    check(got[50:51] == b'X' and got[60:61] == b'Y', 'round %d, after a write: %r' % (i, got))
    os.pwrite(theirs, b'Z', 50)
    again = os.open(a + '/write/f', os.O_RDONLY)
    got = os.pread(again, 9999, 0)
    check(got[50:51] == b'Z' and got[60:61] == b'Y', 'round %d, opened again: %r' % (i, got))
    os.close(again)
    os.pwrite(mine, b'z', 70)
    check(size_with_birth(theirs) == i * 100 + 100, 'its size with its birth')
    got = os.pread(theirs, 9999, 0)
    check(got[70:71] == b'z', 'round %d, after statx: %r' % (i, got))
    os.pwrite(mine, b'c' * 10, i * 100 + 100)
    check(size_with_birth(theirs) == i * 100 + 110, 'its new size with its birth')
    got = os.pread(theirs, 9999, 0)
    check(got[i * 100 + 100:] == b'c' * 10, 'round %d, at the end after statx: %r' % (i, got))
    os.ftruncate(mine, i * 100 + 100)
    os.fstat(theirs)
# What a look has told of is there at once in a mapping too, whose faults ask nobody; nor does a seek read.
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
for size in 12289, 20000, 24577:
    os.pwrite(theirs, b'd' * size, 0)
    check(os.fstat(mine).st_size == size, 'its size before it is mapped')
    at = libc.mmap(None, size, 1, 1, mine, 0)
    check(ctypes.string_at(at, size) == b'd' * size, '%d bytes of a mapping' % size)
    os.pwrite(theirs, b'e' * 5000, size)
    check(os.lseek(mine, 0, os.SEEK_END) == size + 5000, 'its end, sought')
    os.ftruncate(theirs, size)
    check(os.fstat(mine).st_size == size and os.lseek(mine, 0, os.SEEK_END) == size, 'its end, nearer')
# So does what was opened as a session, and has become as these by a database's file beside it.
with open(a + '/db', 'w') as f: f.write('old' * 1000)
mine = os.open(a + '/db', os.O_RDWR)
beside = os.open(a + '/db-wal', os.O_RDWR | os.O_CREAT)
os.pread(mine, 9999, 0)
theirs = os.open(b + '/db', os.O_RDWR)
for i in range(10):
    os.pwrite(theirs, b'%03d' % i * (1000 + i * 100), 0)
    os.fsync(theirs)
    check(os.fstat(mine).st_size == 3000 + i * 300, 'size of a database')
    check(os.pread(mine, 9999, 0) == b'%03d' % i * (1000 + i * 100), 'round %d of a database' % i)
    os.pwrite(theirs, b'X', 50)
    os.fsync(theirs)
    os.pwrite(mine, b'Y', 60)
    os.fstat(mine)
    got = os.pread(mine, 9999, 0)
    check(got[50:51] == b'X' and got[60:61] == b'Y', 'round %d of a database, after a write' % i)
PY
python3 "$WORK/written.py" "$A" "$B" || fail "see above"
rm -r "$A/write" "$A/db" "$A/db-wal"

# ---- what a directory hands down to what is made in it is what the other has set last

mkdir "$A/handed" "$A/handed/below"
# Open, so that their kernels and daemons remember them.
exec 5<"$A/handed" 6<"$B/handed" 7<"$A/handed/below" 8<"$B/handed/below"
echo x | tee "$A/handed/a" "$A/handed/below/a" "$B/handed/b" >"$B/handed/below/b"
cat >"$WORK/handed.py" <<'PY'
import os, sys
a, b = sys.argv[1:]
def seen_at_once(here, there, name):
    fd = os.open(here + name, os.O_CREAT | os.O_WRONLY)
    os.write(fd, b'written')
    seen = os.path.exists(there + name) and os.path.getsize(there + name) == 7
    os.close(fd)
    return seen
for dir in '/handed/', '/handed/below/':
    os.setxattr(b + '/handed', 'sop.session', b'write')
    if not seen_at_once(a, b, dir + 'write'): raise SystemExit('FAILED: %s: session=write, set by the other' % dir)
    os.setxattr(a + '/handed', 'sop.session', b'close')
    if seen_at_once(b, a, dir + 'close'): raise SystemExit('FAILED: %s: session=close, set by the other' % dir)
PY
python3 "$WORK/handed.py" "$A" "$B" || fail "see above"
if command -v setfacl >/dev/null; then
	setfacl -d -m u:1234:rwx "$B/handed"
	echo x >"$A/handed/listed"
	getfacl -cpn "$A/handed/listed" | grep -q '^user:1234:rwx' || fail "a default access list, set by the other"
	setfacl -k "$A/handed"
	echo x >"$B/handed/unlisted"
	! getfacl -cpn "$B/handed/unlisted" | grep -q 1234 || fail "a default access list, removed by the other"
fi
exec 5<&- 6<&- 7<&- 8<&-
rm -r "$A/handed"

# ---- the events of one mount have the commits of the other, all, in the one order

mkdir "$A/order"
cat "$A/.sop/events" >"$WORK/events" &
reader=$!
probed() { # it reads by now
	echo x >"$A/probe"
	[ -s "$WORK/events" ]
}
wait_until 60 probed || fail "no events"
for i in $(seq 10); do
	echo "$i" >"$A/order/a$i"
	echo "$i" >"$B/order/b$i"
	mv "$A/order/b$i" "$A/order/c$i"
done
made() { # the names made there, in the order of their events
	grep '"kind":"created"' "$WORK/events" | sed -n 's/.*"key":"\([abc][0-9]*\)".*/\1/p'
}
has_last() {
	made | grep -qx c10
}
wait_until 60 has_last || fail "the last event does not come"
kill "$reader"
wait "$reader" 2>/dev/null || true
assert_eq "$(made | paste -sd' ')" "$(for i in $(seq 10); do echo "a$i b$i c$i"; done | paste -sd' ')" "names in the order in which they were made"
sed -n 's/^{"lsn":\([0-9]*\),.*/\1/p' "$WORK/events" >"$WORK/lsn"
sort -n "$WORK/lsn" | cmp - "$WORK/lsn" || fail "LSNs go back"
rm -r "$A/order"

# ---- one that is stopped, or killed, holds nobody up

b=$(daemon_of "$B")
kill -STOP "$b"
for i in $(seq 5); do
	echo "while it sleeps $i" >"$A/f"
done
kill -CONT "$b"
assert_eq "$(cat "$B/f")" "while it sleeps 5" "after it has slept"
echo awake >"$B/f"
assert_eq "$(cat "$A/f")" awake "and goes on"

(while echo x >>"$B/torn"; do :; done) 2>/dev/null &
writer=$!
wait_until 30 test -s "$A/torn" || fail "the other does not write"
kill -9 "$b"
wait "$writer" || true
umount -l "$B" 2>/dev/null || fusermount3 -uqz "$B"
wait_gone "$b" 30 || fail "the daemon does not die"
echo alone >"$A/f"
assert_eq "$(cat "$A/f")" alone "the other was killed"
grep -qv '^x$' "$A/torn" && fail "a torn append"
mount_b
assert_eq "$(cat "$B/f")" alone "mounted again"
cmp "$A/torn" "$B/torn" || fail "they differ"

# ---- beside them, and after them

expect_exit 8 "$BUILD/fsck.sopfs" -y "${DISKS[@]}"
unmount_and_wait "$B"
echo last >"$A/f"
tree_list "$A" >"$WORK/tree"
unmount_volume
check_volume
mount_volume
tree_list "$A" >"$WORK/tree.after"
cmp "$WORK/tree" "$WORK/tree.after" || fail "the tree has changed"
assert_eq "$(cat "$A/f")" last "after all have left"
unmount_volume

# ---- one of one machine again, and shared once more; while it is mounted, neither

mount_volume
expect_exit 5 "$SOPCTL" set "$A" shared=off
expect_says 'is mounted at' 'unmount it'
unmount_volume
expect_exit 2 "$SOPCTL" set "$SOURCE" shared=perhaps
expect_exit 0 "$SOPCTL" set "${DISKS[0]}" shared=off
grep -q 'one machine at a time' "$WORK/out" || fail "$(cat "$WORK/out")"
mount_volume
expect_exit 32 "$SOPFS" "$SOURCE" "$B" -o "log=$WORK/b.log"
assert_eq "$(cat "$A/f")" last "of one machine"
echo own >"$A/own"
unmount_volume
check_volume
expect_exit 0 "$SOPCTL" set --json "$SOURCE" shared=on
assert_eq "$(cat "$WORK/out")" '{"shared":true,"changed":true,"replicas":3}' "set --json"
# A disk that cannot be written to is told of, and is told itself by who mounts it next.
[ ! -s "$WORK/err" ] || fail "all have been told: $(cat "$WORK/err")"
MOUNTS+=("${DISKS[2]}")
mount --bind "${DISKS[2]}" "${DISKS[2]}"
mount -o remount,bind,ro "${DISKS[2]}"
for to in off on; do
	expect_exit 0 "$SOPCTL" set "$SOURCE" "shared=$to"
	assert_eq "$(wc -l <"$WORK/err")" 1 "told of one"
	expect_says "d3 .${DISKS[2]}. could not be told: " 'Read-only file system; a mount or fsck.sopfs'
done
umount "${DISKS[2]}"
mount_volume
mount_b
assert_eq "$(cat "$B/own") $(cat "$B/f")" "own last" "shared again"
echo again >"$B/own"
assert_eq "$(cat "$A/own")" again "on the other"
unmount_and_wait "$B"
unmount_volume
check_volume

# ---- a folder on a file system that is not fit for it is refused, by who comes first and who comes to others

mkdir "$WORK/back" "$WORK/lies"
faulty_disk "$WORK/back" "$WORK/mode" "$WORK/lies"
rm -rf "$WORK"/d[1-4]
new_volume 2 1+1 --shared --stores "$WORK/d1,$WORK/d2,$WORK/lies"
SOURCE=$SOURCE:$WORK/lies
refused() { # MODE TEXT
	echo "$1" >"$WORK/mode"
	expect_exit 32 "$SOPFS" "$SOURCE" "$B" -o "log=$LOG"
	expect_says "$WORK/lies" "$2" 'sopfs-shared\(7\)'
	rm "$WORK/mode"
}
refused no-link 'no hard links'
refused no-lock 'two have one lock'
mount_volume
echo fit >"$A/f"
refused no-link 'no hard links'
refused no-lock 'two have one lock'
mount_b
assert_eq "$(cat "$B/f")" fit "a file system that is fit"
unmount_and_wait "$B"
unmount_volume
