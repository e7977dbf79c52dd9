#!/bin/bash
# Shared mappings, msync, descriptors opened again by way of /proc, sparse files and fallocate.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
mount_volume
cat >"$WORK/mapped.py" <<'PY'
import mmap, os, sys, time
os.chdir(sys.argv[1])
def rd(p):
    with open(p, 'rb') as f:
        return f.read()
def check(c, what):
    if not c:
        raise SystemExit('FAILED: ' + what)
f = os.open('m', os.O_CREAT | os.O_RDWR)
os.ftruncate(f, 8192)
m = mmap.mmap(f, 8192)
m[0:3] = b'map'
check(rd('m') == b'', 'a mapping is private before it is committed')
m.flush()
check(rd('m')[:3] == b'map', 'msync commits')
m[0:3] = b'MAP'
os.close(f)
check(rd('m')[:3] == b'MAP', 'close commits what is mapped')
m[4000:4003] = b'end'
m.close()
for _ in range(1200):
    if rd('m')[4000:4003] == b'end':
        break
    time.sleep(.05)
check(rd('m')[4000:4003] == b'end', 'the last reference gone commits what is left')
r = os.open('m', os.O_RDONLY)
p = mmap.mmap(r, 8192, prot=mmap.PROT_READ)
with open('m', 'wb') as g:
    g.write(b'x')
check(p[0:3] == b'MAP' and p[4000:4003] == b'end', 'a mapped snapshot stays, without SIGBUS')
p.close()
f = os.open('/proc/self/fd/%d' % r, os.O_RDONLY)
check(os.pread(f, 3, 0) == b'MAP', 'a snapshot opened again')
os.close(f)
os.close(r)
w = os.open('y', os.O_CREAT | os.O_RDWR)
os.write(w, b'11')
v = os.open('/proc/self/fd/%d' % w, os.O_RDWR)
check(os.read(v, 5) == b'11', 'a session opened again is the same session')
os.close(v)
os.close(w)
check(rd('y') == b'11', 'and commits')
s = os.open('s', os.O_CREAT | os.O_RDWR)
os.ftruncate(s, 1 << 30)
os.pwrite(s, b'x' * 8192, 1 << 20)
os.posix_fallocate(s, 0, (1 << 30) + 4096)
os.close(s)
st = os.stat('s')
check(st.st_size == (1 << 30) + 4096 and st.st_blocks < 1000, 'holes take no space')
s = os.open('s', os.O_RDONLY)
check(os.lseek(s, 0, os.SEEK_DATA) == 1 << 20, 'SEEK_DATA')
check(os.lseek(s, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 8192, 'SEEK_HOLE')
check(os.pread(s, 10, (1 << 20) - 5) == b'\0' * 5 + b'x' * 5, 'a hole reads as zeros')
os.close(s)
print('OK')
PY
python3 "$WORK/mapped.py" "$MNT" >"$WORK/out" || { cat "$WORK/out"; fail "see above"; }
grep -q '^OK$' "$WORK/out" || fail "it did not come to its end"
fallocate -p -o 1048576 -l 4096 "$MNT/s"
assert_eq "$(head -c 1056768 "$MNT/s" | tail -c 8192 | tr -d '\0' | wc -c)" 4096 "a hole punched"

# By its entry in /proc a reader's descriptor leads to what it shows, and that stays: a truncation is the file's, and
# for writing it cannot be opened.
cat >"$WORK/shown.py" <<'PY'
import errno, mmap, os, sys
os.chdir(sys.argv[1])
def rd(p):
    with open(p, 'rb') as f:
        return f.read()
def check(c, what):
    if not c:
        raise SystemExit('FAILED: ' + what)
for later in b'AAAA', b'BBBB':
    with open('t', 'wb') as f:
        f.write(b'AAAA')
    r = os.open('t', os.O_RDONLY)
    p = mmap.mmap(r, 4, prot=mmap.PROT_READ)
    check(p[:] == b'AAAA', 'before')
    if later != b'AAAA':
        with open('t', 'wb') as f:
            f.write(later)
    os.truncate('/proc/self/fd/%d' % r, 2)
    check(rd('t') == later[:2] and os.stat('t').st_size == 2, 'truncated: %r' % rd('t'))
    check(os.pread(r, 9, 0) == b'AAAA' and p[:] == b'AAAA', 'the version of who reads')
    check(os.fstat(r).st_size == 4, 'its size')
    try:
        os.open('/proc/self/fd/%d' % r, os.O_RDWR)
        check(False, 'opened for writing by the nodeid of who reads')
    except OSError as e:
        check(e.errno == errno.ESTALE, 'ESTALE')
    p.close()
    os.close(r)
    check(rd('t') == later[:2], 'afterwards')
with open('t', 'wb') as f:
    f.write(b'AAAA')
p = os.open('t', os.O_PATH)
w = os.open('/proc/self/fd/%d' % p, os.O_RDWR)
os.pwrite(w, b'B', 0)
os.close(w)
os.close(p)
check(rd('t') == b'BAAA', 'of O_PATH it can')
PY
python3 "$WORK/shown.py" "$MNT" || fail "see above"

# As lsof does: somebody else looks at a descriptor by its entry in /proc. What the mapping has written is none of
# his business, and stays.
cat >"$WORK/looked_at.py" <<'PY'
import mmap, os, subprocess, sys
os.chdir(sys.argv[1])
def check(c, what):
    if not c:
        raise SystemExit('FAILED: ' + what)
looks = subprocess.Popen([sys.executable, '-c', '''
import os, sys
for line in sys.stdin:
    path = line.strip()
    os.chmod(path, 0o640)
    print(os.stat(path).st_size, flush=True)
'''], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
with open('l', 'wb') as f:
    f.write(b'old')
f = os.open('l', os.O_RDWR)
os.ftruncate(f, 1 << 20)
m = mmap.mmap(f, 1 << 20)
m[0:5] = b'hello'
m[500000:500005] = b'world'
looks.stdin.write('/proc/%d/fd/%d\n' % (os.getpid(), f))
looks.stdin.flush()
check(looks.stdout.readline() == '1048576\n', 'the size of what is looked at')
check(os.stat('l').st_size == 3, 'the size by name')
check(m[0:5] == b'hello' and m[500000:500005] == b'world', 'a mapping that was looked at')
m.close()
os.close(f)
with open('l', 'rb') as f:
    d = f.read()
check(len(d) == 1 << 20 and d[0:5] == b'hello' and d[500000:500005] == b'world', 'what is committed of it')
looks.stdin.close()
check(looks.wait() == 0, 'who looks')
PY
python3 "$WORK/looked_at.py" "$MNT" || fail "see above"
unmount_volume
check_volume
