#!/bin/bash
# Two mounts of one shared volume that meet at a Redis server: locks hold between them, and end with their
# holder; the server may be killed, emptied and stopped; who has no lease does not commit; status tells it all.
. "$(dirname "$0")/functions.sh"
requires redis-server redis-cli python3 jq

server=
start_server() {
	redis-server --port 0 --unixsocket "$WORK/redis.sock" --dir "$WORK" --save '' --appendonly no \
		--daemonize no --logfile "$WORK/redis.log" 5>&- &
	server=$!
	wait_until 30 answers || fail "redis does not start"
}

answers() {
	[ "$(redis-cli -s "$WORK/redis.sock" ping 2>/dev/null)" = PONG ]
}

stop_server() {
	[ -z "$server" ] || kill -9 "$server"
	[ -z "$server" ] || wait "$server" 2>/dev/null || true
	server=
}

at_end() {
	stop_server
}

mount_at() { # MOUNTPOINT LOG [option...]
	"$SOPFS" "$SOURCE" "$1" -o "log=$2,redis=unix://$WORK/redis.sock,lease=${3:-8}${4:+,$4}"
}

status() { # MOUNTPOINT JQ
	jq -r "$2" "$1/.sop/status.json"
}

is_up() {
	[ "$(status "$1" .redis.up)" = true ]
}

mounters() {
	[ "$(status "$1" '.mounters | length')" = "$2" ]
}

# lock KIND TYPE FILE [start len]: tries once; exit code 0 granted (and held until its input ends), 1 refused
cat >"$WORK/lock.py" <<'PY'
import fcntl, sys
kind, how, path = sys.argv[1:4]
f = open(path, "r+")
op = {"ex": fcntl.LOCK_EX, "sh": fcntl.LOCK_SH}[how]
op |= 0 if "wait" in sys.argv else fcntl.LOCK_NB
try:
    if kind == "flock":
        fcntl.flock(f, op)
    else:
        fcntl.lockf(f, op, int(sys.argv[5]), int(sys.argv[4]))
except BlockingIOError:
    sys.exit(1)
except OSError as e:
    print(e.errno)
    sys.exit(2)
print("held", flush=True)
sys.stdin.read()
PY
lock() {
	python3 "$WORK/lock.py" "$@"
}

start_server
new_volume 3 2+1 --shared
A=$MNT
B=$WORK/b
mkdir "$B"
MOUNTS+=("$B")
# With a lease that a machine has to stand still for seconds to miss.
mount_at "$A" "$LOG"
mount_at "$B" "$WORK/b.log"
echo x >"$A/f"

# ---- who is there
wait_until 30 mounters "$A" 2 || fail "status does not list two mounters"
assert_eq "$(status "$B" '[.mounters[].mountpoint] | sort | join(" ")')" \
	"$(printf '%s\n' "$A" "$B" | sort | paste -sd' ')" "mountpoints of mounters"
assert_eq "$(status "$A" '[.mounters[] | select(.this)] | length')" 1 "this one"
grep -q '^mounters: 2$' "$A/.sop/status" || fail "status says nothing of mounters"

# ---- locks hold between mounts
exec 5> >(lock flock ex "$A/f" >"$WORK/held")
wait_until 30 test -s "$WORK/held" || fail "no lock"
expect_exit 1 lock flock ex "$B/f" </dev/null
expect_exit 1 lock flock sh "$B/f" </dev/null
expect_exit 0 lock posix ex "$B/f" 0 1 </dev/null
# One that waits gets it when it is free.
lock flock ex "$B/f" wait </dev/null >"$WORK/waited" 5>&- &
waiter=$!
exec 5>&-
wait "$waiter" || fail "the waiter"
grep -q held "$WORK/waited" || fail "the waiter has no lock"
# Ranges.
: >"$WORK/held"
exec 5> >(lock posix ex "$B/f" 10 10 >"$WORK/held")
wait_until 30 test -s "$WORK/held" || fail "no range"
expect_exit 1 lock posix sh "$A/f" 19 1 </dev/null
expect_exit 0 lock posix ex "$A/f" 20 5 </dev/null

# ---- the server forgets everything: what is held stays held
redis-cli -s "$WORK/redis.sock" flushall >/dev/null
wait_until 30 mounters "$A" 2 || fail "they do not come back"
expect_exit 1 lock posix sh "$A/f" 19 1 </dev/null
stop_server
start_server
wait_until 60 is_up "$A" || fail "A does not come back"
wait_until 60 is_up "$B" || fail "B does not come back"
wait_until 60 mounters "$A" 2 || fail "they do not come back"
expect_exit 1 lock posix sh "$A/f" 19 1 </dev/null
echo y >"$B/g"
assert_eq "$(cat "$A/g")" y "after the server's restart"

# ---- a mount that sleeps until its lock is another's commits nothing that it writes under it
exec 5>&-
echo old >"$A/s"
cat >"$WORK/sleeper.py" <<'PY'
import errno, fcntl, os, sys
f = os.open(sys.argv[1], os.O_WRONLY)
fcntl.flock(f, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
os.pwrite(f, b"sleeper", 0)
try:
    os.close(f)
except OSError as e:
    print(errno.errorcode[e.errno], flush=True)
PY
mkfifo "$WORK/go"
python3 "$WORK/sleeper.py" "$B/s" <"$WORK/go" >"$WORK/sleeper" 5>&- &
sleeper=$!
exec 6>"$WORK/go"
wait_until 30 grep -q held "$WORK/sleeper" || fail "the sleeper has no lock"
sleeping=$(daemon_of "$B")
kill -STOP "$sleeping"
taken() {
	lock flock ex "$A/s" </dev/null >/dev/null 6>&-
}
wait_until 60 taken || { kill -CONT "$sleeping"; fail "the sleeper's lock is not free"; }
kill -CONT "$sleeping"
wait_until 30 mounters "$A" 2 || fail "the sleeper does not come back"
exec 6>&-
wait "$sleeper"
grep -q EBUSY "$WORK/sleeper" || fail "the sleeper was not refused: $(cat "$WORK/sleeper")"
assert_eq "$(cat "$A/s")" old "what the sleeper wrote"

# ---- a mount that is killed leaves its locks
: >"$WORK/held"
exec 5> >(lock posix ex "$B/f" 10 10 wait >"$WORK/held")
wait_until 60 test -s "$WORK/held" || fail "no range"
kill -9 "$(daemon_of "$B")"
gone() {
	lock posix sh "$A/f" 19 1 </dev/null >/dev/null
}
wait_until 60 gone || fail "locks of the dead are still held"
exec 5>&-
umount -l "$B" 2>/dev/null || true
echo z >"$A/g"
wait_until 30 mounters "$A" 1 || fail "the dead is still listed"

# ---- the server is away: reads go on, commits are refused when the lease is over
unmount_volume
mount_at "$A" "$LOG" 1 ondown=ro
# The error is that of close(2), which bash keeps to itself.
cat >"$WORK/write.py" <<'PY'
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC | os.O_CREAT)
os.write(f, sys.argv[2].encode())
os.close(f)
PY
accepted() { # TEXT: a machine that is slow may have no lease for a moment
	python3 "$WORK/write.py" "$A/h" "$1" 2>/dev/null
}
wait_until 60 accepted before || fail "no commit with the server"
stop_server
refused() {
	! python3 "$WORK/write.py" "$A/h" during 2>"$WORK/err"
}
wait_until 60 refused || fail "commits go on without a lease"
grep -qi 'read-only' "$WORK/err" || fail "not EROFS: $(cat "$WORK/err")"
assert_eq "$(cat "$A/g")" z "a read without the server"
expect_exit 2 lock flock ex "$A/g" </dev/null
wait_until 60 grep -q '^ *redis: .*AWAY' "$A/.sop/status" || fail "status does not say that the server is away"
start_server
wait_until 60 accepted after || fail "commits do not go on"
assert_eq "$(cat "$A/h")" after "when the server is back"
unmount_volume

# ---- and waits for it, which is the default
mount_at "$A" "$LOG" 1
stop_server
lease_over() {
	[ "$(status "$A" .redis.up)" = false ] && [ "$(status "$A" .redis.for_s)" -ge 2 ]
}
wait_until 60 lease_over || fail "the server is not missed"
python3 "$WORK/write.py" "$A/w" waits &
writer=$!
assert_eq "$(cat "$A/h")" after "a read meanwhile"
start_server
wait "$writer" || fail "the commit that waited"
assert_eq "$(cat "$A/w")" waits "what waited"
unmount_volume
check_volume

# ---- no use for it in a volume of one machine
new_volume 1 1+0
expect_exit 32 "$SOPFS" "$SOURCE" "$MNT" -o "log=$LOG,redis=unix://$WORK/redis.sock"
expect_says 'not shared'
