#!/bin/bash
# As the layers of an overlayfs: the lower one, and, where the kernel takes it, the upper one, with whiteouts,
# opaque directories and copies that carry their attributes.
. "$(dirname "$0")/functions.sh"
requires_root
new_volume 2 1+1

layers() {
	umount "$WORK/merged" 2>/dev/null || true
	mount -t overlay overlay -o "lowerdir=$MNT/lower,upperdir=$1/upper,workdir=$1/work" "$WORK/merged"
}
LOOPS+=("$WORK/merged")
mkdir "$WORK/merged" "$WORK/other"
mount -t tmpfs tmpfs "$WORK/other" || skip "needs to mount"
LOOPS+=("$WORK/other")
mkdir "$WORK/other/upper" "$WORK/other/work"

for mode in session=close session=write; do
	mount_volume "$mode"
	mkdir -p "$MNT/$mode/upper" "$MNT/$mode/work" "$MNT/lower/dir"
	echo one >"$MNT/lower/file"
	echo two >"$MNT/lower/dir/two"
	chmod 640 "$MNT/lower/file"
	setfattr -n user.a -v kept "$MNT/lower/file"

	layers "$WORK/other" 2>/dev/null || skip "needs overlayfs"
	assert_eq "$(cat "$WORK/merged/file")" one "the lower layer"
	echo more >>"$WORK/merged/file"
	assert_eq "$(cat "$MNT/lower/file")" one "the lower layer stays as it is"

	# A kernel may refuse it: the mount says so.
	layers "$MNT/$mode" 2>"$WORK/err" || {
		cat "$WORK/err"
		unmount_volume
		skip "the upper layer is refused by this kernel"
	}
	m=$WORK/merged u=$MNT/$mode/upper
	# Appending makes a version with an inode of its own, which an overlayfs does not look for.
	if [ "$mode" = session=write ]; then
		echo more >>"$m/file"
	else
		printf 'one\nmore\n' | dd of="$m/file" conv=notrunc status=none
	fi
	assert_eq "$(cat "$m/file")" $'one\nmore' "copied up"
	assert_eq "$(stat -c %a "$u/file")" 640 "with its mode"
	assert_eq "$(getfattr --only-values -n user.a "$u/file" 2>/dev/null)" kept "and attributes"
	mv "$m/file" "$m/moved"
	[ ! -e "$m/file" ] || fail "moved, and still there"
	assert_eq "$(stat -c '%F %t:%T' "$u/file")" "character special file 0:0" "a whiteout"
	rm -r "$m/dir"
	mkdir "$m/dir"
	assert_eq "$(ls "$m/dir")" "" "an opaque directory"
	echo three >"$m/dir/three"
	mkdir "$m/new"
	mv "$m/new" "$m/newer"
	umount "$m"
	layers "$MNT/$mode"
	assert_eq "$(find "$m" -mindepth 1 -printf "%P\n" | LC_ALL=C sort | tr "\n" " ")" \
		"dir dir/three moved newer " "what is there after another mount"
	umount "$m"
	umount "$WORK/other"
	mount -t tmpfs tmpfs "$WORK/other"
	mkdir "$WORK/other/upper" "$WORK/other/work"
	rm -r "$MNT/lower"
	unmount_volume
	check_volume
done
