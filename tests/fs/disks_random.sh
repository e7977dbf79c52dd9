#!/bin/bash
# Whatever is done to disks, in any order, with load: when the volume says that it is whole, it is. Rounds of
# random steps (SEED=, ROUNDS=); after each round fsck -n finds nothing to heal, any two disks may go, and all
# that was written is there. LONG=1: more rounds.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/disks.sh"
requires jq python3

rounds=${ROUNDS:-3}
[ -z "$LONG" ] || rounds=${ROUNDS:-40}
steps=3 kept=0 made=5
LOAD_MAY_DIE=1

new_volume 5 2+2
NAMES=(d1 d2 d3 d4 d5) # in $WORK
mount_it() { # [DISK]: one that finds the others
	SOURCE=$(colon_list "${NAMES[@]/#/$WORK/}")
	[ -z "${1:-}" ] || SOURCE=$WORK/$1
	mount_volume "commit=$((RANDOM % 2 * 10 + 1))00ms,checkpoint=$((RANDOM % 3 * 2 + 1))00ms"
}
pick() { # sets D, and N its place in NAMES
	N=$((RANDOM % ${#NAMES[@]}))
	D=${NAMES[N]}
}
keep() {
	kept=$((kept + 1))
	head -c $((RANDOM % 4 * 400000 + RANDOM)) /dev/urandom >"$WORK/kept$kept"
	cp "$WORK/kept$kept" "$MNT/kept$kept"
	sync "$MNT/kept$kept"
}
right() {
	local i
	for ((i = 1; i <= kept; i++)); do
		cmp "$WORK/kept$i" "$MNT/kept$i"
	done
	verify_load
}
healed() {
	wait_until 120 all_online || fail "not healed: $(ctl status "$MNT")"
}
turns() { # as many as there is load for
	[ ! -e "$WORK/load.go" ] || load_turns $((1 + RANDOM % 3))
}
load_end() {
	rm -f "$WORK/load.go"
	wait "${LOAD[@]}" || true
}

do_offline() {
	ctl offline --yes "$MNT" "$WORK/$D" >/dev/null
	keep
	turns
	ctl online "$MNT" "$WORK/$D" >/dev/null
}
do_set_back() {
	rm -rf "$WORK/old"
	cp -a "$WORK/$D" "$WORK/old" 2>/dev/null || true # what goes while it is copied is not in it
	turns
	keep
	ctl offline --yes "$MNT" "$WORK/$D" >/dev/null
	[ -e "$WORK/old/label.0" ] || return 0
	rm -rf "${WORK:?}/$D"
	mv "$WORK/old" "$WORK/$D"
	ctl online "$MNT" "$WORK/$D" >/dev/null
}
do_pull() {
	mv "$WORK/$D" "$WORK/pulled"
	keep
	turns
	mv "$WORK/pulled" "$WORK/$D"
	# Perhaps nobody noticed.
	ctl online "$MNT" "$WORK/$D" >/dev/null
}
do_kill() {
	kill_daemon
	load_end
	mount_it
	right
	load_start 2
}
do_replace() {
	made=$((made + 1))
	mkdir "$WORK/d$made"
	ctl replace --yes --force "$MNT" "$WORK/$D" "$WORK/d$made" >/dev/null
	turns
	keep
	[ $((RANDOM % 2)) = 0 ] || do_kill_within
	healed
	NAMES[N]=d$made
}
# Which of the two is a member by now, the others know.
do_kill_within() {
	kill_daemon
	load_end
	mount_it "${NAMES[(N + 1) % ${#NAMES[@]}]}"
	right
	load_start 2
}
do_add_remove() {
	made=$((made + 1))
	mkdir "$WORK/d$made"
	ctl add --yes --force "$MNT" "$WORK/d$made" >/dev/null
	turns
	ctl remove --yes "$MNT" "$WORK/$D" >/dev/null
	keep
	healed
	NAMES[N]=d$made
}
do_rot() {
	rot "$D" 10
	turns
	ctl scrub "$MNT" >/dev/null || true # one may be under way
	keep
}
scrubbed() {
	! ctl status --json "$MNT" | jq -e '.tasks[] | select(.kind == "scrub" and .state == "running")' >/dev/null
}

mount_it
keep
for ((r = 1; r <= rounds; r++)); do
	load_start 2
	for ((s = 0; s < steps; s++)); do
		pick
		ways=(offline set_back pull kill replace add_remove rot)
		what=${ways[RANDOM % ${#ways[@]}]}
		echo "round $r: $what $D"
		"do_$what"
		# What comes next may find it half healed.
		[ $((RANDOM % 2)) = 0 ] || healed
		[ "$what" != rot ] || healed
	done
	load_end
	healed
	ctl scrub "$MNT" >/dev/null || true
	wait_until 120 scrubbed || fail "the scrub does not end: $(ctl status "$MNT")"
	healed
	right
	unmount_volume
	DISKS=("${NAMES[@]/#/$WORK/}")
	check_whole
	pick
	away=$D
	mv "$WORK/$D" "$WORK/away1"
	while [ "$D" = "$away" ]; do
		pick
	done
	echo "round $r: without $away, $D"
	mv "$WORK/$D" "$WORK/away2"
	SOURCE=$(colon_list "${NAMES[@]/#/$WORK/}")
	mount_volume degraded
	right
	unmount_volume
	mv "$WORK/away1" "$WORK/$away"
	mv "$WORK/away2" "$WORK/$D"
	mount_it
	healed
done
unmount_volume
check_whole
