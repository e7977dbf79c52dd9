#!/bin/bash
# Sessions by the thousand, and large ones: the daemon's memory is bounded, a close has little left to write;
# fork storms; and a daemon that is killed with all of them open leaves what was committed and no leak.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 4 2+2
mount_volume cache=32M,checkpoint=1
cat >"$WORK/many.py" <<'PY'
import errno, json, os, resource, subprocess, sys
mnt, pid, sessions, sopctl = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
os.chdir(mnt)
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
def memory():
    for line in open('/proc/%s/status' % pid):
        if line.startswith('VmRSS'):
            return int(line.split()[1]) // 1024
def written():
    return json.loads(subprocess.check_output([sopctl, 'status', '--json', mnt]))['disk_io']['written_bytes']
def seen(name):
    with open(name, 'rb') as f:
        return f.read()
# Many sessions of 200 KB each, written a little at a time, none closed.
os.mkdir('many')
before = memory()
fds = [os.open('many/%d' % i, os.O_CREAT | os.O_WRONLY) for i in range(sessions)]
for n in range(5):
    for i, f in enumerate(fds):
        os.write(f, b'%d ' % i * 8000)
grown = memory() - before
print('%d sessions: the daemon has grown by %d MB' % (sessions, grown), flush=True)
assert grown < 60 + sessions * 48 // 1024, grown
assert all(os.stat('many/%d' % i).st_size == 0 for i in range(0, sessions, 50))
for f in fds:
    os.close(f)
for i in range(0, sessions, 50):
    assert seen('many/%d' % i) == b'%d ' % i * 40000
# One large session streams to the disks: little is left for its close.
f = os.open('large', os.O_CREAT | os.O_WRONLY)
for i in range(150):
    os.write(f, os.urandom(1 << 20))
    os.pwrite(f, b'x' * 1000, i * 700001 % (i + 1 << 20))
at_close = written()
os.close(f)
left = written() - at_close
print('a close of 150 MB had %d KB left to write' % (left // 1024), flush=True)
assert left < 20 << 20, left
assert memory() - before < 150, memory()
# Thousands of sessions on one file, each writes a place of its own, all commit.
open('one', 'w').write('.' * 10 * sessions * 3)
fds = [os.open('one', os.O_WRONLY) for _ in range(3 * sessions)]
for i, f in enumerate(fds):
    os.pwrite(f, b'%10d' % i, 10 * i)
assert seen('one') == b'.' * 10 * sessions * 3
for f in fds[::2] + fds[1::2]:
    os.close(f)
assert seen('one') == b''.join(b'%10d' % i for i in range(3 * sessions))
# Of those that have read it, one wins.
fds = [os.open('one', os.O_RDWR) for _ in range(sessions)]
lost = 0
for i, f in enumerate(fds):
    os.pread(f, 1, 0)
    os.pwrite(f, b'%10d' % -i, 0)
for f in fds:
    try:
        os.close(f)
    except OSError as e:
        assert e.errno == errno.EBUSY
        lost += 1
assert lost == sessions - 1 and seen('one')[:10] == b'%10d' % 0
# A fork storm: children that share the session come and go; their ends commit nothing, nor hang.
open('storm', 'w').write('old')
f = os.open('storm', os.O_WRONLY | os.O_TRUNC)
for n in range(10):
    pids = []
    for i in range(20):
        pid_ = os.fork()
        if not pid_:
            os.write(f, b'%d,' % i)
            os._exit(i)
        pids.append(pid_)
    for p in pids:
        os.waitpid(p, 0)
    assert seen('storm') == b'old', seen('storm')[:20]
os.close(f)
assert sorted(seen('storm').split(b',')) == sorted([b''] + [b'%d' % i for i in range(20)] * 10)
for n in os.listdir('many'):
    os.unlink('many/' + n)
os.unlink('large')
# All kinds open at once; then the daemon dies.
open('kept', 'w').write('kept')
fds = [os.open('kept', os.O_RDWR), os.open('kept', os.O_WRONLY | os.O_TRUNC), os.open('never', os.O_CREAT | os.O_WRONLY),
       os.open('.', os.O_TMPFILE | os.O_RDWR), os.open('kept', os.O_RDONLY)]
for f in fds[:-1]:
    os.write(f, os.urandom(3 << 20))
print('ready', flush=True)
sys.stdin.read()
PY
n=1000
[ -z "$LONG" ] || n=5000
mkfifo "$WORK/in"
python3 "$WORK/many.py" "$MNT" "$PID" $n "$SOPCTL" <"$WORK/in" >"$WORK/out" 2>&1 &
p=$!
exec 7>"$WORK/in"
wait_until 300 sh -c "grep -q ready '$WORK/out' || ! kill -0 $p" || fail "no end: $(cat "$WORK/out")"
cat "$WORK/out"
grep -q ready "$WORK/out" || fail "see above"
kill_daemon
exec 7>&-
wait $p || true
mount_volume
assert_eq "$(cat "$MNT/kept")" kept "what was committed before the daemon died"
[ ! -e "$MNT/never" ] || fail "what was not is there"
unmount_volume
check_volume
