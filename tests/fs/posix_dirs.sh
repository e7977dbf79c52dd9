#!/bin/bash
# Directories that are read while they change.
. "$(dirname "$0")/functions.sh"
count=10000
[ -z "$LONG" ] || count=1000000
for mode in session=close session=write; do
	new_volume 2 1+1
	mount_volume "$mode"
	mkdir "$MNT/$mode"
	"$BUILD/fs/posix_dirs" "$MNT/$mode" $count || fail "$mode: see above"
	assert_eq "$(getfattr --only-values -n sop.count "$MNT/$mode/large" 2>/dev/null)" $count "sop.count"
	rm -rf "${MNT:?}/$mode"
	unmount_volume
	check_volume
	rm -rf "${DISKS[@]}"
done
