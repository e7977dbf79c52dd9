#!/bin/bash
# The daemon is killed (SIGKILL) at random moments of a storm of creates and rewrites: after a new mount
# every file whose close() had returned is there, whole; nothing is torn.
. "$(dirname "$0")/functions.sh"

rounds=10
[ -z "$LONG" ] || rounds=200
storm=$BUILD/fs/storm
new_volume 4 2+2

for ((r = 1; r <= rounds; r++)); do
	mount_volume "commit=$((RANDOM % 1000 + 1))ms,checkpoint=$((RANDOM % 2000 + 100))ms"
	writers=()
	for w in 1 2 3; do
		"$storm" write "$MNT" $w $r "$WORK/done.$w" &
		writers+=($!)
	done
	sleep "$(printf '%d.%03d' $((RANDOM % 2)) $((RANDOM % 1000)))"
	kill_daemon
	for w in "${writers[@]}"; do
		wait "$w" || fail "a writer failed"
	done
	mount_volume
	echo "round $r"
	"$storm" verify "$MNT" "$WORK"/done.[123] || fail "round $r: the volume does not hold what was closed"
	rm -f "$MNT"/r* "$WORK"/done.*
	# Every other time the next storm begins on a volume that has only been recovered.
	if [ $((r % 2)) = 0 ]; then
		unmount_volume
	else
		kill_daemon
	fi
done
check_volume
