#!/bin/bash
# Whoever is killed or interrupted in a call ends in bounded time: in large writes, fsyncs, reads, copies,
# listings and waits for locks; the file system goes on, and nothing of it is left behind.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 4 2+2
mount_volume commit=100ms
head -c 30M /dev/urandom >"$MNT/big"
mkdir "$MNT/many"
(cd "$MNT/many" && seq 1 2000 | split -l 1 -a 4 - f)
cat >"$WORK/busy.py" <<'PY'
import fcntl, os, sys
kind, top = sys.argv[1:3]
os.chdir(top)
print('x', flush=True)
n = 0
while True:
    n += 1
    if kind == 'write':
        f = os.open('w%d' % (n % 3), os.O_CREAT | os.O_RDWR)
        os.write(f, b'w' * (8 << 20))
        os.close(f)
    elif kind == 'fsync':
        f = os.open('s', os.O_CREAT | os.O_RDWR)
        os.write(f, b's' * (4 << 20))
        os.fsync(f)
        os.close(f)
    elif kind == 'read':
        f = os.open('big', os.O_RDONLY)
        os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
        while os.read(f, 1 << 20):
            pass
        os.close(f)
    elif kind == 'copy':
        a, b = os.open('big', os.O_RDONLY), os.open('c', os.O_CREAT | os.O_RDWR | os.O_TRUNC)
        while os.copy_file_range(a, b, 1 << 30):
            pass
        os.close(a)
        os.close(b)
    elif kind == 'list':
        for e in os.scandir('many'):
            e.stat()
    elif kind == 'name':
        open('n', 'w').close()
        os.rename('n', 'm')
        os.unlink('m')
    elif kind == 'lock':
        f = os.open('big', os.O_RDWR)
        fcntl.lockf(f, fcntl.LOCK_EX)
        os.close(f)
PY
# A lock that nobody gets.
mkfifo "$WORK/hold"
python3 -c '
import fcntl, os, sys
f = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(f, fcntl.LOCK_EX)
print("x", flush=True)
sys.stdin.read()' "$MNT/big" <"$WORK/hold" >"$WORK/locked" &
holder=$!
exec 5>"$WORK/hold"
wait_until 30 test -s "$WORK/locked" || fail "no lock"

for kind in write fsync read copy list name lock; do
	for sig in INT TERM KILL; do
		: >"$WORK/started"
		python3 "$WORK/busy.py" "$kind" "$MNT" >"$WORK/started" 2>/dev/null 5>&- &
		pid=$!
		wait_until 30 test -s "$WORK/started" || fail "$kind does not start"
		sleep "0.$((RANDOM % 3))$((RANDOM % 10))" # anywhere in it
		# A shell lets what it starts in the background ignore SIGINT.
		[ "$sig" != INT ] || sig=HUP
		kill -s "$sig" "$pid"
		wait_gone "$pid" 60 || fail "$kind: not gone 60 s after SIG$sig"
		wait "$pid" 2>/dev/null || true
	done
done
exec 5>&-
wait "$holder"
echo after >"$MNT/after"
assert_eq "$(cat "$MNT/after")" after "the file system goes on"
unmount_volume
check_volume
