#!/bin/bash
# What close() has committed is seen by every open after it: write and read, over and over, in one process and
# from one to another. And O_EXCL has one winner among many.
. "$(dirname "$0")/functions.sh"
requires python3 setfattr
new_volume 2 1+1
mount_volume
n=3000
[ -z "$LONG" ] || n=100000
cd "$MNT"
for ((i = 0; i < n; i++)); do
	echo $i >f
	read -r got <f
	[ "$got" = $i ] || fail "echo $i >f; then f holds '$got'"
done
for ((i = 0; i < n / 20; i++)); do
	echo $i >f
	got=$(cat f)
	[ "$got" = $i ] || fail "echo $i >f; cat f: '$got'"
done
cat >"$WORK/visible.py" <<'PY'
import os, sys, threading
n = int(sys.argv[1])
# Told by a pipe that it is closed, another process opens it: while threads of this one do the same elsewhere.
def pair(name):
    there, back = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        for i in range(n):
            os.read(there[0], 1)
            # By name first: nothing has been opened that would make the kernel look again.
            if os.stat(name).st_size != len('%d' % i):
                os._exit(1)
            with open(name) as f:
                got = f.read()
            if got != '%d' % i or os.stat(name).st_size != len(got):
                os._exit(1)
            os.write(back[1], b'.')
        os._exit(0)
    return pid, there, back
pairs = [pair('v%d' % i) for i in range(4)]
def write(k):
    _, there, back = pairs[k]
    for i in range(n):
        how = i % 4
        if how == 0:
            with open('v%d' % k, 'w') as f:
                f.write('%d' % i)
        elif how == 1:
            with open('t%d' % k, 'w') as f:
                f.write('%d' % i)
            os.rename('t%d' % k, 'v%d' % k)
        elif how == 2:
            f = os.open('v%d' % k, os.O_RDWR | os.O_CREAT)
            os.ftruncate(f, 0)
            os.pwrite(f, b'%d' % i, 0)
            os.fsync(f) if i % 40 == 2 else os.close(f)
            if i % 40 == 2:
                os.close(f)
        else:
            if os.path.exists('v%d' % k):
                os.unlink('v%d' % k)
            f = os.open('v%d' % k, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(f, b'%d' % i)
            os.close(f)
        os.write(there[1], b'.')
        if os.read(back[0], 1) != b'.':
            return
threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
for t in threads:
    t.start()
for pid, there, _ in pairs:
    if os.waitpid(pid, 0)[1]:
        os._exit(1)
# O_EXCL, of a file and of a lock made by link: one winner of each name, and it is the one whose name is in it.
os.mkdir('locks')
pids = []
for p in range(8):
    pid = os.fork()
    if not pid:
        won = 0
        for i in range(n // 10):
            try:
                f = os.open('locks/%d' % i, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                continue
            os.write(f, b'%d' % p)
            if i % 3 == 0:
                os.fsync(f)
            os.close(f)
            if open('locks/%d' % i).read() != '%d' % p:
                os._exit(1)
        os._exit(0)
    pids.append(pid)
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 0, 'two have won a name'
assert sorted(map(int, os.listdir('locks'))) == list(range(n // 10))
assert all(open('locks/%d' % i).read() in '01234567' for i in range(n // 10))
# mutex by lock files: the counter loses nothing
open('counter', 'w').write('0')
pids = []
for p in range(4):
    pid = os.fork()
    if not pid:
        for i in range(n // 60):
            while True:
                try:
                    os.close(os.open('lock', os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                    break
                except FileExistsError:
                    pass
            v = int(open('counter').read())
            with open('counter', 'w') as f:
                f.write('%d' % (v + 1))
            os.unlink('lock')
        os._exit(0)
    pids.append(pid)
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 0
assert open('counter').read() == '%d' % (4 * (n // 60)), open('counter').read()
PY
python3 "$WORK/visible.py" $n || fail "see above"
# Many at once: while one opens or closes the file, what the close of another has committed is seen.
"$BUILD/fs/looks" "$SEED" $((n / 3)) log || fail "see above"
mkdir live
setfattr -n sop.session -v write live
"$BUILD/fs/looks" "$SEED" $((n / 10)) live/log live || fail "see above"
cd /
unmount_volume
check_volume
