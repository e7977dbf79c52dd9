#!/bin/bash
# The password at a Redis server, by each of the ways it can come: it is used, and shows nowhere.
. "$(dirname "$0")/functions.sh"
requires redis-server redis-cli jq getfattr

password=open-sesame-4711
printf 'requirepass %s\n' "$password" >"$WORK/redis.conf"
redis-server "$WORK/redis.conf" --port 0 --unixsocket "$WORK/redis.sock" --dir "$WORK" --save '' --appendonly no \
	--daemonize no --logfile "$WORK/redis.log" &
server=$!
at_end() {
	kill -9 "$server"
	wait "$server" 2>/dev/null || true
}
answers() {
	redis-cli -s "$WORK/redis.sock" ping 2>&1 | grep -q NOAUTH
}
wait_until 60 answers || fail "redis does not start"

new_volume 3 2+1 --shared -L "$NAME"
url=redis=unix://$WORK/redis.sock
is_up() {
	[ "$(jq -r .redis.up "$MNT/.sop/status.json")" = true ]
}
# Whatever others, or whoever looks at logs, may see of it.
shows_nowhere() {
	wait_until 60 is_up || fail "$1: the server does not let it in: $(jq -c .redis "$MNT/.sop/status.json")"
	echo x >"$MNT/file"
	"$SOPCTL" status -v --json "$MNT" >"$WORK/status"
	getfattr --absolute-names --only-values -n sop.options "$MNT" >"$WORK/options"
	for place in "/proc/$PID/cmdline" "/proc/$PID/environ" /proc/self/mountinfo "$LOG" "$WORK/status" "$WORK/options" \
		"$MNT/.sop/status" "$MNT/.sop/metrics"; do
		! grep -qaF "$password" "$place" || fail "$1: the password shows in $place"
	done
	unmount_volume
}

echo "$password" >"$WORK/secret"
chmod 600 "$WORK/secret"
mount_volume "$url,redis_password_file=$WORK/secret"
shows_nowhere "a file"

mkdir "$WORK/credentials"
mv "$WORK/secret" "$WORK/credentials/redis_password"
CREDENTIALS_DIRECTORY=$WORK/credentials mount_volume "$url"
shows_nowhere "a credential"

SOPFS_REDIS_PASSWORD=$password mount_volume "$url"
grep -qa SOPFS_ "/proc/$PID/environ" || fail "the environment cannot be looked at: this tests nothing"
shows_nowhere "the environment"

# Nor where it is not needed, since a file has it, too.
SOPFS_REDIS_PASSWORD=$password mount_volume "$url,redis_password_file=$WORK/credentials/redis_password"
shows_nowhere "the environment beside a file"

# ---- refused, and not quoted ----
expect_exit 1 "$SOPFS" "$SOURCE" "$MNT" -o "redis=redis://:$password@localhost"
expect_says 'redis_password_file='
! grep -qF "$password" "$WORK/err" || fail "the message quotes the password"
chmod 644 "$WORK/credentials/redis_password"
CREDENTIALS_DIRECTORY=$WORK/credentials expect_exit 1 "$SOPFS" "$SOURCE" "$MNT" -o "$url"
expect_says 'redis_password' 'chmod 600'
