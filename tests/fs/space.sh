#!/bin/bash
# Many times the volume's size is written, rewritten and deleted on small disks: nothing leaks, neither
# in the volume's own account nor on the disks below.
. "$(dirname "$0")/functions.sh"
requires mkfs.ext4
requires_root

times=3
[ -z "$LONG" ] || times=20
mib=128
for i in 1 2 3 4; do
	small_ext4 "$WORK/d$i" $mib
done
new_volume 4 2+2
mount_volume commit=100ms,checkpoint=500ms

used() {
	df --output=used -k "${DISKS[@]}" | awk 'NR > 1 { s += $1 } END { print s }'
}

# One turn: a few large files, rewritten in parts, many small ones, directories; then all of it away.
turn() {
	local i
	mkdir "$MNT/t"
	for ((i = 0; i < 4; i++)); do
		head -c 12M /dev/urandom >"$MNT/t/large$i"
	done
	for ((i = 0; i < 50; i++)); do
		head -c 20000 /dev/urandom | dd of="$MNT/t/large$((i % 4))" bs=20000 seek=$((RANDOM % 600)) \
			conv=notrunc status=none
	done
	mkdir "$MNT/t/small"
	(cd "$MNT/t/small" && seq 1 1500 | split -l 1 -a 4 - f)
	for ((i = 0; i < 4; i++)); do
		head -c 6M /dev/urandom >"$MNT/t/large$i"
	done
	mv "$MNT/t/large0" "$MNT/t/large1"
	rm -r "$MNT/t"
}

turn
unmount_volume
mount_volume commit=100ms,checkpoint=500ms
base=$(used)
# 4 + 1 + 24 MiB and more go through in a turn, of about 2 x $mib that there are.
turns=$((times * 2 * mib / 75 + 1))
for ((n = 1; n <= turns; n++)); do
	turn
done
unmount_volume
mount_volume
# The journal and the registry may be as large as they may be; what was stored may not have grown.
no_more() {
	now=$(used)
	[ "$now" -le $((base + 24 * 1024)) ]
}
# What was removed last is given back in the background.
wait_until 120 no_more || fail "space leaks: $base KiB before, $now KiB after"
echo "used: $base KiB before, $now KiB after $turns turns"
head -c 60M /dev/urandom >"$MNT/fits" || fail "what fitted once does not fit now"
unmount_volume
check_volume
