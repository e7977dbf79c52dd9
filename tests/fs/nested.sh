#!/bin/bash
# A volume does not lie in itself: it is mounted neither in a folder of its own nor over one, and takes no
# disk that lies in its mount.
. "$(dirname "$0")/functions.sh"
requires jq

new_volume 4 2+2 -L "$NAME"

# Once with the folder on the command line, once with one that only the labels know.
ln -s d2 "$WORK/link"
MOUNTS+=("$WORK/d2" "$WORK/d2/segments" "$WORK/d2/deeper" "$WORK")
mkdir "$WORK/d2/deeper"
for given in "$WORK/d2" "$WORK/d1"; do
	for where in "$WORK/d2" "$WORK/link" "$WORK/d2/segments" "$WORK/link/deeper" "$WORK"; do
		expect_exit 32 timeout -s KILL 60 "$SOPFS" "$given" "$where" -o "log=$LOG"
		expect_says "$where|$(realpath "$where")" 'disk folder .*mount on another directory'
		! is_mounted "$(realpath "$where")" || fail "$where: refused, but mounted"
	done
done
check_volume

mount_volume
mkdir "$MNT/new" "$WORK/other"
ln -s "$MNT/new" "$WORK/away"
for folder in "$MNT/new" "$MNT" "$WORK/away"; do
	for what in "replace $NAME d1" "add $NAME"; do
		# shellcheck disable=SC2086 # words
		expect_exit 1 timeout -s KILL 60 "$SOPCTL" $what "$folder" --yes --force
		expect_says "$folder: lies in this volume"
	done
done
expect_exit 1 timeout -s KILL 60 "$SOPCTL" online --path "$MNT/new" "$NAME" d1
expect_says "lies in this volume"
if [ "$(id -u)" = 0 ]; then
	mount --bind "$MNT/new" "$WORK/other"
	LOOPS+=("$WORK/other")
	expect_exit 1 timeout -s KILL 60 "$SOPCTL" add "$NAME" "$WORK/other" --yes --force
	expect_says 'lies in this volume'
	umount "$WORK/other"
	LOOPS=()
fi
assert_eq "$(find "$MNT/new")" "$MNT/new" "nothing was written there"
assert_eq "$("$SOPCTL" status --json "$NAME" | jq -r '[.disks[].path] | join(":")')" "$SOURCE" "the disks"
unmount_volume
check_volume
