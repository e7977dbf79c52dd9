#!/bin/bash
# Who closes decides: commit at the close or exit of who opened it, nothing yet at a child's, rollback when
# killed; appends show within a second; a descriptor closed by execve does not hang anybody.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
mount_volume append_commit=200ms
cd "$MNT"

# The file as others see it at this moment.
seen() {
	cat "$1" 2>/dev/null || echo none
}
# A writer says that it has come to a place, and reads from a fifo when to go on. Before it has said so, it may not
# be signalled: what bash forks creates the file, and takes a signal and forgets it until it has become the writer. By
# touch: bash itself would copy its output for that, and a close of the copy commits.
mkfifo "$WORK/go"
come() {
	wait_until 60 test -e "$WORK/come" || fail "the writer does not come there"
	rm "$WORK/come"
}

# A child's exit commits nothing while the opener holds the file open.
echo old >f
bash -c '/bin/echo a; touch "$1"; read <"$0"; /bin/echo b' "$WORK/go" "$WORK/come" >f &
p=$!
come
assert_eq "$(seen f)" old "at a child's exit"
echo >"$WORK/go"
wait $p
assert_eq "$(seen f)" "$(printf 'a\nb')" "at the opener's exit"

# A shell that is killed takes back what its children wrote.
echo old >f
bash -c '/bin/echo a; touch "$1"; read <"$0"; /bin/echo b' "$WORK/go" "$WORK/come" >f &
p=$!
come
kill -9 $p
wait $p 2>/dev/null || true
assert_eq "$(seen f)" old "after the opener was killed"

# A writer that is killed, while the opener lives and closes cleanly.
echo old >f
bash -c 'bash -c "echo half; kill -9 \$\$"; true' >f 2>/dev/null || true
assert_eq "$(seen f)" old "after a writer was killed"

# Killed, with the file opened and written by a thread other than its first; and one that shares the session
# with a writer that was killed is told at its close.
python3 - <<'PY'
import errno, os, signal, subprocess, sys
p = subprocess.Popen([sys.executable, '-c', '''
import os, threading, time
def work():
    f = os.open("f", os.O_WRONLY | os.O_TRUNC)
    os.write(f, b"half")
t = threading.Thread(target=work)
t.start(); t.join()
print("ready", flush=True)
time.sleep(60)'''], stdout=subprocess.PIPE)
p.stdout.readline()
p.kill()
p.wait()
assert open('f').read() == 'old\n', open('f').read()
f = os.open('f', os.O_WRONLY | os.O_TRUNC)
p = subprocess.Popen(['sh', '-c', 'echo half; kill -9 $$'], stdout=f)
p.wait()
try:
    os.close(f)
    raise SystemExit('close() of a session that was rolled back gives no error')
except OSError as e:
    assert e.errno == errno.EIO, e
assert open('f').read() == 'old\n', open('f').read()
PY

# A new name vanishes with the killed, and space returns.
bash -c 'head -c 3000000 /dev/urandom; touch "$1"; read <"$0"' "$WORK/go" "$WORK/come" >new &
p=$!
come
[ -e new ] || fail "a new name does not show before its commit"
kill -TERM $p
wait $p 2>/dev/null || true
wait_until 60 test ! -e new || fail "the name of a killed writer stays"

# Any exit code commits.
bash -c 'echo done; exit 3' >f || true
assert_eq "$(seen f)" "done" "exit 3"
# The opener lets go, the child goes on: its end commits.
python3 - <<'PY'
import subprocess
with open('f', 'w') as f:
    p = subprocess.Popen(['sh', '-c', 'echo from the child'], stdout=f)
    f.close()
p.wait()
assert open('f').read() == 'from the child\n', open('f').read()
# Closing one of two copies commits what is there, and the session goes on.
import os
a = os.open('g', os.O_CREAT | os.O_WRONLY)
b = os.dup(a)
os.write(a, b'1')
os.close(a)
assert open('g').read() == '1'
os.write(b, b'2')
assert open('g').read() == '1'
os.close(b)
assert open('g').read() == '12'
# Nothing but a creation or a truncation, and a copy left: wait for it.
a = os.open('h', os.O_CREAT | os.O_WRONLY)
os.close(os.dup(a))
os.close(a)
assert os.path.exists('h')
a = os.open('g', os.O_WRONLY | os.O_TRUNC)
os.close(os.dup(a))
assert open('g').read() == '12'
os.close(a)
assert open('g').read() == ''
# Another session of the same process on the same file is no copy: close() commits, and does not wait.
other = os.open('g', os.O_WRONLY)
for i in range(200):
    os.close(os.open('g', os.O_WRONLY | os.O_TRUNC))
    assert os.stat('g').st_size == 0 and open('g').read() == ''
    with open('g', 'w') as f:
        f.write('x')
os.close(other)
# A session that was committed by the close of one copy goes on from that version, if it has read.
import errno
open('c', 'w').write('old')
a = os.open('c', os.O_RDWR)
assert os.pread(a, 9, 0) == b'old'
os.pwrite(a, b'new', 0)
b = os.dup(a)
os.close(a)
assert open('c').read() == 'new'
open('c', 'w').write('by others')
assert os.fstat(b).st_size == 3 and os.pread(b, 99, 0) == b'new'
os.pwrite(b, b'N', 0)
try:
    os.close(b)
    raise SystemExit('a session that depends on what it has committed does not conflict')
except OSError as e:
    assert e.errno == errno.EBUSY, e
assert open('c').read() == 'by others'
# One that has never read goes on from the newest version, with nothing of its own left.
a = os.open('c', os.O_RDWR)
os.pwrite(a, b'x' * 9000, 0)
b = os.dup(a)
os.close(a)
open('c', 'w').write('by others')
assert os.fstat(b).st_size == 9 and os.pread(b, 99, 0) == b'by others', os.pread(b, 99, 0)
os.close(b)
# Threads: the one that opened is not the one that closes, nor there any more.
import threading
fds = []
t = threading.Thread(target=lambda: fds.append(os.open('t', os.O_CREAT | os.O_WRONLY)))
t.start(); t.join()
os.write(fds[0], b'thread')
os.close(fds[0])
assert open('t').read() == 'thread'
PY
: >f
assert_eq "$(seen f)" "" ": > f"
touch -d 2001-01-01 f
assert_eq "$(stat -c %Y f)" "$(date -d 2001-01-01 +%s)" "touch"

# Appends show by themselves, and stay when the writer is killed.
bash -c 'echo line; read <"$0"' "$WORK/go" >>log &
p=$!
wait_until 5 grep -q line log || fail "an append does not show"
kill -9 $p
wait $p 2>/dev/null || true
assert_eq "$(seen log)" line "an append that showed"

# execve closes descriptors and waits for our answer while it holds what /proc/TID/stat wants.
timeout 60 python3 - <<'PY' || fail "execve with descriptors to close"
import os
for i in range(200):
    pid = os.fork()
    if not pid:
        f = os.open('x%d' % (i % 3), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC)
        os.write(f, b'%d' % i)
        os.execv('/bin/true', ['true'])
    assert os.waitpid(pid, 0)[1] == 0
    assert open('x%d' % (i % 3)).read() == '%d' % i
PY
grep -q ' 0 open' .sop/status || fail "a session is left: $(cat .sop/status)"
cd /
unmount_volume
mount_volume killed=commit
echo old >"$MNT/f"
bash -c 'echo part; kill -9 $$' >"$MNT/f" 2>/dev/null || true
assert_eq "$(cat "$MNT/f")" part "killed=commit"
unmount_volume
mount_volume exit=rollback
bash -c 'echo part; exit 1' >"$MNT/f" || true
assert_eq "$(cat "$MNT/f")" part "a child that fails is not the opener" # bash opened it, and goes on
bash -c 'echo whole >"$0"; exit 0' "$MNT/f"
assert_eq "$(cat "$MNT/f")" whole "exit 0"
python3 -c 'import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)
os.write(f, b"bad")
os._exit(1)' "$MNT/f" || true
assert_eq "$(cat "$MNT/f")" whole "exit=rollback"
unmount_volume
check_volume
