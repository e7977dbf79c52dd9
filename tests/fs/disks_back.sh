#!/bin/bash
# Disks that are set back to an old state, as a restored backup is: one, and two at once (2+2), from a mount and
# while the volume is used. Nothing on them is believed; all of it is verified and healed, so that afterwards
# they can stand in for the others.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/disks.sh"
requires jq

new_volume 4 2+2
mount_it() {
	mount_volume "commit=100ms,checkpoint=500ms${1:+,$1}"
}
n=0
work_on() { # something new of all sizes, in the segments that are open, and something less
	n=$((n + 1))
	head -c 3M /dev/urandom >"$WORK/big$n"
	cp "$WORK/big$n" "$MNT/big$n"
	mkdir "$MNT/many$n"
	(cd "$MNT/many$n" && seq $((n * 1000)) $((n * 1000 + 150)) | split -l 1 -a 3 - f)
	[ $n -lt 3 ] || rm -r "$MNT/many$((n - 2))"
	sync "$MNT/big$n"
}
right() {
	local i
	for ((i = 1; i <= n; i++)); do
		cmp "$WORK/big$i" "$MNT/big$i"
		[ $i -le $((n - 2)) ] || cat "$MNT/many$i"/* | sort -n | cmp - <(seq $((i * 1000)) $((i * 1000 + 150)))
	done
}
# Of a disk in use: files that go while they are copied (a journal's, after a checkpoint) make it begin anew.
back_up() { # DISK TO
	local i
	for ((i = 0; i < 100; i++)); do
		rm -rf "${WORK:?}/$2"
		! cp -a "$WORK/$1" "$WORK/$2" 2>/dev/null || return 0
	done
	fail "no copy of $1"
}
restore() { # DISK FROM
	rm -rf "${WORK:?}/$1"
	cp -a "$WORK/$2" "$WORK/$1"
}
# What they hold stands in for the others.
without() { # DISK DISK
	unmount_volume
	check_whole
	mv "$WORK/$1" "$WORK/away1"
	mv "$WORK/$2" "$WORK/away2"
	mount_it degraded
	right
	unmount_volume
	mv "$WORK/away1" "$WORK/$1"
	mv "$WORK/away2" "$WORK/$2"
	mount_it
	wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
}

mount_it
work_on
echo "one"
back_up d2 old
work_on
# After this the segments of before are sealed, and recovery has nothing to do with them any more.
kill_daemon
mount_it
work_on
unmount_volume
restore d2 old
mount_it
right
grep -q "old state of this disk" "$LOG" || fail "not noticed"
wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
right
without d1 d3

echo "two, of different times"
work_on
back_up d2 old
work_on
back_up d4 older
work_on
unmount_volume
restore d2 old
restore d4 older
mount_it
right
work_on
wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
right
without d1 d3

echo "killed before all is verified"
back_up d3 old
work_on
unmount_volume
restore d3 old
mount_it
right
kill_daemon
mount_it
wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
without d1 d2

echo "while it is used"
back_up d1 old
work_on
ctl offline --yes "$MNT" d1 >/dev/null
restore d1 old
ctl online "$MNT" d1 >/dev/null
right
wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
right
without d2 d4

echo "while it is used, and nothing is written from then on to the segments that are open"
unmount_volume
mount_volume commit=1h,checkpoint=1h
back_up d1 old
work_on
ctl offline --yes "$MNT" d1 >/dev/null
restore d1 old
ctl online "$MNT" d1 >/dev/null
wait_until 60 all_online || fail "not healed: $(ctl status "$MNT")"
right
without d2 d4
unmount_volume
check_whole
