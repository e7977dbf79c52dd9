#!/bin/bash
# A disk that never answers (a folder of another mount whose daemon is stopped): the control socket answers at
# once all the time, whatever else waits, and tells of it.
. "$(dirname "$0")/functions.sh"
requires jq
requires_root

# The other mount.
mkdir "$WORK/inner" "$WORK/below"
MOUNTS+=("$WORK/inner")
"$MKFS" -q -f "$WORK/below" 2>/dev/null
"$SOPFS" "$WORK/below" "$WORK/inner" -o session=write,log="$WORK/inner.log"
INNER=$(daemon_of "$WORK/inner")
end_begins() {
	kill -CONT "$INNER" 2>/dev/null
}

mkdir "$WORK/d1" "$WORK/d2" "$WORK/d3" "$WORK/inner/d4"
DISKS=("$WORK/d1" "$WORK/d2" "$WORK/d3" "$WORK/inner/d4")
SOURCE=$(colon_list "${DISKS[@]}")
"$MKFS" -q -f -L "$NAME" --ec 2+2 --stores "$WORK/d1,$WORK/d2,$WORK/d3" "${DISKS[@]}" 2>/dev/null
mount_volume disk_timeout=12s
for i in $(seq 20); do
	head -c 20000 /dev/urandom >"$MNT/f$i"
done

# The daemon below has a socket, too; it will not answer on it.
[ "$(find "$SOPFS_RUN_DIR" -name '*.sock' | wc -l)" = 2 ] || fail "two sockets"

# quick COMMAND...: it succeeds, before what waits for the disk goes on. (A second is promised; this machine may
# be busy.)
quick() {
	timeout 10 "$@" >"$WORK/out" || fail "$*: exit code $?"
}

kill -STOP "$INNER"
# Writers that now wait for the disk, more of them than the mount has threads.
for i in $(seq 16); do
	(head -c 100000 /dev/urandom >"$MNT/w$i" && cat "$MNT/f$i" >/dev/null) &
done
for _ in 1 2 3 4 5; do
	quick "$SOPCTL" status --json "$NAME"
	quick "$SOPCTL" events "$NAME"
	quick "$SOPCTL" fstab "$MNT"
done
degraded() {
	quick "$SOPCTL" status --json "$NAME"
	[ "$(jq -r .state "$WORK/out")" = DEGRADED ]
}
wait_until 120 degraded || fail "the hung disk is not told of: $(cat "$WORK/out")"
assert_eq "$(jq -r '[.disks[].state] | map(select(. == "ONLINE")) | length' "$WORK/out")" 3 "disks online"
quick "$SOPCTL" status "$WORK/inner/d4" # by the path of the disk that hangs
# The daemon that is stopped is told of, when all are asked, or nothing else has the name.
expect_exit 1 "$SOPCTL" status
expect_says "pid $INNER\\) does not answer"
grep -q "volume: $NAME" "$WORK/out" || fail "the one that answers is not shown"
expect_exit 1 "$SOPCTL" status "$WORK/inner"
expect_exit 3 "$SOPCTL" status --check
kill -CONT "$INNER"
wait
for i in $(seq 16); do
	assert_eq "$(stat -c %s "$MNT/w$i")" 100000 "size of w$i"
done
unmount_volume
unmount_and_wait "$WORK/inner"
