#!/bin/bash
# sop.session of a directory: set, inherited, taken back, kept over a mount; and files that are open in both
# ways at once while it changes.
. "$(dirname "$0")/functions.sh"
requires python3 setfattr getfattr
new_volume 2 1+1
mount_volume
cd "$MNT"
mode() {
	getfattr --only-values -n sop.session "$1"
}
mkdir -p d/sub/deep other
assert_eq "$(mode .) $(mode d) $(mode d/sub/deep)" "close close close" "at first"
touch d/sub/deep/known
setfattr -n sop.session -v write d
assert_eq "$(mode .) $(mode d) $(mode d/sub/deep)" "close write write" "set and inherited"
setfattr -n sop.session -v close d/sub
assert_eq "$(mode d) $(mode d/sub) $(mode d/sub/deep)" "write close close" "set below"
setfattr -x sop.session d/sub
assert_eq "$(mode d/sub) $(mode d/sub/deep)" "write write" "inherited again"
mv d/sub other/
assert_eq "$(mode other/sub) $(mode other/sub/deep)" "close close" "moved elsewhere"
mv other/sub d/
assert_eq "$(mode d/sub/deep)" write "and back"
expect_exit 1 setfattr -n sop.session -v sometimes d
expect_exit 1 setfattr -n sop.session -v write d/sub/deep/known
expect_exit 1 setfattr -n sop.count -v 1 d
assert_eq "$(mode d)" write "after what was refused"
[ -z "$(getfattr d)" ] || fail "it is listed"
if [ "$(id -u)" = 0 ]; then
	chmod 777 d
	expect_exit 1 setpriv --reuid 65534 --clear-groups setfattr -n sop.session -v close d
	assert_eq "$(mode d)" write "set by somebody else"
fi
cd /
unmount_volume
mount_volume
cd "$MNT"
assert_eq "$(mode d/sub/deep) $(mode other)" "write close" "after a mount"
cat >"$WORK/mixed.py" <<'PY'
import errno, mmap, os, subprocess, sys
def rd(p):
    with open(p, 'rb') as f:
        return f.read()
def check(c, what):
    if not c:
        raise SystemExit('FAILED: ' + what)
def mode(m):
    os.setxattr('d', 'sop.session', m)
# Live where it is set, private where it is not.
for name, live in ('d/sub/deep/f', True), ('other/f', False):
    w = os.open(name, os.O_CREAT | os.O_WRONLY)
    os.write(w, b'abc')
    check((rd(name) == b'abc') == live, name)
    os.close(w)
mode(b'close')
open('d/f', 'wb').write(b'old' * 3000)
r = os.open('d/f', os.O_RDONLY)
m = mmap.mmap(r, 9000, prot=mmap.PROT_READ)
def snapshot(what):
    check(os.pread(r, 9999, 0) == b'old' * 3000 and m[:] == b'old' * 3000 and os.fstat(r).st_size == 9000, 'a reader, ' + what)
blind, dependent = os.open('d/f', os.O_WRONLY), os.open('d/f', os.O_RDWR)
os.pwrite(blind, b'B', 10)
os.pread(dependent, 1, 0)
os.pwrite(dependent, b'D', 20)
snapshot('before')
# From now on opened live: over a snapshot and two sessions.
mode(b'write')
a, b = os.open('d/f', os.O_RDWR), os.open('d/f', os.O_RDWR)
check(os.pread(b, 3, 0) == b'old', 'live')
os.pwrite(a, b'A', 0)
check(os.pread(b, 3, 0) == b'Ald' and rd('d/f')[:3] == b'Ald', 'two live ones see each other')
snapshot('when one was opened live')
check(rd('d/f')[10:11] == b'l', 'a session is private still')
os.close(blind)
check(os.pread(b, 11, 0) == b'Aldoldoldo'[:10] + b'B', 'what a session commits is seen by live ones: %r' % os.pread(b, 11, 0))
check(os.stat('d/f').st_size == 9000 and os.fstat(b).st_size == 9000, 'sizes')
try:
    os.close(dependent)
    check(False, 'a session that depends conflicts with live writes')
except OSError as e:
    check(e.errno == errno.EBUSY, str(e))
os.ftruncate(a, 5)
check(os.fstat(b).st_size == 5 and os.stat('d/f').st_size == 5 and os.pread(b, 99, 0) == b'Aldol', 'cut')
os.truncate('d/f', 4)
check(os.fstat(b).st_size == 4 and rd('d/f') == b'Aldo', 'cut by path')
snapshot('after live changes')
# And back, while they are open.
mode(b'close')
q = os.open('d/f', os.O_RDONLY)
s = os.open('d/f', os.O_WRONLY)
check(os.pread(q, 9, 0) == b'Aldo', 'a new reader')
os.pwrite(a, b'Q', 0)
check(os.pread(b, 9, 0) == b'Qldo' and os.pread(q, 9, 0) == b'Aldo', 'live ones stay so, readers have their version: %r %r' % (os.pread(b, 9, 0), os.pread(q, 9, 0)))
os.pwrite(s, b'S', 1)
check(os.pread(b, 9, 0) == b'Qldo', 'a new session is private')
check(rd('d/f') == b'Qldo', 'by path')
os.close(s)
check(os.pread(b, 9, 0) == b'QSdo' and rd('d/f') == b'QSdo' and os.pread(q, 9, 0) == b'Aldo', 'committed')
open('d/f', 'wb').write(b'rewritten')
check(os.pread(a, 99, 0) == b'rewritten' and os.fstat(a).st_size == 9, 'rewritten by a session: %r' % os.pread(a, 99, 0))
os.unlink('d/f')
os.pwrite(a, b'gone', 0)
check(os.pread(b, 99, 0) == b'goneitten' and os.pread(q, 9, 0) == b'Aldo', 'unlinked')
snapshot('at last')
for f in a, b, q, r:
    os.close(f)
# Two processes, one mapping: memory is shared where it is set.
mode(b'write')
open('d/m', 'wb').write(b'0' * 4096)
f = os.open('d/m', os.O_RDWR)
m = mmap.mmap(f, 4096)
p = subprocess.run([sys.executable, '-c', 'import mmap, os\nf = os.open("d/m", os.O_RDWR)\nm = mmap.mmap(f, 4096)\nassert m[:4] == b"0000"\nm[0:4] = b"mine"'])
check(p.returncode == 0 and m[:4] == b'mine', 'shared memory')
print('OK')
PY
python3 "$WORK/mixed.py" >"$WORK/out" 2>&1 || { cat "$WORK/out"; fail "see above"; }
grep -q '^OK$' "$WORK/out" || fail "it did not come to its end"
grep -q ' 0 open' .sop/status || fail "a session is left"
cd /
unmount_volume
check_volume
