#!/bin/bash
# Random operations on one file, compared with an array of bytes, under both kinds of session: all ways
# to read, write, map, truncate, allocate, punch, copy and seek. Afterwards the volume checks clean, and
# the file is the same under another mount. SEED=n repeats one; LONG=1 runs many.
. "$(dirname "$0")/functions.sh"

seeds=2 ops=1200
[ -z "$LONG" ] || seeds=25 ops=12000

# one_run SESSION ARG...: some seeds, then the same bytes after a remount.
one_run() {
	local i session=$1
	shift
	mount_volume "session=$session,commit=100ms,checkpoint=500ms,cache=32M"
	for ((i = 0; i < seeds; i++)); do
		"$BUILD/fs/onefile" -b -s $((SEED + i)) -m "$WORK/model" "$@" "$MNT/f" ||
			fail "session=$session, seed $((SEED + i)): $*"
	done
	unmount_volume
	check_volume
	mount_volume "session=$session"
	cmp "$WORK/model" "$MNT/f" || fail "session=$session: another file after the remount"
	unmount_volume
}

new_volume 2 1+1
one_run close -n "$ops"
one_run write -w -n "$ops"
# Large operations, which go to the disks at once.
one_run close -n $((ops / 6)) -l 8000000 -o 1500000
one_run write -w -n $((ops / 6)) -l 8000000 -o 1500000
