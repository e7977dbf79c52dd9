#!/bin/bash
# The daemon is killed in the middle of adding, removing, replacing, putting online and scrubbing, with load: at
# the N-th request that reaches the disk which is worked on. The next mount goes on with it by itself; nothing is
# lost, and in the end any two disks may go. LONG=1: at more places.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/disks.sh"
requires jq
requires_root

LOAD_MAY_DIE=1
places=(25)
[ -z "$LONG" ] || places=(1 2 3 4 6 8 12 17 25 40 60 100 200)
mkdir "$WORK/back" "$WORK/n"
faulty_disk "$WORK/back" "$WORK/mode" "$WORK/n"

new_volume 4 2+2
SOURCE=$WORK/d3 # which is not taken away: it names the others
mount_it() {
	mount_volume commit=100ms,checkpoint=500ms
}
mount_it
fill_disks 8M
right() {
	filled
	verify_load
}
is_member() {
	[ -n "$(state_of "$1")" ]
}
# Nobody is at work any more, and the state is what was to be.
settled() {
	all_online && "$@"
}
task_is() { # KIND STATE
	[ "$(ctl status --json "$MNT" | jq -r --arg k "$1" '.tasks[] | select(.kind == $k) | .state')" = "$2" ]
}

# cut N COMMAND...: it is begun, the N-th request to the folder hangs, the daemon is killed, and mounted again.
# (One that needs fewer requests is over before.)
cut() {
	local n=$1 asker
	shift
	load_start 2 2>/dev/null
	load_turns 2
	rm -f "$WORK/mode.hit"
	echo "hang after=$n" >"$WORK/mode"
	"$@" >"$WORK/out" 2>&1 &
	asker=$!
	hit_or_over() {
		[ -e "$WORK/mode.hit" ] || { ! kill -0 "$asker" 2>/dev/null && all_online; }
	}
	wait_until 60 hit_or_over || fail "neither met nor over: $* at $n: $(ctl status "$MNT")"
	kill -9 "$PID"
	rm "$WORK/mode"
	kill_daemon_end
	rm -f "$WORK/load.go"
	wait "${LOAD[@]}" 2>/dev/null || true
	wait "$asker" || true
	mount_it
	right
}
kill_daemon_end() {
	umount -f "$MNT" 2>/dev/null || true
	wait_gone "$PID" 30 || fail "the daemon does not die"
	! mountpoint -q "$MNT" || umount -l "$MNT"
}

for n in "${places[@]}"; do
	echo "add, cut at $n"
	cut "$n" ctl add --yes --force "$MNT" "$WORK/n"
	is_member "$WORK/n" || ctl add --yes --force "$MNT" "$WORK/n" >/dev/null
	wait_until 60 settled is_member "$WORK/n" || fail "not added: $(ctl status "$MNT")"

	echo "remove, cut at $n"
	cut "$n" ctl remove --yes "$MNT" "$WORK/n"
	gone() {
		! is_member "$WORK/n"
	}
	gone || [ "$(state_of "$WORK/n")" = REMOVING ] || ctl remove --yes "$MNT" "$WORK/n" >/dev/null
	wait_until 60 settled gone || fail "not removed: $(ctl status "$MNT")"

	echo "replace, cut at $n where it is written to"
	cut "$n" ctl replace --yes --force "$MNT" "$WORK/d1" "$WORK/n"
	replaced() { # OLD NEW
		! is_member "$1" && is_member "$2"
	}
	replace_again() { # OLD NEW: when it had not begun
		[ "$(state_of "$1")" != ONLINE ] || ctl replace --yes --force "$MNT" "$1" "$2" >/dev/null
	}
	replace_again "$WORK/d1" "$WORK/n"
	wait_until 60 settled replaced "$WORK/d1" "$WORK/n" || fail "not replaced: $(ctl status "$MNT")"
	right

	echo "online, cut at $n"
	ctl offline --yes "$MNT" "$WORK/n" >/dev/null
	echo "without it" >"$MNT/without$n"
	head -c 2M /dev/urandom >"$MNT/without$n.big"
	cut "$n" ctl online "$MNT" "$WORK/n"
	[ "$(state_of "$WORK/n")" != OFFLINE ] || ctl online "$MNT" "$WORK/n" >/dev/null
	wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
	assert_eq "$(cat "$MNT/without$n")" "without it"

	echo "scrub, cut at $n"
	cut "$n" ctl scrub "$MNT"
	task_is scrub running || task_is scrub finished || ctl scrub "$MNT" >/dev/null
	wait_until 60 task_is scrub finished || fail "the scrub does not end: $(ctl status "$MNT")"
	assert_eq "$(ctl status --json "$MNT" | jq '.tasks[] | select(.kind == "scrub") | .unrecoverable')" 0 "lost"

	echo "replace, cut at $n where it is read from"
	mkdir -p "$WORK/d1"
	cut "$n" ctl replace --yes --force "$MNT" "$WORK/n" "$WORK/d1"
	replace_again "$WORK/n" "$WORK/d1"
	wait_until 60 settled replaced "$WORK/n" "$WORK/d1" || fail "not replaced: $(ctl status "$MNT")"
	right
done
unmount_volume
SOURCE=$(colon_list "${DISKS[@]}")
check_whole

echo "any two may go"
rm -rf "$WORK/d1" "$WORK/d4"
SOURCE=$WORK/d3
mount_volume degraded
right
unmount_volume
