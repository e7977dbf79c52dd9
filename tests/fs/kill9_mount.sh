#!/bin/bash
# The daemon is killed while it mounts, recovers and unmounts, again and again, on a volume that has something
# to recover: what was closed stays, and the volume can always be mounted.
. "$(dirname "$0")/functions.sh"

rounds=8
[ -z "$LONG" ] || rounds=150
prefix=$BUILD/fs/prefix
new_volume 3 2+1

# Kill the mounter, whatever it has become meanwhile: the program that mounts, or its daemon.
kill_all() {
	local pid
	pid=$(daemon_of "$MNT")
	[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
	kill -9 "$1" 2>/dev/null || true
	wait "$1" 2>/dev/null || true
	pid=$(daemon_of "$MNT")
	[ -z "$pid" ] || {
		kill -9 "$pid"
		wait_gone "$pid" 30 || fail "the daemon does not die"
	}
	[ "$(id -u)" -ne 0 ] || umount -f "$MNT" 2>/dev/null || true
	! is_mounted "$MNT" || umount -l "$MNT" 2>/dev/null || fusermount3 -uqz "$MNT"
}

some_ms() {
	sleep "$(printf '0.%03d' $((RANDOM % $1)))"
}

for ((r = 1; r <= rounds; r++)); do
	mount_volume "commit=$((RANDOM % 300 + 1))ms,checkpoint=$((RANDOM % 500 + 100))ms"
	mkdir -p "$MNT/d"
	"$prefix" run "$MNT/d" "$r" "$WORK/log" &
	writer=$!
	wait_until 60 test -e "$WORK/log" || fail "the writer does not begin"
	some_ms 900
	kill_daemon
	wait "$writer" || fail "the writer failed"
	# In the middle of mounting and recovering, several times in a row.
	for ((k = 0; k < 3; k++)); do
		"$SOPFS" "$SOURCE" "$MNT" -o "log=$LOG" >/dev/null 2>&1 &
		mounter=$!
		some_ms 120
		kill_all "$mounter"
	done
	mount_volume
	"$prefix" verify "$MNT/d" "$r" "$WORK/log" closed || fail "round $r: after mounts that were killed"
	rm -r "$MNT/d" "$WORK/log"
	mkdir "$MNT/d"
	echo "$r" >"$MNT/d/last"
	# In the middle of unmounting.
	umount "$MNT" 2>/dev/null || fusermount3 -u "$MNT"
	some_ms 60
	kill -9 "$PID" 2>/dev/null || true
	wait_gone "$PID" 30 || fail "the daemon does not die"
	mount_volume
	assert_eq "$(cat "$MNT/d/last")" "$r" "round $r: after an unmount that was killed"
	rm -r "$MNT/d"
	unmount_volume
done
check_volume
