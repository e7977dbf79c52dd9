#!/bin/bash
# .sop/metrics as Prometheus' own tool reads it.
. "$(dirname "$0")/../fs/functions.sh"
requires promtool

new_volume 3 2+1 -L "$NAME"
mount_volume
echo x >"$MNT/x"
promtool check metrics <"$MNT/.sop/metrics" >"$WORK/out" 2>&1 || fail "$(cat "$WORK/out")"
[ ! -s "$WORK/out" ] || fail "promtool: $(cat "$WORK/out")"
unmount_volume
# With folders whose names have to be escaped.
rm -rf "${DISKS[@]}"
WORK_ODD=$WORK/'a"b\c'
mkdir "$WORK_ODD"
SOURCE=$WORK_ODD/d
"$MKFS" -q -f "$SOURCE" 2>/dev/null
(cd "$WORK_ODD" && "$SOPFS" d "$MNT" -o "log=$LOG")
promtool check metrics <"$MNT/.sop/metrics" >"$WORK/out" 2>&1 || fail "$(cat "$WORK/out")"
grep -q 'path="[^"]*a\\"b\\\\c/d"' "$MNT/.sop/metrics" || fail "the path: $(grep path= "$MNT/.sop/metrics")"
unmount_volume
