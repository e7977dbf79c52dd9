#!/bin/bash
# The control socket: who may do what, and that nothing a client does (garbage, a flood, deafness), no hung
# disk and no trick with its folder keeps the owner from the status of his volume.
. "$(dirname "$0")/functions.sh"
requires jq

KNOCK=$BUILD/fs/knock
new_volume 4 2+2 -L "$NAME"
mount_volume
SOCK=$(echo "$SOPFS_RUN_DIR"/*."$PID".sock)
[ -S "$SOCK" ] || fail "there is no socket"

sockets() {
	find "/proc/$PID/fd" -lname 'socket:*' | wc -l
}

sockets_are() {
	[ "$(sockets)" = "$1" ]
}
QUIET=$(sockets)

say() {
	"$KNOCK" "$SOCK" say "$1"
}

says() { # REQUEST JQ-FILTER
	say "$1" >"$WORK/answer"
	jq -e "$2" "$WORK/answer" >/dev/null || fail "$1: $(cat "$WORK/answer")"
}

# The protocol.
says '{"version":1,"verb":"hello"}' ".ok and .result.name == \"$NAME\" and .result.mount.pid == $PID"
says '{"version":1,"verb":"status"}' '.ok and .result.status.state == "ONLINE"'
says '{"version":2,"verb":"status"}' '(.ok | not) and .code == "EPROTONOSUPPORT"'
says '{"version":1,"verb":"fly"}' '(.ok | not) and .code == "EOPNOTSUPP"'
says '{"version":1,"verb":"offline"}' '(.ok | not) and .code == "EINVAL"'
says '{"version":1}' '(.ok | not) and .code == "EINVAL"'
says 'hello' '(.ok | not) and .code == "EINVAL"'
says '[1]' '(.ok | not)'
[ "$(printf '%s\n' '{"version":1,"verb":"hello"}' '{"version":1,"verb":"status"}' \
	'{"version":1,"verb":"sync"}' '{"version":1,"verb":"hello"}' |
	"$KNOCK" "$SOCK" raw | jq -c .ok | sort | uniq -c | tr -s ' ')" = ' 4 true' ] ||
	fail "four requests on one connection"
head -c 1000000 /dev/zero | tr '\0' x | "$KNOCK" "$SOCK" raw >"$WORK/answer"
jq -e '.code == "E2BIG"' "$WORK/answer" >/dev/null || fail "a long line: $(cat "$WORK/answer")"
# Deep nesting, NUL, two of a name, not UTF-8.
says "$(printf '[%.0s' {1..20000})" '.ok | not'
says '{"version":1,"version":1,"verb":"status"}' '.ok | not'
says '{"version":1,"verb":"sta\u0000tus"}' '.ok | not'
says "{\"version\":1,\"verb\":\"$(printf '\377\376')\"}" '.ok | not'

# What an ordinary user may: look, while the mount lets him in.
if [ "$(id -u)" = 0 ]; then
	as_other() {
		setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
	}
	chmod 755 "$SOPFS_RUN_DIR"
	as_other "$KNOCK" "$SOCK" say '{"version":1,"verb":"status"}' | jq -e '.ok and
		.result.status.errors.lost == null' >/dev/null || fail "others may look"
	for v in offline online replace add remove cancel scrub clear sync info events; do
		as_other "$KNOCK" "$SOCK" say \
			"{\"version\":1,\"verb\":\"$v\",\"disk\":\"d0\",\"path\":\"/\",\"action\":\"start\"}" \
			>"$WORK/answer"
		jq -e '.code == "EPERM"' "$WORK/answer" >/dev/null ||
			fail "$v by another user: $(cat "$WORK/answer")"
	done
fi

# Garbage, a flood, and clients that never read: the owner is answered all the same, and the daemon lives.
"$KNOCK" "$SOCK" garbage 300 "$SEED"
says '{"version":1,"verb":"hello"}' '.ok'
"$KNOCK" "$SOCK" many 200 >"$WORK/many"
grep -qE '^[0-9]+ served, [0-9]+ refused, 0 without' "$WORK/many" || fail "200 clients: $(cat "$WORK/many")"
grep -qE '^(6[0-9]|[7-9][0-9]|1..|200) served' "$WORK/many" || fail "few were served: $(cat "$WORK/many")"
if [ "$(id -u)" = 0 ]; then
	mkfifo "$WORK/end"
	as_other "$KNOCK" "$SOCK" deaf 100 <"$WORK/end" >"$WORK/deaf" &
	deaf=$!
	exec 7>"$WORK/end"
	wait_until 20 grep -q deaf "$WORK/deaf" || fail "the deaf clients do not stand"
	for _ in 1 2 3 4 5; do
		says '{"version":1,"verb":"status"}' '.ok'
	done
	echo >&7
	exec 7>&-
	wait "$deaf"
fi
# sopctl killed at any moment of any verb.
mkdir "$WORK/spare"
for round in 1 2 3 4 5; do
	for verb in "status $NAME" "sync $NAME" "scrub --wait $NAME" "events -f $NAME" "clear $NAME" \
		"info $MNT" "online $NAME d1" "replace -y --dry-run $NAME d1 $WORK/spare"; do
		# shellcheck disable=SC2086
		"$SOPCTL" $verb >/dev/null 2>&1 &
		[ "$round" = 1 ] || "$KNOCK" "$SOCK" garbage "$round" "$RANDOM"
		{ kill -9 $! && wait $!; } 2>/dev/null || true
	done
	says '{"version":1,"verb":"status"}' '.ok and .result.status.state == "ONLINE"'
done
"$SOPCTL" scrub --stop "$NAME" 2>/dev/null || true
wait_until 20 sockets_are "$QUIET" || fail "connections are left: $(sockets), not $QUIET"

# A second daemon of the volume's, after a kill: the dead one's socket is cleared away.
kill_daemon
[ -S "$SOCK" ] || fail "the dead daemon's socket should still lie there"
expect_exit 4 "$SOPCTL" sync "$NAME"
mount_volume
[ ! -e "$SOCK" ] || fail "the dead daemon's socket is still there"
"$SOPCTL" sync "$NAME"
SOCK=$(echo "$SOPFS_RUN_DIR"/*."$PID".sock)
unmount_volume
[ ! -e "$SOCK" ] || fail "the socket outlives the mount"

# A folder that somebody else could have prepared is not used; the mount works without it.
OWN=$SOPFS_RUN_DIR
mkdir "$WORK/elsewhere" "$WORK/open"
ln -s "$WORK/elsewhere" "$WORK/link"
chmod 777 "$WORK/open"
for folder in link open; do
	export SOPFS_RUN_DIR=$WORK/$folder
	mount_volume
	echo x >"$MNT/x"
	[ -z "$(find "$WORK/elsewhere" "$WORK/open" -type s)" ] || fail "a socket in $folder"
	grep -q 'op=control' "$LOG" || fail "nothing in the log about $folder"
	unmount_volume
done
if [ "$(id -u)" = 0 ]; then
	mkdir "$WORK/foreign"
	chown 65534 "$WORK/foreign"
	export SOPFS_RUN_DIR=$WORK/foreign
	mount_volume
	[ -z "$(ls -A "$WORK/foreign")" ] || fail "a socket in another user's folder"
	expect_exit 4 "$SOPCTL" sync "$NAME"
	unmount_volume
fi
export SOPFS_RUN_DIR=$OWN
check_volume
