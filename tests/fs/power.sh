#!/bin/bash
# Power loss under a real file system: the disks are ext4 and xfs on loop devices whose backing files have a
# write cache that can be lost. After each cut the file systems replay their own journals, the volume is mounted,
# and holds an exact prefix of what was done, at least up to the last fsync. Then a device that fails, and one
# that is slow, in the middle of the work.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/disks.sh"
requires mkfs.ext4 losetup
requires_root

rounds=3
[ -z "$LONG" ] || rounds=40
flaky=$WORK/flaky
prefix=$BUILD/fs/prefix
mkdir "$flaky" "$WORK/d1" "$WORK/d2" "$WORK/d3"

at_end() {
	[ -z "${writer:-}" ] || kill -9 "$writer" 2>/dev/null
	[ -z "${stirrer:-}" ] || kill -9 "$stirrer" 2>/dev/null
	! mountpoint -q "$flaky" || umount -l "$flaky"
}

tell() {
	echo "$*" >"$flaky/ctl"
}

# A loop device goes with its mount. What the kernel cached of it goes, too.
disks_mount() {
	local i loop
	for i in 1 2 3; do
		loop=$(losetup -f --show "$flaky/d$i.img") || skip "needs loop devices"
		mount "$loop" "$WORK/d$i" || {
			losetup -d "$loop"
			fail "d$i does not mount"
		}
		losetup -d "$loop"
		LOOPS+=("$WORK/d$i")
	done
}

# The file systems of before the cut must be gone before the power is on again, or they would go on writing. A
# mount namespace that somebody has made meanwhile keeps them as long as it lives.
detached() {
	[ -z "$(losetup -j "$flaky/d$1.img")" ]
}

disks_unmount() {
	local i
	for i in 1 2 3; do
		wait_until 60 umount "$WORK/d$i" || fail "d$i does not unmount"
	done
	for i in 1 2 3; do
		wait_until 300 detached "$i" || fail "d$i is still in use: $(losetup -j "$flaky/d$i.img")"
	done
	LOOPS=()
}

devices() {
	local fs=$1 i
	"$BUILD/fs/flaky_disk" "$flaky" 3 320 || skip "needs a FUSE mount"
	for i in 1 2 3; do
		"mkfs.$fs" -q "$flaky/d$i.img"
	done
	disks_mount
	rmdir "$WORK"/d?/lost+found 2>/dev/null || true
}

write_on() {
	local least=$1
	rm -f "$WORK/log"
	"$prefix" run "$MNT" "$seed" "$WORK/log" &
	writer=$!
	wait_until 300 enough "$least" || fail "the writer does not get on"
}

enough() {
	[ -e "$WORK/log" ] && [ "$(wc -l <"$WORK/log")" -ge "$1" ]
}

for fs in ext4 xfs; do
	command -v "mkfs.$fs" >/dev/null || {
		echo "no mkfs.$fs: passed over"
		continue
	}
	devices $fs
	new_volume 3 2+1
	for ((r = 1; r <= rounds; r++)); do
		seed=$RANDOM
		mount_volume "commit=$((RANDOM % 400 + 20))ms,checkpoint=$((RANDOM % 1000 + 100))ms"
		rm -f "$MNT"/f*
		sync "$MNT"
		"$prefix" stir "$WORK/d1" "$WORK/d2" "$WORK/d3" &
		stirrer=$!
		[ -z "${LYING:-}" ] || tell lie
		write_on $((RANDOM % 600 + 20))
		tell "cut $seed"
		wait_until 300 grep -q "^power off" "$flaky/ctl" || fail "nothing was written any more"
		kill -9 "$stirrer"
		wait "$stirrer" || true
		stirrer=
		kill_daemon
		wait "$writer" || true
		writer=
		disks_unmount
		tell on
		disks_mount
		mount_volume
		"$prefix" verify "$MNT" "$seed" "$WORK/log" ||
			fail "$fs, round $r: no prefix of what was done"
		unmount_volume
		check_volume
	done
	echo "$fs: $rounds cuts; $(cat "$flaky/ctl")"
	grep -Eq "(lost|kept) [1-9]" "$flaky/ctl" || fail "no cut found anything that was not flushed"

	# One device of three fails, and later another is slow: nobody notices.
	seed=$RANDOM
	mount_volume disk_timeout=5s
	rm -f "$MNT"/f*
	write_on 60
	tell "eio 2"
	have=$(wc -l <"$WORK/log")
	wait_until 300 enough $((have + 200)) || fail "one device of three fails, and the work ends"
	tell "delay 3 5"
	have=$(wc -l <"$WORK/log")
	wait_until 300 enough $((have + 60)) || fail "a slow device, and the work ends"
	kill -9 "$writer"
	wait "$writer" || true
	writer=
	sync "$MNT" || true
	tell "delay 3 0"
	wait_until 60 umount "$MNT" || fail "no unmount with a device that fails"
	wait_gone "$PID" 60 || fail "no end with a device that fails"
	tell "eio 0"
	disks_unmount
	disks_mount
	had=$(wc -l <"$LOG")
	mount_volume
	"$prefix" verify "$MNT" "$seed" "$WORK/log" closed || fail "after errors of a device"
	unmount_volume
	# A healing that was cut by the unmount does not say that it is through; the next mount goes on with it.
	if tail -n "+$((had + 1))" "$LOG" | grep -q "op=heal .*state=finished"; then
		check_volume
	fi
	mount_volume
	wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
	unmount_volume
	check_volume
	disks_unmount
	wait_until 60 umount "$flaky" || fail "the devices do not unmount"
done
