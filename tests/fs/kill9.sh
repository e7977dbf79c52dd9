#!/bin/bash
# The daemon is killed (SIGKILL) at random moments of a storm of creates and rewrites, and of appends,
# overwrites, renames, removals and syncs: after a new mount everything whose close() had returned is there,
# whole; nothing is torn, and each writer's changes are there up to one of them and no further.
. "$(dirname "$0")/functions.sh"

rounds=10
[ -z "$LONG" ] || rounds=200
storm=$BUILD/fs/storm
prefix=$BUILD/fs/prefix
new_volume 4 2+2

# They have their folders open.
all_begun() {
	[ -e "$WORK/done.1" ] && [ -e "$WORK/done.2" ] && [ -e "$WORK/log.3" ] && [ -e "$WORK/log.4" ]
}

for ((r = 1; r <= rounds; r++)); do
	mount_volume "commit=$((RANDOM % 1000 + 1))ms,checkpoint=$((RANDOM % 2000 + 100))ms"
	writers=()
	for w in 1 2; do
		"$storm" write "$MNT" $w $r "$WORK/done.$w" &
		writers+=($!)
	done
	for w in 3 4; do
		mkdir "$MNT/.p$w"
		"$prefix" run "$MNT/.p$w" $((r * 10 + w)) "$WORK/log.$w" &
		writers+=($!)
	done
	wait_until 60 all_begun || fail "the writers do not begin"
	sleep "$(printf '%d.%03d' $((RANDOM % 2)) $((RANDOM % 1000)))"
	kill_daemon
	for w in "${writers[@]}"; do
		wait "$w" || fail "a writer failed"
	done
	mount_volume
	echo "round $r"
	"$storm" verify "$MNT" "$WORK"/done.[12] || fail "round $r: the volume does not hold what was closed"
	for w in 3 4; do
		"$prefix" verify "$MNT/.p$w" $((r * 10 + w)) "$WORK/log.$w" closed ||
			fail "round $r: not the changes up to the last close"
	done
	rm -rf "$MNT"/r* "$MNT"/.p* "$WORK"/done.* "$WORK"/log.*
	# Every other time the next storm begins on a volume that has only been recovered.
	if [ $((r % 2)) = 0 ]; then
		unmount_volume
	else
		kill_daemon
	fi
done
check_volume
