#!/bin/bash
# Wrong words, wrong folders, full disks: one clear line with the remedy and the right code; nothing
# lost, nothing half-made.
. "$(dirname "$0")/functions.sh"

empty_dir() {
	[ -z "$(ls -A "$1")" ]
}

no_daemon() {
	[ -z "$(daemon_of "$MNT")" ]
}
not_mounted() {
	! is_mounted "$MNT" || fail "it is mounted all the same"
	# Who has said why may not have ended yet.
	wait_until 60 no_daemon || fail "a daemon was left"
}

# ---- mkfs ----
mkdir "$WORK/e1" "$WORK/e2"
expect_exit 1 "$MKFS" "$WORK/e1" "$WORK/nowhere" "$WORK/e2"
expect_says nowhere
empty_dir "$WORK/e1" || fail "mkfs refused, but wrote"
echo precious >"$WORK/e2/file"
expect_exit 1 "$MKFS" "$WORK/e1" "$WORK/e2"
expect_says "/e2" "-f"
empty_dir "$WORK/e1" || fail "mkfs refused, but wrote"
assert_eq "$(cat "$WORK/e2/file")" precious "a file in a refused folder"
rm "$WORK/e2/file"
expect_exit 1 "$MKFS" "$WORK/e1" "$WORK/e2" # one device
expect_says device "-f"
expect_exit 1 "$MKFS" -f --ec 4+2 "$WORK/e1" "$WORK/e2"
expect_says "4\+2|disks"
expect_exit 1 "$MKFS" -f --ec nonsense "$WORK/e1" "$WORK/e2"
expect_says nonsense "K\+M"
expect_exit 1 "$MKFS" -f --registry-hashmod 7 "$WORK/e1" "$WORK/e2"
expect_says "250" "750,?000"
expect_exit 1 "$MKFS"
expect_says folder
empty_dir "$WORK/e1" || fail "mkfs refused, but wrote"
empty_dir "$WORK/e2" || fail "mkfs refused, but wrote"

# ---- two volumes, with something in the first ----
new_volume 4 2+2 -L first
mount_volume
echo kept >"$MNT/kept"
unmount_volume
mkdir "$WORK/f1" "$WORK/f2" "$WORK/f3"
"$MKFS" -q -f -L second --ec 2+1 "$WORK/f1" "$WORK/f2" "$WORK/f3"
expect_exit 1 "$MKFS" "$WORK/d1" "$WORK/e1"
expect_says first "-f"

# ---- options and words ----
expect_exit 1 "$SOPFS" -o colour=blue "$SOURCE" "$MNT"
expect_says "colour=blue"
expect_exit 1 "$SOPFS" -o cache=lots "$SOURCE" "$MNT"
expect_says "cache=lots" size
expect_exit 1 "$SOPFS" -o session=sometimes "$SOURCE" "$MNT"
expect_says "session=close" "session=write"
expect_exit 1 "$SOPFS" "$SOURCE"
expect_says MOUNTPOINT
expect_exit 32 "$SOPFS" "$SOURCE" "$WORK/no-such-mountpoint"
expect_says "no-such-mountpoint" mkdir
expect_exit 32 "$SOPFS" "$SOURCE" "$WORK/f1/label.0"
expect_says directory
expect_exit 32 "$SOPFS" "$SOURCE" "$WORK/d1"
expect_says "d1"
# What holds all folders; as mount(8) -f calls it, so that nothing is mounted there if it is not refused.
ln -s "$SOPFS" "$WORK/mount.sopfs"
for dir in / "$WORK" "$WORK/d1/segments"; do
	expect_exit 32 "$WORK/mount.sopfs" -f "$SOURCE" "$dir"
	expect_says "a disk folder of the volume"
done

# ---- folders ----
expect_exit 32 "$SOPFS" "$WORK/nowhere" "$MNT"
expect_says nowhere
expect_exit 32 "$SOPFS" "$WORK/e1" "$MNT"
expect_says "/e1" "mkfs|label|volume|mounted"
mkdir "$WORK/foreign"
echo x >"$WORK/foreign/x"
expect_exit 32 "$SOPFS" "$WORK/foreign" "$MNT"
expect_says foreign
expect_exit 32 "$SOPFS" "$WORK/d1:$WORK/f1" "$MNT"
expect_says first second
not_mounted
mkdir "$WORK/away"
mv "$WORK/d1" "$WORK/d2" "$WORK/d3" "$WORK/away/"
expect_exit 32 "$SOPFS" "$WORK/d4" "$MNT"
expect_says "disk|member"
expect_exit 32 "$SOPFS" -o degraded "$WORK/d4" "$MNT"
mv "$WORK"/away/* "$WORK/"
mv "$WORK/d1" "$WORK/d2" "$WORK/away/"
expect_exit 32 "$SOPFS" "$WORK/d4" "$MNT"
expect_says degraded
mv "$WORK"/away/* "$WORK/"
not_mounted

# A member of a newer format: magic, then a le32 version, at offset 8 of both copies.
cp "$WORK/f1/label.0" "$WORK/save.0"
cp "$WORK/f1/label.1" "$WORK/save.1"
for c in 0 1; do
	printf '\x63\0\0\0' | dd of="$WORK/f1/label.$c" bs=1 seek=8 conv=notrunc status=none
done
expect_exit 32 "$SOPFS" "$WORK/f1" "$MNT"
expect_says "version" "99"
cp "$WORK/save.0" "$WORK/f1/label.0"
cp "$WORK/save.1" "$WORK/f1/label.1"

# A list of folders as long as the kernel takes, and one that is longer.
long=$SOURCE
while [ ${#long} -lt $((4095 - ${#DISKS[0]} - 1)) ]; do
	long=$long:${DISKS[0]}
done
"$SOPFS" "$long" "$MNT" -o "log=$LOG"
if [ "$(id -u)" = 0 ]; then
	expect_exit 0 "$BUILD/umount.sopfs" "$MNT"
fi
unmount_volume
expect_exit 32 "$SOPFS" "$long:${DISKS[0]}" "$MNT"
expect_says SOURCE 4095 'NAME.conf'
not_mounted

# ---- twice ----
mount_volume
mkdir "$WORK/mnt2"
MOUNTS+=("$WORK/mnt2")
expect_exit 32 "$SOPFS" "$SOURCE" "$MNT"
expect_says "mounted" umount
expect_exit 32 "$SOPFS" "$SOURCE" "$WORK/mnt2"
expect_says "in use|mounted|lock" "$PID"
is_mounted "$WORK/mnt2" && fail "mounted twice"
expect_exit 1 "$MKFS" -f "${DISKS[@]}"
expect_says "in use|mounted|lock" # not even with -f

# ---- in the mount ----
cd "$MNT"
name255=$(printf 'n%.0s' {1..255})
echo x >"$name255"
assert_eq "$(cat "$name255")" x "a name of 255 bytes"
expect_exit 1 touch "${name255}n"
expect_says "too long"
expect_exit 1 mkdir kept/below
expect_says "not a directory"
expect_exit 1 cat kept/below
expect_says "not a directory"
expect_exit 1 cat nothing
expect_says "no such file"
expect_exit 1 rmdir kept
expect_says "not a directory"
assert_eq "$(cat kept)" kept "what was there"
cd /
unmount_volume
check_volume

# A daemon that died: the mount point is taken over.
mount_volume
kill -9 "$PID"
wait_gone "$PID" 10
mount_volume
assert_eq "$(cat "$MNT/kept")" kept "after a dead mount was replaced"

# Also of one that dies while it is asked about the mount point.
kill -STOP "$PID"
stands_still() {
	! cat "/proc/$PID/task"/*/status | grep '^State:' | grep -qv 'T (stopped)'
}
wait_until 60 stands_still || fail "the daemon cannot be stopped"
"$SOPFS" "$SOURCE" "$MNT" -o "log=$LOG" 2>"$WORK/err" &
mounter=$!
# Where the kernel does not tell who waits, the test proves less, and fails no more.
wait_until 5 grep -q wait_answer "/proc/$mounter/wchan" || true
kill -9 "$PID"
wait "$mounter" || fail "not mounted in place of one that has just died: $(cat "$WORK/err")"
assert_eq "$(cat "$MNT/kept")" kept "after a mount that has just died was replaced"
unmount_volume

# ---- a read-only mount ----
mount_volume ro
expect_exit 1 touch "$MNT/new"
expect_says "read-only"
assert_eq "$(cat "$MNT/kept")" kept "read only"
unmount_volume
