#!/bin/bash
# The history checker: random sessions of many processes on a few files, all they read and how each commit
# ended recorded, and an order looked for that explains it (tests/fs/history.c).
. "$(dirname "$0")/functions.sh"

runs=3 workers=6 generations=24 short=30
[ -z "$LONG" ] || runs=100 workers=12 generations=40 short=1000
new_volume 4 2+2
# Append sessions commit at their close alone: each is to be one transaction.
mount_volume append_commit=600
for ((r = 0; r < runs; r++)); do
	"$BUILD/fs/history" $((SEED + r)) $workers $generations "$MNT" || fail "seed $((SEED + r)), see above"
done
# Short ones, of many: most of it is about files that are just being made.
for ((r = 0; r < short; r++)); do
	"$BUILD/fs/history" $((SEED + r)) 10 1 "$MNT" >"$WORK/short" || {
		cat "$WORK/short"
		fail "short one, seed $((SEED + r)), see above"
	}
done
grep -q ' 0 open,.* [1-9][0-9]* conflicts, 0 failed' "$MNT/.sop/status" || {
	cat "$MNT/.sop/status"
	fail "no session is left open, some conflict, none fails"
}
unmount_volume
check_volume
