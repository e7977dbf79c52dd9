#!/bin/bash
# Listings: in key order, seekable, and right while others insert and delete: an entry that is there all
# the time is returned exactly once.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
mount_volume
cat >"$WORK/listing.py" <<'PY'
import ctypes, os, random, sys, threading
random.seed(4711)
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
class Dirent(ctypes.Structure):
    _fields_ = [('ino', ctypes.c_uint64), ('off', ctypes.c_int64), ('reclen', ctypes.c_uint16),
                ('type', ctypes.c_uint8), ('name', ctypes.c_char * 256)]
libc.readdir.restype = ctypes.POINTER(Dirent)
def entries(d):
    while True:
        e = libc.readdir(ctypes.c_void_p(d))
        if not e:
            return
        yield e.contents.name, libc.telldir(ctypes.c_void_p(d))
os.mkdir('d')
keep = [b'f%06d' % i for i in range(3000)] + [b'long' * 50 + b'%d' % i for i in range(100, 300)] + \
       [bytes([random.randrange(97, 123) for _ in range(random.randrange(1, 40))]) for _ in range(500)]
keep = sorted(set(keep))
for n in keep:
    os.close(os.open(b'd/' + n, os.O_CREAT | os.O_WRONLY))
d = libc.opendir(b'd')
seen = list(entries(d))
names = [n for n, _ in seen if n not in (b'.', b'..')]
assert names == keep, 'order or content: %d of %d' % (len(names), len(keep))
assert len(set(o for _, o in seen)) == len(seen), 'two entries with one position'
for i in random.sample(range(len(seen) - 1), 300):
    libc.seekdir(ctypes.c_void_p(d), ctypes.c_long(seen[i][1]))
    n, _ = next(entries(d))
    assert n == seen[i + 1][0], 'after seekdir: %r, want %r' % (n, seen[i + 1][0])
# Removed where we stand, added in front: the rest is not disturbed.
libc.seekdir(ctypes.c_void_p(d), ctypes.c_long(seen[100][1]))
os.unlink(b'd/' + seen[100][0])
os.unlink(b'd/' + seen[101][0])
gone = {seen[100][0], seen[101][0]}
d2 = libc.opendir(b'd')
for n, off in entries(d2):
    if off == seen[99][1]:
        break
rest = [n for n, _ in entries(d2)]
assert rest == [n for n, _ in seen[102:]], 'after removals'
libc.closedir(ctypes.c_void_p(d2))
libc.closedir(ctypes.c_void_p(d))
keep = [n for n in keep if n not in gone]
# Others at work.
stop = False
def churn():
    k = 0
    while not stop:
        k += 1
        n = b'd/f%06d.%d' % (random.randrange(3000), k % 7)
        try:
            os.close(os.open(n, os.O_CREAT | os.O_WRONLY))
            if random.random() < .8:
                os.unlink(n)
        except OSError:
            pass
threads = [threading.Thread(target=churn) for _ in range(2)]
for t in threads:
    t.start()
try:
    want = set(keep)
    for _ in range(15):
        got = [n for n in os.listdir(b'd')]
        once = [n for n in got if n in want]
        assert len(once) == len(set(once)), 'an entry twice'
        assert set(once) == want, 'an entry is missing: %r' % (want - set(once))
        assert got == sorted(got), 'out of order'
finally:
    stop = True
    for t in threads:
        t.join()
f = os.open('d/open', os.O_CREAT | os.O_WRONLY)
os.write(f, b'x')
assert 'open' in os.listdir('d'), 'a name that is not committed is not listed'
try:
    os.rmdir('d')
    raise SystemExit('rmdir of a directory with an uncommitted name')
except OSError:
    pass
os.close(f)
print('OK')
PY
python3 "$WORK/listing.py" "$MNT" | grep -q OK || fail "see above"
# shellcheck disable=SC2012 # it is ls that is looked at
ls -U "$MNT/d" | LC_ALL=C sort -c || fail "ls -U is not in key order"
unmount_volume
check_volume
