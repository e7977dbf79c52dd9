#!/bin/bash
# Started with descriptors 0, 1 or 2 closed: no file of a disk becomes one of them, is written to by what
# is printed, or is lost when the daemon leaves its terminal. Or with nobody at the other end of the pipe.
. "$(dirname "$0")/../fs/functions.sh"

ALL=('<&-' '>&-' '2>&-' '<&- >&-' '<&- 2>&-' '>&- 2>&-' '<&- >&- 2>&-')

# closed CODE REDIRECTION COMMAND...: it ends, and with this code.
closed() {
	local want=$1 how=$2 rc=0
	shift 2
	eval "timeout -s KILL 60 \"\$@\" $how" >>"$WORK/out" 2>>"$WORK/out" || rc=$?
	[ "$rc" = "$want" ] || fail "$* $how: exit code $rc, want $want"
}

new_volume 4 2+2
n=0
for how in "${ALL[@]}"; do
	closed 0 "$how" "$SOPFS" "$SOURCE" "$MNT" -o "log=$LOG"
	PID=$(daemon_of "$MNT")
	lost=$(find "/proc/$PID/fd" -lname "$WORK/d[0-9]*" -printf '%f\n' | awk '$1 < 3')
	[ -z "$lost" ] || fail "$how: the daemon has a disk as descriptor $lost"
	for d in "${DISKS[@]}"; do
		[ -n "$(find "/proc/$PID/fd" -lname "$d/lock")" ] || fail "$how: the lock of $d was lost"
		[ -n "$(find "/proc/$PID/fd" -lname "$d")" ] || fail "$how: the folder $d was lost"
	done
	n=$((n + 1))
	head -c 100000 /dev/urandom >"$MNT/f$n"
	closed 0 "$how" "$SOPCTL" txn "$MNT" -- touch "$MNT/t$n"
	closed 3 "$how" "$SOPCTL" txn "$MNT" -- sh -c "touch '$MNT/u$n'; exit 3"
	closed 127 "$how" "$SOPCTL" txn "$MNT" -- "$WORK/no-such-command"
	assert_eq "$(find "$MNT" -maxdepth 1 -type f -name '[ftu]*' | wc -l)" $((2 * n)) "$how"
	unmount_volume
	check_volume
done

# fsck that has something to tell of every shard of one disk, and set, which prints while all is open.
printed() {
	local f
	for f in "${DISKS[@]}"; do
		! grep -rqa -e 'REPAIRED' -e 'machine' -e 'sopctl' -e 'fsck.sopfs' "$f" || fail "$how: what was printed is in $f"
	done
}
for how in "${ALL[@]}"; do
	# With stdout closed its findings have nowhere to go: that is an error, on top of the repairs.
	find "$WORK/d2/segments" -type f -delete
	case $how in *' >&-'* | '>&-'*) closed 9 "$how" "$BUILD/fsck.sopfs" -y "$SOURCE" ;; *) closed 1 "$how" "$BUILD/fsck.sopfs" -y "$SOURCE" ;; esac
	printed
	case $how in *'>&-'*) rc=1 ;; *) rc=0 ;; esac
	[ "$how" != '2>&-' ] && [ "$how" != '<&- 2>&-' ] || rc=0
	closed $rc "$how" "$SOPCTL" set "$WORK/d1" shared=on
	printed
	closed $rc "$how" "$SOPCTL" set "$WORK/d1" shared=off
	closed $rc "$how" "$MKFS" -f "$WORK/m1" "$WORK/m2"
	"$CHECK" "$WORK/m1" "$WORK/m2" >"$WORK/out" || fail "$how: $(cat "$WORK/out")"
	check_volume
done

# fsck whose reader goes (head) does not end in the middle of a repair.
mkfifo "$WORK/pipe"
exec 7<>"$WORK/pipe"
exec 8>"$WORK/pipe" 7>&-
find "$WORK/d2/segments" -type f -delete
closed 1 '>&8' "$BUILD/fsck.sopfs" -y "$SOURCE"
exec 8>&-
check_volume
