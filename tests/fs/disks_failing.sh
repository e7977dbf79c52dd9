#!/bin/bash
# Disks that fail while the volume is used: EIO on read, on write, on sync, no space, read-only; a folder
# deleted, one unmounted, one whose file system dies. Two at once, as many as parity allows: one with data and
# a replica of the registry, one with a replica alone. What is read is right, writes go on, what was missed is
# healed, and the same again at mount.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/disks.sh"
requires jq mkfs.ext4
requires_root

mkdir -p "$WORK/back2" "$WORK/backs" "$WORK/d2" "$WORK/s"
faulty_disk "$WORK/back2" "$WORK/mode" "$WORK/d2"
faulty_disk "$WORK/backs" "$WORK/mode" "$WORK/s"
small_ext4 "$WORK/d5" 200

# Five disks of data: a full one is passed by.
new_volume 5 2+2 --stores "$(IFS=, && echo "$WORK/s,$WORK/d1,$WORK/d2,$WORK/d3")"
SOURCE=$SOURCE:$WORK/s
DISKS+=("$WORK/s")
mount_volume commit=100ms,checkpoint=500ms
fill_disks 8M
load_start 2
load_turns 3

failed() { # PATH...: these are set aside
	local p
	for p; do
		[ "$(state_of "$p")" = FAILED ] || return 1
	done
}
durable() {
	dd if=/dev/zero of="$MNT/durable" bs=4k count=1 conv=fsync status=none
}
volume_is() {
	[ "$(ctl status --json "$MNT" | jq -r .state)" = "$1" ]
}
back_again() {
	local p
	for p in "$WORK/d2" "$WORK/s"; do
		[ "$(of "$p" present)" = true ] || ctl online "$MNT" "$p" >/dev/null 2>&1 || return 1
	done
	all_online
}

for fault in eio-write eio-fsync erofs enospc eio-read; do
	echo "$fault, with load"
	echo "$fault" >"$WORK/mode"
	load_turns 6
	durable
	filled_on_disk
	case $fault in
	eio-read)
		# Of all that it is asked for it gives nothing: counted, and too many set it aside.
		ctl scrub "$MNT" >/dev/null
		read_errors() {
			[ "$(of "$WORK/d2" read_errors)" -gt 0 ]
		}
		wait_until 60 read_errors || fail "errors on read are not counted: $(ctl status "$MNT")"
		scrub_is() {
			[ "$(ctl status --json "$MNT" | jq -r '.tasks[] | select(.kind == "scrub") | .state')" = "$1" ]
		}
		wait_until 60 scrub_is finished || fail "the scrub does not end: $(ctl status "$MNT")"
		filled_on_disk
		;;
	enospc)
		# A full disk is passed by for data; its replica is done without when it misses something,
		# and until then it only puts checkpoints off.
		;;
	*)
		wait_until 60 failed "$WORK/d2" "$WORK/s" || fail "not set aside: $(ctl status "$MNT")"
		volume_is DEGRADED || fail "not degraded: $(ctl status "$MNT")"
		;;
	esac
	for p in d1 d3 d4 d5; do
		is_state "$WORK/$p" ONLINE || fail "$p is set aside as well: $(ctl status "$MNT")"
	done
	load_turns 3
	rm "$WORK/mode"
	wait_until 120 back_again || fail "not healed: $(ctl status "$MNT")"
	load_turns 3
	filled_on_disk
done

echo "the file system of a disk dies"
for p in d2 s; do
	kill -9 "$(pgrep -x -f "$BUILD/fs/faulty_folder .* $WORK/$p")"
done
load_turns 6
durable
filled_on_disk
wait_until 60 failed "$WORK/d2" "$WORK/s" || fail "not set aside: $(ctl status "$MNT")"
umount -l "$WORK/d2"
umount -l "$WORK/s"
load_turns 3
[ -z "$(ls -A "$WORK/d2")" ] || fail "written below the mount point: $(ls -A "$WORK/d2")"
faulty_disk "$WORK/back2" "$WORK/mode" "$WORK/d2"
faulty_disk "$WORK/backs" "$WORK/mode" "$WORK/s"
wait_until 120 back_again || fail "not healed: $(ctl status "$MNT")"

echo "a folder deleted, another unmounted"
rm -rf "$WORK/d4"
umount -l "$WORK/d5"
load_turns 6
durable
filled_on_disk
wait_until 60 failed "$WORK/d4" || fail "not set aside: $(ctl status "$MNT")"
[ ! -e "$WORK/d4" ] || fail "made anew: $(ls -A "$WORK/d4")"
[ -z "$(ls -A "$WORK/d5")" ] || fail "written below the mount point: $(ls -A "$WORK/d5")"
mkdir "$WORK/new4"
ctl replace --yes --force "$MNT" "$WORK/d4" "$WORK/new4"
wait_until 120 all_online || fail "not replaced: $(ctl status "$MNT")"
load_turns 3
load_stop
filled_on_disk
DISKS=("$WORK/d1" "$WORK/d2" "$WORK/d3" "$WORK/new4" "$WORK/d5" "$WORK/s")
SOURCE=$(colon_list "${DISKS[@]}")
unmount_volume
mount -o loop "$WORK/d5.img" "$WORK/d5"

at_mount=(eio-read eio-fsync)
[ -z "$LONG" ] || at_mount+=(eio-write erofs)
for fault in "${at_mount[@]}"; do
	echo "$fault, from the mount on"
	echo "$fault" >"$WORK/mode"
	mount_volume
	filled_on_disk
	echo "written with $fault" >"$MNT/$fault"
	durable
	unmount_volume
	rm "$WORK/mode"
	mount_volume
	assert_eq "$(cat "$MNT/$fault")" "written with $fault"
	wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
	verify_load
	unmount_volume
done
check_whole

echo "any two may go"
rm -rf "$WORK/d1" "$WORK/new4"
mount_volume degraded
filled_on_disk
verify_load
for fault in "${at_mount[@]}"; do
	assert_eq "$(cat "$MNT/$fault")" "written with $fault"
done
unmount_volume
