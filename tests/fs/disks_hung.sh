#!/bin/bash
# A disk stops answering: no request waits longer than disk_timeout=, looking at the volume does not wait
# at all, the daemon can be stopped; the disk comes back and is healed by itself.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/disks.sh"
requires jq
requires_root

gate=$WORK/gate
mkdir "$WORK/back"
mkdir -p "$WORK/d2"
faulty_disk "$WORK/back" "$gate" "$WORK/d2"

# soon COMMAND...: it ends well before disk_timeout=. ends COMMAND...: it ends at all.
soon() {
	timeout 10 bash -c "$*" || fail "$*: exit code $?"
}
ends() {
	timeout 120 bash -c "$*" || fail "$*: exit code $?"
}

new_volume 4 2+2
mount_volume commit=100ms,checkpoint=500ms,disk_timeout=12s
head -c 8M /dev/urandom >"$WORK/big"
cp "$WORK/big" "$MNT/big"
mkdir "$MNT/dir"
seq 1 200 | (cd "$MNT/dir" && split -l 1 -a 3 - f)
sync -f "$MNT/big"
echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || true

write_one() {
	seq 1 5000 >"$MNT/dir/after$1"
}
read_all() {
	cmp "$WORK/big" "$MNT/big"
}
durable() {
	dd if=/dev/zero of="$MNT/dir/durable" bs=4k count=1 conv=fsync status=none
}
export WORK MNT SOPCTL
export -f write_one read_all durable ctl

echo hang >"$gate"
soon df "$MNT"
soon ls -l "$MNT/dir"
soon ctl status "$MNT"
ends write_one 1
ends durable
ends read_all
wait_until 60 is_state d2 FAILED || fail "d2 is $(state_of d2)"
soon df "$MNT"
soon ctl status "$MNT"
soon write_one 2
soon durable
cmp <(seq 1 5000) "$MNT/dir/after1"

echo "it answers again"
rm "$gate"
wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
rm "$MNT/dir/after1"
write_one 3

echo "stopped while a disk hangs"
echo hang >"$gate"
pid=$(daemon_of "$MNT")
kill -TERM "$pid"
not_mounted() {
	! is_mounted "$MNT"
}
wait_until 30 not_mounted || fail "the daemon does not unmount"
# What hangs in the kernel keeps the process as long as it hangs, and no longer; the other disks are free.
free_of_it() {
	flock -n "$WORK/d1/lock" true && flock -n "$WORK/d4/lock" true
}
wait_until 40 free_of_it || fail "the other disks are still locked"
SOURCE=$WORK/d1
mount_volume degraded,disk_timeout=4s
cmp "$WORK/big" "$MNT/big"
cmp <(seq 1 5000) "$MNT/dir/after3"
pid2=$(daemon_of "$MNT")
umount -i "$MNT"
wait_until 40 free_of_it || fail "the other disks are still locked"
rm "$gate"
wait_gone "$pid" 20 || fail "the daemon stays though nothing hangs any more"
wait_gone "$pid2" 20 || fail "the second daemon stays though nothing hangs any more"
mount_volume
wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
unmount_volume
check_whole
