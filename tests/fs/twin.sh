#!/bin/bash
# The model test of the mount: random operations go to it and to a trusted file system; results, errors
# and bytes agree, after each call and after remounts and deaths of the daemon in between.
. "$(dirname "$0")/functions.sh"

runs=6 count=4000
[ -z "$LONG" ] || runs=60 count=20000
new_volume 4 2+2
mkdir "$WORK/reference"
mount_volume cache=16M,checkpoint=300ms
for ((r = 0; r < runs; r++)); do
	echo "run $r: twin $((SEED + r)) $count"
	"$BUILD/fs/twin" $((SEED + r)) $count "$MNT" "$WORK/reference"
	case $((r % 3)) in
	0) unmount_volume ;;
	1) kill_daemon ;;
	2) continue ;;
	esac
	mount_volume cache=16M,checkpoint=300ms
	same_tree "$WORK/reference" "$MNT"
done
same_tree "$WORK/reference" "$MNT"
unmount_volume
check_volume
