#!/bin/bash
# umount.sopfs by a link to the mount point, as umount(8); when not all can be written out: it unmounts all the same, and says so. When the daemon hangs: by
# force it does not wait, and otherwise a signal ends the wait.
. "$(dirname "$0")/../fs/functions.sh"
. "$(dirname "$0")/../fs/disks.sh"
requires_root

mkdir "$WORK/back" "$WORK/d1"
faulty_disk "$WORK/back" "$WORK/mode" "$WORK/d1"
"$MKFS" -q --ec 1+0 "$WORK/d1"
SOURCE=$WORK/d1
mount_volume commit=1h,checkpoint=1h
echo x >"$MNT/x"
echo eio-fsync >"$WORK/mode"
expect_exit 2 "$BUILD/umount.sopfs" "$MNT"
expect_says 'writing out: ' 'may be missing'
! is_mounted "$MNT" || fail "it stays mounted, and the disk cannot be mended"
wait_gone "$PID" || fail "the daemon stays"
rm "$WORK/mode"
mount_volume
echo x >"$MNT/x"
ln -s mnt "$WORK/link"
ln -s "$WORK/link" "$WORK/link2"
ln -s round "$WORK/round"
expect_exit 32 "$BUILD/umount.sopfs" "$WORK/round"
expect_exit 0 "$BUILD/umount.sopfs" "$WORK/link2"
! is_mounted "$MNT" || fail "it is mounted still"

# A daemon that does not answer.
mount_volume
kill -STOP "$PID"
"$BUILD/umount.sopfs" "$MNT" 2>"$WORK/err" &
waiting=$!
asks() { # a child does: nothing but SIGKILL ends what waits for a daemon
	grep -q . "/proc/$waiting/task/$waiting/children"
}
wait_until 60 asks || fail "nobody asks the daemon"
kill -TERM "$waiting"
rc=0
wait "$waiting" || rc=$?
assert_eq "$rc" 8 "a wait that was interrupted"
is_mounted "$MNT" || fail "unmounted all the same"
expect_exit 2 "$BUILD/umount.sopfs" -f "$MNT"
expect_says 'its daemon did not answer'
! is_mounted "$MNT" || fail "a mount that hangs stays, with -f"
kill -CONT "$PID"
wait_gone "$PID" || fail "the daemon stays after umount -f"
mount_volume
assert_eq "$(cat "$MNT/x")" x "what was committed"
kill -STOP "$PID"
expect_exit 0 "$BUILD/umount.sopfs" -l "$MNT"
! is_mounted "$MNT" || fail "a mount that hangs stays, with -l"
kill -CONT "$PID"
wait_gone "$PID" || fail "the daemon stays after umount -l"
