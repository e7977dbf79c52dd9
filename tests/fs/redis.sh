# shellcheck shell=bash
# Sourced after functions.sh by tests of mounts that meet at a Redis server.
requires redis-server redis-cli python3 jq

# shellcheck disable=SC2034
A=$MNT
B=$WORK/b
mkdir "$B"
MOUNTS+=("$B")

# start_server [NAME [option...]]: on the socket $WORK/NAME.sock; NAME is redis, unless another is wanted.
declare -A SERVER
# shellcheck disable=SC2120
start_server() {
	local name=${1:-redis}
	shift $(($# ? 1 : 0))
	redis-server --port 0 --unixsocket "$WORK/$name.sock" --dir "$WORK" --save '' --appendonly no --dbfilename "$name.rdb" \
		--daemonize no --logfile "$WORK/$name.log" "$@" 5>&- 6>&- &
	SERVER[$name]=$!
	wait_until 60 answers "$name" || fail "redis does not start"
}

redis() { # NAME command...
	redis-cli -s "$WORK/$1.sock" "${@:2}" 2>/dev/null
}

answers() { # NAME
	[ "$(redis "$1" ping)" = PONG ]
}

stop_server() { # [NAME]
	local name=${1:-redis}
	[ -n "${SERVER[$name]:-}" ] || return 0
	kill -9 "${SERVER[$name]}"
	wait "${SERVER[$name]}" 2>/dev/null || true
	unset "SERVER[$name]"
}

at_end() {
	local name
	for name in "${!SERVER[@]}"; do
		stop_server "$name"
	done
}

# mount_at MOUNTPOINT LOG [lease [option,...]]. A lease that a machine has to stand still for seconds to miss.
mount_at() {
	"$SOPFS" "$SOURCE" "$1" -o "log=$2,redis=unix://$WORK/redis.sock,lease=${3:-8}${4:+,$4}"
}

status() { # MOUNTPOINT JQ
	jq -r "$2" "$1/.sop/status.json"
}

is_up() {
	[ "$(status "$1" .redis.up)" = true ]
}

is_away() {
	[ "$(status "$1" .redis.up)" = false ]
}

mounters() { # MOUNTPOINT NUMBER
	[ "$(status "$1" '.mounters | length')" = "$2" ]
}

# lock KIND TYPE FILE [start len] [wait]: exit code 0 granted (and held until its input ends), 1 refused
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

# The lock is free; it is let go of again.
takes() { # MOUNTPOINT NAME
	lock flock ex "$1/$2" </dev/null >/dev/null 6>&-
}

# write.py FILE TEXT: bash keeps the error of close(2) to itself.
cat >"$WORK/write.py" <<'PY'
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC | os.O_CREAT)
os.write(f, sys.argv[2].encode())
os.close(f)
PY

# sleeper FILE: writes it under a lock, and closes it when told to; "held" and the error of close(2), if there is
# one, in $WORK/sleeper.
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
sleeper_begins() { # FILE
	rm -f "$WORK/go"
	mkfifo "$WORK/go"
	python3 "$WORK/sleeper.py" "$1" <"$WORK/go" >"$WORK/sleeper" 5>&- &
	SLEEPER=$!
	exec 6>"$WORK/go"
	wait_until 60 grep -q held "$WORK/sleeper" || fail "the sleeper has no lock"
}
# Others have had its lock meanwhile.
sleeper_is_refused() {
	exec 6>&-
	wait "$SLEEPER"
	grep -q EBUSY "$WORK/sleeper" || fail "the sleeper was not refused: $(cat "$WORK/sleeper")"
}
