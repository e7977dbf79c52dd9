#!/bin/bash
# As mount(8), umount(8), fstab(5) and their users see it. All in a mount namespace of its own, where
# /usr/sbin holds the helpers, /etc/fstab and /etc/sopfs are the test's, and mount's table begins empty.
. "$(dirname "$0")/../namespace.sh"
. "$(dirname "$0")/../fs/functions.sh"
requires_root
requires findmnt mount umount setpriv

lie_over() { # DIR: what is written there is the test's own
	mkdir -p "$1" "$WORK/over$1" "$WORK/work$1"
	mount -t overlay overlay -o "lowerdir=$1,upperdir=$WORK/over$1,workdir=$WORK/work$1" "$1"
}
# overlayfs takes no upper folder on an overlayfs, which /tmp may be.
mkdir "$WORK/ram"
mount -t tmpfs tmpfs "$WORK/ram"
LOOPS+=("$WORK/ram")
top=$WORK
WORK=$WORK/ram
lie_over /usr/sbin || skip "needs overlayfs"
lie_over /etc
mkdir -p /run/mount
mount -t tmpfs tmpfs /run/mount
for name in mount.sopfs mount.fuse.sopfs; do ln -sf "$SOPFS" "/usr/sbin/$name"; done
for name in umount.sopfs umount.fuse.sopfs; do ln -sf "$BUILD/umount.sopfs" "/usr/sbin/$name"; done
ln -sf "$SOPFS" /usr/sbin/sopfs
WORK=$top

daemon_is_gone() {
	[ -z "$(daemon_of "$1")" ]
}

# ---- by hand ----
new_volume 4 2+2 -L tank
# A new one, to look at: empty, and left as it is.
before=$(cat "${DISKS[@]/%//label.0}" | sha256sum)
expect_exit 0 mount -t sopfs -o ro "$SOURCE" "$MNT"
assert_eq "$(find "$MNT" -mindepth 1; stat -c '%F %a' "$MNT")" "directory 755" "a new volume, read-only"
! touch "$MNT/x" 2>/dev/null || fail "written to a read-only mount"
expect_exit 0 umount "$MNT"
assert_eq "$(cat "${DISKS[@]/%//label.0}" | sha256sum)" "$before" "labels after a read-only mount"
expect_exit 0 mount -t sopfs "$SOURCE" "$MNT" -o "log=$LOG,nofail,x-systemd.automount,_netdev"
[ ! -s "$WORK/err" ] || fail "mount says something: $(cat "$WORK/err")"
assert_eq "$(findmnt -n -o SOURCE,FSTYPE "$MNT")" "$SOURCE fuse.sopfs" findmnt
echo one >"$MNT/file"

# ---- umount: names who keeps it busy; waits for the daemon ----
tail -f "$MNT/file" >"$WORK/tail" &
holder=$!
wait_until 20 test -s "$WORK/tail"
expect_exit 32 umount "$MNT"
grep -q "busy" "$WORK/err" || fail "umount does not say busy"
grep -q "process $holder (tail)" "$WORK/err" || fail "umount does not name the holder"
(cd "$MNT" && expect_exit 32 umount.sopfs "$MNT")
grep -q "process $holder (tail)" "$WORK/err" || fail "umount.sopfs does not name the holder"
! grep -q '(umount' "$WORK/err" || fail "umount.sopfs names itself: $(cat "$WORK/err")"
is_mounted "$MNT" || fail "a busy mount went"
kill "$holder"
wait "$holder" || true
expect_exit 0 umount "$MNT"
daemon_is_gone "$MNT" || fail "umount did not wait for the daemon"
is_mounted "$MNT" && fail "umount left it"
! grep -q "$MNT" /run/mount/utab || fail "mount's table keeps what is gone"
expect_exit 32 umount "$MNT"
expect_exit 32 umount.sopfs "$MNT"
expect_exit 1 umount.sopfs
expect_exit 0 umount.sopfs --help
expect_exit 1 umount.sopfs -x "$MNT"

# Mounted without mount(8), it is taken down by umount(8) all the same.
mount_volume
expect_exit 0 umount -v "$MNT"
grep -q 'writing out' "$WORK/err" || fail "umount -v says nothing of it"
daemon_is_gone "$MNT" || fail "umount did not wait"

# Lazily: served until the last close, and umount does not wait.
mount_volume
exec 7<"$MNT/file"
expect_exit 0 umount -l "$MNT"
! is_mounted "$MNT" || fail "umount -l left it"
assert_eq "$(cat <&7)" one "an open file after umount -l"
exec 7<&-
wait_until 60 daemon_is_gone "$MNT" || fail "the daemon stays after umount -l"

# Read-only instead: nothing else changes.
mount_volume noexec,suid
exec 7<"$MNT/file"
expect_exit 0 umount.sopfs -r "$MNT"
findmnt -n -o OPTIONS "$MNT" >"$WORK/after"
grep -q '^ro,' "$WORK/after" || fail "umount -r of a busy mount leaves it writable"
grep -q noexec "$WORK/after" || fail "umount -r takes noexec away: $(cat "$WORK/after")"
! grep -q nosuid "$WORK/after" || fail "umount -r takes suid away: $(cat "$WORK/after")"
exec 7<&-
unmount_volume

# ---- remount ----
mount_volume cache=64M
echo two >"$MNT/two"
exec 7>"$MNT/open"
expect_exit 32 mount -o remount,ro "$MNT"
exec 7>&-
expect_exit 0 mount -o remount,ro "$MNT"
expect_exit 1 touch "$MNT/new"
"$SOPCTL" status "$MNT" | grep -q "mount: $MNT  ro " || fail "status does not say that it is read-only"
grep -qi 'read-only' "$WORK/err" || fail "writable after remount,ro"
assert_eq "$(cat "$MNT/two")" two "read-only"
expect_exit 0 mount -o remount,rw "$MNT"
"$SOPCTL" status "$MNT" | grep -q "mount: $MNT  rw " || fail "status does not say that it is writable"
echo three >"$MNT/three"
expect_exit 0 mount -o remount,noexec "$MNT"
findmnt -n -o OPTIONS "$MNT" | grep -q noexec || fail "noexec"
expect_exit 32 mount -o remount,cache=128M "$MNT"
expect_says 'cache = 128M' 'cache = 64M' umount
expect_exit 0 mount -o remount,cache=64M "$MNT" # the same as it is
expect_exit 1 mount -o remount,colour=blue "$MNT"
expect_says 'colour=blue'
getfattr --absolute-names --only-values -n sop.options "$MNT" | grep -qx 'cache = 64M' || fail "sop.options"
expect_exit 0 umount "$MNT"
expect_exit 0 mount -t sopfs -o "ro,log=$LOG" "$SOURCE" "$MNT"
expect_exit 32 mount -o remount,rw "$MNT"
expect_says 'read-only' umount
expect_exit 0 umount "$MNT"

# ---- fstab: names with blanks and colons; a NAME; what sopctl and mkfs print ----
odd="$WORK/with blank:and colon"
mkdir "$odd" "$odd/a:1" "$odd/b 2"
"$MKFS" -q -f --ec 1+1 "$odd/a:1" "$odd/b 2"
at="$WORK/mount here"
mkdir "$at" "$WORK/named"
MOUNTS+=("$at" "$WORK/named")
escape() { # fstab's blanks; a colon for us, and the backslash of it for fstab
	sed -e 's/:/\\134:/g' -e 's/ /\\040/g' <<<"$1"
}
mkdir -p /etc/sopfs
printf '%s\n' '# a comment' "source = $SOURCE" '  commit = 250ms' 'cache=32M' 'noexec = yes' "log = $LOG" \
	>/etc/sopfs/tank.conf
{
	echo "$(escape "$odd/a:1"):$(escape "$odd/b 2") $(escape "$at") sopfs nofail,x-systemd.mount-timeout=5min 0 0"
	echo "tank $WORK/named sopfs nofail,commit=2s 0 0"
} >/etc/fstab
expect_exit 0 mount -a
echo odd >"$at/file"
echo named >"$WORK/named/n"
options=$(getfattr --absolute-names --only-values -n sop.options "$WORK/named")
grep -qx 'commit = 2s' <<<"$options" || fail "-o does not win over the file"
grep -qx 'cache = 32M' <<<"$options" || fail "the file is not used"
findmnt -n -o SOURCE,OPTIONS "$WORK/named" | grep -q '^tank .*noexec' || fail "tank, noexec"
before=$(wc -l </proc/self/mountinfo)
expect_exit 0 mount -a # all there already
assert_eq "$(wc -l </proc/self/mountinfo)" "$before" "mounts after a second mount -a"
expect_exit 0 umount "$WORK/named"
expect_exit 0 umount "$at"
expect_exit 0 mount "$at"
assert_eq "$(cat "$at/file")" odd "by its mount point"
expect_exit 0 umount "$at"

# All that fstab, the list of folders, or libfuse give a meaning to; in the line that sopctl prints.
odd="$WORK/all: of,it \\ # * [x] ?"$'\t'
at="$WORK/at: of,it \\ # * [x] ?"$'\t'
mkdir "$odd" "$odd/1" "$odd/2" "$at"
MOUNTS+=("$at")
"$MKFS" -q -f --ec 1+1 "$odd/1" "$odd/2"
"$SOPCTL" fstab "$odd/1" "$at" >/etc/fstab
expect_exit 0 mount -a
expect_exit 0 mount -a
echo odd >"$at/file"
# Undone from what the kernel and findmnt make of it, it is what was said.
assert_eq "$(findmnt -n -o FSTYPE --target "$at/file")" fuse.sopfs "findmnt below an odd name"
expect_exit 0 mount -o remount,ro "$at"
expect_exit 0 umount "$at"
daemon_is_gone "$at" || fail "umount of an odd name did not wait"
[ ! -e "$at/file" ] || fail "mounted over the disk folder"
expect_exit 0 mount "$at"
assert_eq "$(cat "$at/file")" odd "by its odd mount point"
expect_exit 0 umount "$at"

# ---- settings files that are wrong say where ----
echo 'colour = blue' >>/etc/sopfs/tank.conf
expect_exit 1 sopfs tank "$MNT"
expect_says 'tank.conf:7' 'colour=blue'
echo "source = $SOURCE" >/etc/sopfs/tank.conf
echo 'noexec = perhaps' >>/etc/sopfs/tank.conf
expect_exit 1 sopfs tank "$MNT"
expect_says 'tank.conf:2' 'yes or no'
echo 'commit = 1s' >/etc/sopfs/tank.conf
expect_exit 1 sopfs tank "$MNT"
expect_says 'tank.conf' 'source ='
# --dump-config prints such a file.
sopfs --dump-config "$SOURCE" "$MNT" -o "commit=3s,log=$LOG" >/etc/sopfs/tank.conf
expect_exit 0 sopfs tank
is_mounted "$MNT" || fail "the file's mount point"
getfattr --absolute-names --only-values -n sop.options "$MNT" | grep -qx 'commit = 3s' || fail "--dump-config"
expect_exit 0 umount "$MNT"

# ---- the helper's own letters ----
expect_exit 0 mount -f -t sopfs "$SOURCE" "$MNT"
is_mounted "$MNT" && fail "mount -f mounts"
expect_exit 1 mount -t sopfs -o colour=blue "$SOURCE" "$MNT"
expect_says 'colour=blue'
expect_exit 0 mount -s -n -v -t sopfs -o "colour=blue,log=$LOG" "$SOURCE" "$MNT"
grep -q "mounted on $MNT" "$WORK/err" "$WORK/out" || fail "-v says nothing"
expect_exit 0 umount "$MNT"
expect_exit 32 mount -t sopfs "$WORK/nowhere" "$MNT"
expect_exit 32 mount -t sopfs "$SOURCE" "$WORK/no-such-mountpoint"

# -N: in another mount namespace, and not in ours.
unshare -m --propagation private sleep 1000 &
other=$!
in_namespace() { [ "$(readlink "/proc/$other/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ]; }
wait_until 20 in_namespace || fail "no namespace"
expect_exit 0 mount.sopfs "$SOURCE" "$MNT" -N "/proc/$other/ns/mnt" -o "rw,log=$LOG"
is_mounted "$MNT" && fail "-N mounts here"
nsenter -m -t "$other" findmnt -n "$MNT" >/dev/null || fail "-N does not mount there"
nsenter -m -t "$other" umount.sopfs "$MNT" || fail "umount in the other namespace"
kill "$other"
wait "$other" || true

# ---- disks that are late ----
mkdir "$WORK/away"
mv "$WORK/d1" "$WORK/d2" "$WORK/away/"
sopfs "$SOURCE" "$MNT" -o "log=$LOG,mount_wait=5min" 2>"$WORK/wait.err" &
waiting=$!
sleep 1 # it has begun to wait; if not, the test proves less, and fails no more
is_mounted "$MNT" && fail "mounted without half of its disks"
mv "$WORK/away/d1" "$WORK/away/d2" "$WORK/"
wait "$waiting" || fail "mount_wait=: $(cat "$WORK/wait.err")"
assert_eq "$(cat "$MNT/two")" two "after waiting"
! grep -q DEGRADED "$LOG" || fail "degraded though all disks came"
expect_exit 0 umount "$MNT"
mv "$WORK/d2" "$WORK/away/"
expect_exit 0 sopfs "$SOURCE" "$MNT" -o "log=$LOG,mount_wait=300ms"
grep -q DEGRADED "$LOG" || fail "not a word of the disk that did not come"
assert_eq "$(cat "$MNT/two")" two "degraded after waiting"
expect_exit 0 umount "$MNT"

# ---- a user's mount dies: umount still works, and mounting again ----
mv "$WORK/away/d2" "$WORK/"
mount_volume
kill -9 "$PID"
wait_gone "$PID" 20
expect_exit 0 umount "$MNT"
is_mounted "$MNT" && fail "a dead mount cannot be unmounted"
mount_volume
expect_exit 0 umount "$MNT"
check_volume
