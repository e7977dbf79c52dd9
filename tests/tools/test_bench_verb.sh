#!/bin/bash
# sopctl bench: five figures of any directory, and nothing left there, however it ends.
. "$(dirname "$0")/../fs/functions.sh"
requires jq
new_volume 2 1+1
mount_volume

empty() {
	[ -z "$(ls -A "$1")" ] || fail "it leaves something: $(ls -A "$1")"
}

mkdir "$WORK/bare"
for dir in "$MNT" "$WORK/bare"; do
	"$SOPCTL" bench --json --size=4M "$dir" >"$WORK/out" || fail "bench $dir"
	assert_eq "$(jq '.size_bytes == 4194304 and ([del(.size_bytes)[] | . > 0] | length == 5 and all)' "$WORK/out")" \
		true "$(cat "$WORK/out")"
	empty "$dir"
done
"$SOPCTL" bench --size=1 "$MNT" >"$WORK/out"
assert_eq "$(grep -cE ' [0-9.]+( [KMG]?i?B)?/s$| [0-9]+ /s$' "$WORK/out")" 5 "$(cat "$WORK/out")"
expect_exit 2 "$SOPCTL" bench --size=much "$MNT"
expect_exit 1 "$SOPCTL" bench --size=1000T "$MNT"
expect_says 'less than twice'
expect_exit 1 "$SOPCTL" bench "$WORK/nothing"
if [ "$(id -u)" = 0 ]; then
	chmod 755 "$WORK" "$MNT"
	expect_exit 6 setpriv --reuid 12345 --regid 12345 --clear-groups "$SOPCTL" bench --size=1M "$MNT"
fi

# Cut off wherever it is.
begun() { [ -n "$(ls -A "$MNT")" ] || ! kill -0 "$pid" 2>/dev/null; }
"$SOPCTL" bench --size=32M "$MNT" >"$WORK/out" 2>&1 &
pid=$!
wait_until 60 begun || fail "it does not begin"
kill -TERM "$pid" 2>/dev/null || true
rc=0
wait "$pid" || rc=$?
[ "$rc" = 0 ] || [ "$rc" = 1 ] || fail "exit code $rc"
empty "$MNT"
unmount_volume
check_volume
