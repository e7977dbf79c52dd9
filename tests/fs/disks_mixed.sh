#!/bin/bash
# Trouble on top of trouble, with load: a disk lost while another is replaced (2+2), rot met while a disk is
# rebuilt, no room while a disk is healed; and folders that will not do for a disk: too small, of another
# volume, not empty, a member already.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/disks.sh"
requires jq python3 mkfs.ext4
requires_root

mkdir "$WORK/back" "$WORK/n"
faulty_disk "$WORK/back" "$WORK/mode" "$WORK/n"

small_ext4 "$WORK/d4" 160
new_volume 4 2+2
mount_volume commit=100ms,checkpoint=500ms
fill_disks 16M
gone() {
	[ -z "$(state_of "$1")" ] && all_online
}
load_start 2
load_turns 2

echo "folders that will not do"
small_ext4 "$WORK/small" 16
refused() { # PATTERN COMMAND...
	local says=$1
	shift
	if "$@" >"$WORK/out" 2>&1; then
		fail "not refused: $*"
	fi
	grep -qiE "$says" "$WORK/out" || fail "'$*' does not say '$says': $(cat "$WORK/out")"
}
refused "bytes free, .* are needed" ctl replace --yes --force "$MNT" d1 "$WORK/small"
refused "is d2 of this volume already" ctl replace --yes --force "$MNT" d1 "$WORK/d2"
refused "is d1 of this volume already" ctl replace --yes --force "$MNT" d1 "$WORK/d1"
refused "is d3 of this volume already" ctl add --yes --force "$MNT" "$WORK/d3"
mkdir "$WORK/full" "$WORK/other"
echo mine >"$WORK/full/letter"
refused "not empty .*letter" ctl replace --yes "$MNT" d1 "$WORK/full"
"$MKFS" -q "$WORK/other" 2>/dev/null
refused "belongs to .*volume" ctl add --yes "$MNT" "$WORK/other"
refused "no such folder; make it" ctl replace --yes "$MNT" d1 "$WORK/nowhere"
# Also before it is asked whether that is meant.
refused "no such folder; make it" ctl replace "$MNT" d1 "$WORK/nowhere" </dev/null
refused "no disk of the volume" ctl offline "$MNT" d9 </dev/null
ctl offline --yes "$MNT" d2 >/dev/null
mv "$WORK/d2" "$WORK/away2"
mkdir "$WORK/d2"
cp "$WORK"/d3/label.* "$WORK/d2"
refused "is d3 of the volume, not d2" ctl online "$MNT" d2
rm -rf "$WORK/d2"
cp -a "$WORK/other" "$WORK/d2"
refused "is of volume .* not of volume" ctl online "$MNT" d2
rm -rf "$WORK/d2"
mv "$WORK/away2" "$WORK/d2"
ctl online "$MNT" d2 >/dev/null
wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
assert_eq "$(cat "$WORK/full/letter")" mine
assert_eq "$(ctl status --json "$MNT" | jq '.disks | length')" 4 "disks"
load_turns 2

echo "a disk is lost while another is replaced"
echo "hang after=30" >"$WORK/mode"
ctl replace --yes --force "$MNT" "$WORK/d1" "$WORK/n"
wait_until 60 test -e "$WORK/mode.hit" || fail "never got that far: $(ctl status "$MNT")"
rm -rf "$WORK/d2"
rm "$WORK/mode"
is_failed() {
	is_state "$WORK/d2" FAILED
}
wait_until 60 is_failed || fail "d2 is $(state_of "$WORK/d2")"
load_turns 3
filled_on_disk
replaced() {
	[ -z "$(state_of "$WORK/d1")" ]
}
wait_until 120 replaced || fail "not replaced without d2: $(ctl status "$MNT")"
load_turns 2
mkdir "$WORK/new2"
ctl replace --yes --force "$MNT" "$WORK/d2" "$WORK/new2"
wait_until 120 gone "$WORK/d2" || fail "the lost one is not replaced: $(ctl status "$MNT")"
filled_on_disk

echo "rot met while a disk is rebuilt"
load_turns 2
rot d3 30
rm -rf "$WORK/new2"
mkdir "$WORK/new3"
ctl replace --yes --force "$MNT" "$WORK/new2" "$WORK/new3"
wait_until 120 gone "$WORK/new2" || fail "not rebuilt over rot: $(ctl status "$MNT")"
load_turns 2
filled_on_disk
scrubbed() {
	[ "$(ctl status --json "$MNT" | jq -r '.tasks[] | select(.kind == "scrub") | .state')" = finished ]
}
ctl scrub "$MNT" >/dev/null
wait_until 120 scrubbed || fail "the scrub does not end: $(ctl status "$MNT")"
assert_eq "$(ctl status --json "$MNT" | jq '.tasks[] | select(.kind == "scrub") | .unrecoverable')" 0 "lost"
[ "$(of "$WORK/d3" checksum_errors)" -gt 0 ] || fail "the rot is not counted"

echo "no room while a disk is healed"
ctl offline --yes "$MNT" "$WORK/d4" >/dev/null
head -c 24M /dev/urandom >"$WORK/more"
cp "$WORK/more" "$MNT/more"
load_turns 2
load_stop
free=$(df --output=avail -B1 "$WORK/d4" | tail -n 1)
fallocate -l $((free - 4194304)) "$WORK/d4/somebody"
ctl online "$MNT" "$WORK/d4" >/dev/null
waits() {
	ctl status --json "$MNT" |
		jq -e '.tasks[] | select(.kind == "heal" and .state == "waiting") | .message | test("space"; "i")' >/dev/null
}
wait_until 60 waits || fail "it does not say what it waits for: $(ctl status --json "$MNT" | jq -c .tasks)"
is_state "$WORK/d4" HEALING || fail "d4 is $(state_of "$WORK/d4")"
cmp "$WORK/more" "$MNT/more"
filled_on_disk
rm "$WORK/d4/somebody"
wait_until 120 all_online || fail "not healed with room: $(ctl status "$MNT")"
cmp "$WORK/more" "$MNT/more"

echo "no room on the new disk"
mkdir "$WORK/back2" "$WORK/n2"
faulty_disk "$WORK/back2" "$WORK/mode2" "$WORK/n2"
echo "enospc after=40" >"$WORK/mode2"
ctl replace --yes --force "$MNT" "$WORK/new3" "$WORK/n2"
replace_waits() {
	ctl status --json "$MNT" |
		jq -e '.tasks[] | select(.kind == "replace" and .state == "waiting") | .message | test("^d[0-9]+: .*space"; "i")' >/dev/null
}
wait_until 60 replace_waits || fail "it does not say what it waits for: $(ctl status --json "$MNT" | jq -c .tasks)"
rm "$WORK/mode2"
wait_until 120 gone "$WORK/new3" || fail "not replaced with room: $(ctl status "$MNT")"
filled_on_disk
cmp "$WORK/more" "$MNT/more"
unmount_volume
DISKS=("$WORK/n" "$WORK/n2" "$WORK/d3" "$WORK/d4")
SOURCE=$(colon_list "${DISKS[@]}")
check_whole

echo "any two may go"
umount "$WORK/n" "$WORK/n2"
SOURCE=$WORK/d3
mount_volume degraded
filled_on_disk
cmp "$WORK/more" "$MNT/more"
verify_load
unmount_volume
