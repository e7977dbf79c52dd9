#!/bin/bash
# Very many files in one directory: found by name, listed once each and in order, deleted; and the daemon
# stays within its cache and 64 MiB.
. "$(dirname "$0")/functions.sh"

files=20000
[ -z "$LONG" ] || files=200000
drive=$BUILD/bench/drive
new_volume 4 2+2
mount_volume cache=64M

mkdir "$MNT/d"
"$drive" create "$MNT/d" $files 200
within_bounds 64 create
"$drive" stat "$MNT/d" $files
"$drive" read "$MNT/d" $files 200
assert_eq "$("$drive" list "$MNT/d" | awk '{ print $2 }')" $files "listed"
within_bounds 64 list
unmount_volume
mount_volume cache=64M
# shellcheck disable=SC2012 # -U: in the order of the directory itself
ls -U "$MNT/d" >"$WORK/names"
LC_ALL=C sort -c "$WORK/names" || fail "readdir is not in key order"
assert_eq "$(LC_ALL=C sort -u "$WORK/names" | wc -l)" $files "listed once each"
"$drive" read "$MNT/d" $files 200
"$drive" unlink "$MNT/d" $files
assert_eq "$(ls "$MNT/d")" "" "empty after unlink"
rmdir "$MNT/d"
within_bounds 64 unlink
unmount_volume
check_volume
