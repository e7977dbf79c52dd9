#!/bin/bash
# Disks are taken offline, put online, replaced, added and removed while the volume is written to and
# read; what was written is right at each moment, and afterwards any m disks may go.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/disks.sh"
requires jq

# Of files: directories may stay.
is_empty() {
	[ -z "$(find "$1" -type f)" ]
}

new_volume 4 2+2
mount_volume commit=100ms,checkpoint=500ms
head -c 20M /dev/urandom >"$WORK/big"
cp "$WORK/big" "$MNT/big"
mkdir "$MNT/many"
(cd "$MNT/many" && seq 1 3000 | split -l 1 -a 4 - f)
load_start 2
load_turns 3

echo "offline and online"
ctl offline --yes "$MNT" d2
is_state d2 OFFLINE || fail "d2 is $(state_of d2)"
load_turns 10
ctl online --wait "$MNT" d2 2>/dev/null || fail "online: $?"
is_state d2 ONLINE || fail "not healed: $(ctl status "$MNT")"
load_turns 3

echo "replace"
mkdir "$WORK/new1"
ctl replace --yes --force --wait "$MNT" d1 "$WORK/new1" 2>/dev/null || fail "replace: $?"
[ -z "$(state_of "$WORK/d1")" ] || fail "not replaced: $(ctl status "$MNT")"
is_empty "$WORK/d1" || fail "left on the old disk: $(find "$WORK/d1" -type f | head -3)"
wait_until 60 all_online || fail "not whole: $(ctl status "$MNT")"
well_everywhere
load_turns 3

echo "add, and remove another"
mkdir "$WORK/new2"
ctl add --yes --force "$MNT" "$WORK/new2" || fail "add: $?"
load_turns 3
ctl remove --yes --wait "$MNT" "$WORK/d3" 2>/dev/null || fail "remove: $?"
[ -z "$(state_of "$WORK/d3")" ] || fail "not removed: $(ctl status "$MNT")"
is_empty "$WORK/d3" || fail "left on the old disk: $(find "$WORK/d3" -type f | head -3)"
wait_until 60 all_online || fail "not whole: $(ctl status "$MNT")"
well_everywhere
load_turns 3
load_stop
cmp "$WORK/big" "$MNT/big"
ctl status "$MNT"
unmount_volume
DISKS=("$WORK/new1" "$WORK/d2" "$WORK/d4" "$WORK/new2")
SOURCE=$(colon_list "${DISKS[@]}")
check_whole

echo "any two may go"
rm -rf "$WORK/d2" "$WORK/new1"
mount_volume degraded
cmp "$WORK/big" "$MNT/big"
assert_eq "$(find "$MNT/many" -type f | wc -l)" 3000
cat "$MNT"/many/* | sort -n | cmp - <(seq 1 3000)
verify_load
unmount_volume
