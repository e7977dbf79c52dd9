#!/bin/bash
# The daemon as a process: mounting returns when it serves; signals; who is told what; who may mount.
. "$(dirname "$0")/functions.sh"

new_volume 4 2+2
held() { # the volume lock: free when a mount succeeds
	"$SOPFS" "$SOURCE" "$WORK/other" 2>/dev/null
}
mkdir "$WORK/other"
MOUNTS+=("$WORK/other")

# Returns only when it serves, and lets go of our stdout and stderr.
out=$("$SOPFS" "$SOURCE" "$MNT" -o "log=$LOG" 2>&1 && ls "$MNT")
assert_eq "$out" "" "mounting prints nothing when all is well"
echo 1 >"$MNT/a"
assert_eq "$(awk -v m="$MNT" '$2 == m { print $1, $3 }' /proc/mounts)" "$SOURCE fuse.sopfs" "mount table"
awk -v m="$MNT" '$2 == m { print $4 }' /proc/mounts | grep -q default_permissions || fail "default_permissions"
PID=$(daemon_of "$MNT")
[ "$(readlink "/proc/$PID/cwd")" = / ] || fail "the daemon holds a directory"
unmount_volume

# What its caller holds open, a lock for one, it gives back with the caller, and so does its messenger.
exec 8>"$WORK/lock"
flock -n 8
mount_volume
exec 8>&-
flock -n "$WORK/lock" true || fail "the daemon keeps its caller's lock"

# SIGTERM: written out, unmounted, unlocked.
kill -TERM "$PID"
wait_gone "$PID" 20 || fail "no end after SIGTERM"
is_mounted "$MNT" && fail "SIGTERM left the mount"
mount_volume
assert_eq "$(cat "$MNT/a")" 1 "after SIGTERM"

# A terminal that goes is nothing to a daemon.
kill -HUP "$PID"
echo 2 >"$MNT/b"
sync "$MNT/b"
kill -0 "$PID" 2>/dev/null || fail "SIGHUP ended the daemon"

# A busy mount is detached after a while; who has a file open goes on, and what he closes is committed.
exec 7>"$MNT/open"
kill -TERM "$PID"
gone_from_table() { ! is_mounted "$MNT"; }
wait_until 20 gone_from_table || fail "a busy mount is never detached"
[ -n "$(daemon_of "$MNT")" ] || fail "the daemon left an open file alone"
held && fail "the lock was given back while a file is open"
echo late >&7
exec 7>&-
wait_gone "$PID" 20 || fail "no end after the last close"
mount_volume
assert_eq "$(cat "$MNT/open")" late "written after the detach"

# The second signal does not wait. (Two that come before the first is looked at are one.)
exec 7<"$MNT/a"
kill -TERM "$PID"
kill -0 "$PID"
told_again() {
	! kill -INT "$PID" 2>/dev/null
}
wait_until 60 told_again || fail "the second signal waits"
exec 7<&-
gone_from_table || fail "a mount was left"
mount_volume
assert_eq "$(cat "$MNT/open")" late "after the second signal"
unmount_volume

# In the foreground: exit code 0 at unmount, messages on stderr.
"$SOPFS" -f "$SOURCE" "$MNT" 2>"$WORK/front" &
front=$!
wait_until 20 is_mounted "$MNT" || fail "not mounted in the foreground"
wait_until 20 grep -q serves "$WORK/front" || fail "it does not say that it serves"
if [ "$(id -u)" = 0 ]; then
	umount "$MNT"
else
	fusermount3 -u "$MNT"
fi
wait "$front" || fail "exit code $? in the foreground"

"$SOPFS" -f "$SOURCE" "$MNT" 2>"$WORK/again" &
front=$!
wait_until 60 grep -q serves "$WORK/again" || fail "not mounted in the foreground again"
kill -HUP "$front"
wait "$front" || fail "exit code $? after SIGHUP in the foreground"
is_mounted "$MNT" && fail "SIGHUP in the foreground left the mount"

# Disks that are late are waited for; those that do not come are done without.
if script -qec true /dev/null </dev/null >/dev/null 2>&1; then
	mv "$WORK/d3" "$WORK/away"
	script -qec "'$SOPFS' '$SOURCE' '$MNT' -o 'log=$LOG,mount_wait=10min'" /dev/null </dev/null >"$WORK/terminal" &
	waiting=$!
	wait_until 60 grep -aq 'waiting for disks 3 of 4' "$WORK/terminal" || fail "it does not wait: $(cat "$WORK/terminal")"
	is_mounted "$MNT" && fail "mounted before the disk has come"
	mv "$WORK/away" "$WORK/d3"
	wait "$waiting" || fail "exit code $? after the disk has come: $(cat "$WORK/terminal")"
	assert_eq "$(cat "$MNT/a")" 1 "after the disk has come"
	grep -q '^ *state: ONLINE' "$MNT/.sop/status" || fail "not all disks: $(cat "$MNT/.sop/status")"
	unmount_volume
else
	echo "no terminal is to be had: waiting was not seen"
fi
mv "$WORK/d3" "$WORK/away"
expect_exit 0 "$SOPFS" "$SOURCE" "$MNT" -o "log=$LOG,mount_wait=200ms"
grep -q DEGRADED "$WORK/err" || fail "a mount without a disk does not say so"
unmount_volume
mv "$WORK/away" "$WORK/d3"

expect_exit 0 "$SOPFS" -V
grep -q '^sopfs ' "$WORK/out" || fail "-V"
expect_exit 0 "$SOPFS" -h
grep -q cache= "$WORK/out" || fail "-h"

# As mount(8) calls it.
ln -s "$SOPFS" "$WORK/mount.sopfs"
expect_exit 0 "$WORK/mount.sopfs" "$SOURCE" "$MNT" -f -o rw
is_mounted "$MNT" && fail "mount.sopfs -f mounts"
expect_exit 1 "$WORK/mount.sopfs" "$SOURCE" "$MNT" -o rw,colour=blue
expect_exit 0 "$WORK/mount.sopfs" "$SOURCE" "$MNT" -s -n -o rw,noauto,x-systemd.automount,colour=blue
is_mounted "$MNT" || fail "mount.sopfs does not mount"
unmount_volume

# An ordinary user, by fusermount3.
if [ "$(id -u)" = 0 ] && [ "$(stat -c %a /dev/fuse)" = 666 ] && id nobody >/dev/null 2>&1 &&
	setpriv --reuid nobody --clear-groups test -x "$SOPFS" 2>/dev/null; then
	mkdir "$WORK/user"
	MOUNTS+=("$WORK/user")
	chown -R nobody "${DISKS[@]}" "$WORK/user"
	as_nobody() { setpriv --reuid nobody --clear-groups "$@"; }
	as_nobody "$SOPFS" "$SOURCE" "$WORK/user"
	as_nobody sh -c "echo mine >'$WORK/user/mine'" 2>/dev/null || true # the root belongs to root
	as_nobody cat "$WORK/user/open"
	pid=$(daemon_of "$WORK/user")
	as_nobody fusermount3 -u "$WORK/user"
	wait_gone "$pid" 20 || fail "the user's daemon stays"
fi
