#!/bin/bash
# A mount that ends by force under open files: what was not closed is rolled back, as its writers are told by
# the calls that fail; appends stay, each is whole; so does what was written by a mapping after the close.
. "$(dirname "$0")/functions.sh"
requires_root
requires python3
new_volume 2 1+1

# A writer with FILE open says so and waits for a signal; when the mount is gone its close fails.
cat >"$WORK/writer.py" <<'PY'
import ctypes, fcntl, mmap, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
kind, path = sys.argv[1:]
if kind == 'waiter':
    f = os.open(path, os.O_RDWR)
    print('ready', flush=True)
    try:
        fcntl.flock(f, fcntl.LOCK_EX)
    except OSError:
        print('refused', flush=True)
    sys.exit()
flags = {'rewrite': os.O_WRONLY | os.O_TRUNC, 'append': os.O_WRONLY | os.O_APPEND}.get(kind, os.O_RDWR)
f = os.open(path, flags | os.O_CREAT)
if kind == 'mapped':
    # By the C library: Python's own mappings keep a copy of the descriptor. The kernel brings what one
    # mapping has written when that goes; the other keeps the file open.
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    m, stays = (ctypes.c_void_p(libc.mmap(None, 4096, 3, mmap.MAP_SHARED, f, ctypes.c_long(0))) for _ in range(2))
    os.pwrite(f, b'by a call', 100)
    os.close(f)
    ctypes.memmove(m, b'late', 4)
    libc.munmap(m, 4096)
    f = -1
else:
    os.write(f, b'half\n')
print('ready', flush=True)
signal.sigwait([signal.SIGUSR1])
try:
    if f >= 0:
        os.close(f)
    print('closed', flush=True)
except OSError as e:
    print('refused', flush=True)
PY

# ends HOW COMMAND...
ends() {
	local how=$1 w waiter
	local -A pid
	shift
	mount_volume append_commit=600
	for w in rewrite append mapped; do
		head -c 4096 /dev/zero | tr '\0' o >"$MNT/$w"
	done
	for w in rewrite append create mapped; do
		python3 "$WORK/writer.py" $w "$MNT/$w" >"$WORK/$w.out" &
		pid[$w]=$!
		wait_until 20 grep -q ready "$WORK/$w.out" || fail "$w: not ready"
	done
	# Somebody waits for a lock.
	exec 7<"$MNT/append"
	flock 7
	python3 "$WORK/writer.py" waiter "$MNT/append" >"$WORK/waiter.out" 7<&- &
	waiter=$!
	wait_until 20 grep -q ready "$WORK/waiter.out" || fail "waiter: not ready"
	sleep 0.3
	"$@"
	wait "$waiter" || true
	grep -q refused "$WORK/waiter.out" || fail "$how: who waited for a lock has it"
	exec 7<&-
	wait_gone "$PID" 30 || fail "$how: the daemon stays"
	for w in rewrite append create mapped; do
		kill -USR1 "${pid[$w]}"
		wait "${pid[$w]}" || true
		[ $w = mapped ] || grep -q refused "$WORK/$w.out" || fail "$how: the close of $w gave no error"
	done
	! mountpoint -q "$MNT" || umount -l "$MNT"
	mount_volume
	assert_eq "$(head -c 5 "$MNT/rewrite")" ooooo "$how: a rewrite that was not closed"
	assert_eq "$(tail -n 1 "$MNT/append" | tail -c 5)" half "$how: an append"
	[ ! -e "$MNT/create" ] || fail "$how: a new file that was not closed"
	assert_eq "$(head -c 5 "$MNT/mapped")" lateo "$how: written by a mapping after the close"
	grep -q 'by a call' "$MNT/mapped" || fail "$how: written by a call before it"
	rm -f "$MNT"/*
	unmount_volume
}

force() {
	umount -f "$MNT" 2>/dev/null || true
}

second_signal() {
	kill -TERM "$PID"
	wait_until 20 sh -c "! mountpoint -q '$MNT'" || true
	kill -TERM "$PID"
}

ends "umount -f" force
ends "second signal" second_signal
check_volume
