#!/bin/bash
# What systemd hears: a service that is ready when it serves and says when it stops; lines of the journal with
# fields. A program of the test listens where systemd would, in a mount namespace of its own.
. "$(dirname "$0")/../namespace.sh"
. "$(dirname "$0")/../fs/functions.sh"
requires_root
requires python3

mkdir -p /run/systemd "$WORK/run"
mount -t tmpfs tmpfs /run/systemd
LOOPS+=(/run/systemd)
mkdir /run/systemd/journal
cat >"$WORK/listen.py" <<'END'
import os, select, socket, sys
socks = {}
for path, out in zip(sys.argv[1::2], sys.argv[2::2]):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(path)
    socks[s] = open(out, "ab", buffering=0)
print("listening", flush=True)
while os.getppid() == int(os.environ["TEST_PID"]):
    for s in select.select(list(socks), [], [], 1)[0]:
        socks[s].write(s.recv(65536) + b"\n--\n")
END
TEST_PID=$$ python3 "$WORK/listen.py" /run/systemd/journal/socket "$WORK/journal" "$WORK/run/notify" "$WORK/notify" \
	>"$WORK/listening" &
listener=$!
wait_until 60 grep -q listening "$WORK/listening" || fail "nobody listens"

new_volume 3 2+1 -L tank
mv "$WORK/d3" "$WORK/away" # something to say: degraded
NOTIFY_SOCKET=$WORK/run/notify JOURNAL_STREAM=1:1 "$SOPFS" -f "$SOURCE" "$MNT" 2>"$WORK/err" &
service=$!
wait_until 60 grep -q '^READY=1' "$WORK/notify" || fail "a service that is never ready: $(cat "$WORK/err")"
is_mounted "$MNT" || fail "ready before it is mounted"
grep -q "^MAINPID=$service\$" "$WORK/notify" || fail "MAINPID"
echo x >"$MNT/x"
kill -TERM "$service"
wait "$service" || fail "exit code $? after SIGTERM"
wait_until 60 grep -q '^STOPPING=1' "$WORK/notify" || fail "it does not say that it stops"

entry() { # PATTERN: a line of the journal that has it, as one line
	tr '\n' '|' <"$WORK/journal" | sed 's/|--|/\n/g' | grep -m 1 -- "$1" || fail "the journal has no $1"
}
entry 'DEGRADED' >"$WORK/entry"
grep -q 'PRIORITY=4|' "$WORK/entry" || fail "a warning has not priority 4: $(cat "$WORK/entry")"
grep -q 'SYSLOG_IDENTIFIER=sopfs|' "$WORK/entry" || fail "SYSLOG_IDENTIFIER"
entry 'SOPFS_VOLUME=tank|.*SOPFS_OP=mount' >/dev/null
entry "MESSAGE=sopfs\[tank\] main: op=mount: $MNT serves" >/dev/null
! grep -q serves "$WORK/err" || fail "the journal's lines are on stderr too, so twice in the journal"

# In the background too.
: >"$WORK/journal"
"$SOPFS" "$SOURCE" "$MNT"
wait_until 60 grep -q "$MNT serves" "$WORK/journal" || fail "nothing in the journal"
unmount_volume
kill "$listener"

# What the unit does behind its daemon: a mount of one that was killed goes; that of another stays, when it was
# the reason why the unit could not start.
mkdir "$WORK/conf"
printf 'source = %s\nmountpoint = %s\n' "$SOURCE" "$MNT" >"$WORK/conf/my-tank.conf"
sed -n "s/^ExecStopPost=-\/bin\/sh -c '\(.*\)'\$/\1/p" "$TOP/mount-helpers/systemd/sopfs@.service" |
	sed -e 's/\$\$/$/g' -e "s|@S*BINDIR@|$BUILD|g" -e 's/%i/my-tank/g' >"$WORK/behind"
behind() { # CODE
	SOPFS_CONFIG_DIR=$WORK/conf EXIT_CODE=$1 sh -c "$(cat "$WORK/behind")"
}
mount_volume
expect_exit 32 env SOPFS_CONFIG_DIR="$WORK/conf" "$SOPFS" -f my-tank
behind exited
is_mounted "$MNT" || fail "a unit that could not start takes another's mount away"
kill -9 "$PID"
wait_gone "$PID"
behind killed
! is_mounted "$MNT" || fail "the mount of a daemon that was killed stays"
