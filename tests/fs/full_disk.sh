#!/bin/bash
# Disks that fill up: ENOSPC at write or close, what was there stays whole, deletes go through and give
# the room back.
. "$(dirname "$0")/functions.sh"
requires mkfs.ext4
requires_root

for i in 1 2 3 4; do
	small_ext4 "$WORK/d$i" 128
done
new_volume 4 2+2
mount_volume
echo kept >"$MNT/kept"
head -c 8M /dev/urandom >"$MNT/old"
sum=$(sha256sum <"$MNT/old")

mkdir "$MNT/fill"
for ((i = 0; i < 200; i++)); do
	head -c 4M /dev/urandom >"$MNT/fill/$i" 2>"$WORK/err" || break
done
[ "$i" -lt 200 ] || fail "the disks never fill up"
grep -qi "no space" "$WORK/err" || {
	cat "$WORK/err"
	fail "not ENOSPC"
}
# The one that failed is not there in part; a rewrite that fails leaves the old content.
[ ! -e "$MNT/fill/$i" ] || assert_eq "$(stat -c %s "$MNT/fill/$i")" 0 "half a file"
head -c 64M /dev/zero 2>/dev/null | tr '\0' 'x' | dd of="$MNT/old" bs=1M status=none 2>"$WORK/err" &&
	fail "64 MiB fit on a full volume"
assert_eq "$(sha256sum <"$MNT/old")" "$sum" "the old version after ENOSPC"
assert_eq "$(cat "$MNT/kept")" kept "a small file"

rm -r "$MNT/fill" || fail "a full volume refuses deletes"
sync "$MNT/kept"
room() {
	head -c 16M /dev/urandom >"$MNT/after" 2>/dev/null
}
wait_until 20 room || fail "no room after deleting everything"
unmount_volume
mount_volume
assert_eq "$(sha256sum <"$MNT/old")" "$sum" "after a remount"
assert_eq "$(stat -c %s "$MNT/after")" $((16 << 20)) "written after the deletes"
unmount_volume
check_volume

# Filled up by others, to the last byte, they have no room for what a mount writes: it says so, and what helps.
for i in 1 2 3 4; do
	head -c 256M /dev/zero >"$WORK/d$i/others" 2>/dev/null && fail "256 MiB fit on a disk of 128"
done
expect_exit 32 "$SOPFS" "$SOURCE" "$MNT" -o "log=$LOG"
expect_says 'no space' 'make room' '-o ro'
mount_volume ro
assert_eq "$(sha256sum <"$MNT/old")" "$sum" "read-only, on disks without room"
unmount_volume
rm "$WORK"/d?/others
mount_volume
unmount_volume
check_volume
