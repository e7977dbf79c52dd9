#!/bin/bash
# Bit rot: found by reads, answered right, written anew; found by scrub; what more than m shards have lost
# is named and gives EIO for that range alone. A scrub pauses, and goes on over a remount.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/disks.sh"
requires python3

# number NAME: a member of the last scrub's task.
task() {
	ctl status --json "$MNT" | python3 -c '
import json, sys
for t in json.load(sys.stdin).get("tasks", []):
    if t["kind"] == "scrub":
        print(t.get(sys.argv[1]))' "$1"
}
scrub_is() {
	[ "$(task state)" = "$1" ]
}
checksum_errors() {
	ctl status --json "$MNT" | python3 -c '
import json, sys
print(sum(d["checksum_errors"] for d in json.load(sys.stdin)["disks"] if d["name"] == sys.argv[1]))' "$1"
}

new_volume 4 2+2
mount_volume commit=100ms,checkpoint=500ms
head -c 16M /dev/urandom >"$WORK/big"
cp "$WORK/big" "$MNT/big"
mkdir "$MNT/dir"
for i in $(seq 1 60); do
	head -c $((i * 700)) /dev/urandom >"$WORK/small$i"
	cp "$WORK/small$i" "$MNT/dir/small$i"
done
unmount_volume
all_right() {
	local i
	cmp "$WORK/big" "$MNT/big"
	for i in $(seq 1 60); do
		cmp "$WORK/small$i" "$MNT/dir/small$i"
	done
}

echo "found by reads, and not written anew with repair=off"
rot d1
rot d3
mount_volume repair=off
all_right
[ "$(checksum_errors d1)" -gt 0 ] || fail "the rot of d1 is not counted"
unmount_volume
mount_volume
all_right
# All that was met is written anew: the next look finds less than the first.
repaired() {
	all_right
	ctl clear "$MNT" >/dev/null
	unmount_volume
	mount_volume
	all_right
	[ "$(checksum_errors d1)" = 0 ] && [ "$(checksum_errors d3)" = 0 ]
}
wait_until 20 repaired || fail "reads do not repair"
unmount_volume

echo "found by scrub"
rot d2 60
rot d4 60
mount_volume
ctl scrub "$MNT" >/dev/null || fail "scrub: $?"
wait_until 60 scrub_is finished || fail "scrub: $(ctl status "$MNT")"
[ "$(task corrected)" -gt 0 ] || fail "scrub has corrected nothing: $(ctl status "$MNT")"
assert_eq "$(task unrecoverable)" 0
ctl scrub "$MNT" >/dev/null
wait_until 60 scrub_is finished
assert_eq "$(task corrected)" 0 "the second scrub corrected"
all_right
unmount_volume
check_whole

echo "paused, and over a remount"
mount_volume
ctl scrub --rate 1M "$MNT" >/dev/null
wait_until 20 scrub_is running
ctl scrub --pause "$MNT" >/dev/null
wait_until 20 scrub_is paused || fail "not paused: $(ctl status "$MNT")"
unmount_volume
mount_volume
scrub_is paused || fail "the pause is forgotten: $(ctl status "$MNT")"
ctl scrub --resume "$MNT" >/dev/null
scrub_is running || fail "not resumed: $(ctl status "$MNT")"
ctl scrub --stop "$MNT" >/dev/null
scrub_is stopped || fail "not stopped: $(ctl status "$MNT")"
unmount_volume

echo "more than parity makes up for"
for d in d1 d2 d3; do
	python3 - "$WORK/$d/segments" <<'PY'
import os, sys
# The same place on three of four disks, in the largest files.
files = sorted((os.path.join(d, f) for d, _, fs in os.walk(sys.argv[1]) for f in fs), key=os.path.getsize)
with open(files[-1], "r+b") as o:
    o.seek(3000000)
    o.write(b"x" * 100)
PY
done
mount_volume
ctl scrub "$MNT" >/dev/null
wait_until 60 scrub_is finished
[ "$(task unrecoverable)" -ge 1 ] || fail "the loss is not found: $(ctl status "$MNT")"
ctl status -v "$MNT" | grep -q "big" || fail "the loss is not named: $(ctl status -v "$MNT")"
! cmp "$WORK/big" "$MNT/big" 2>"$WORK/err" || fail "what is lost reads right"
grep -q "Input/output error" "$WORK/err" || fail "what is lost does not give EIO: $(cat "$WORK/err")"
for i in $(seq 1 60); do
	cmp "$WORK/small$i" "$MNT/dir/small$i"
done
# The rest of the file reads.
dd if="$MNT/big" bs=1M count=2 status=none | cmp - <(head -c 2M "$WORK/big")
unmount_volume
