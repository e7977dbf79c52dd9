#!/bin/bash
# Every call, compared with ext4: the same programs run on both, and print what each call gives. What may
# differ stands here, with its reason in fs/SEMANTICS.md.
# shellcheck source=tests/fs/functions.sh
. "$(dirname "$0")/functions.sh"
requires_root
requires mkfs.ext4

ext4=$WORK/ext4
mkdir "$ext4"
truncate -s 600M "$WORK/ext4.img"
mkfs.ext4 -q -F -b 4096 -I 256 "$WORK/ext4.img"
mount -o loop,noatime,nosuid,nodev "$WORK/ext4.img" "$ext4" || skip "needs loop devices"
LOOPS+=("$ext4")

# Runs the program in both, and shows where they differ.
compare() {
	local name=$1
	shift
	"$BUILD/fs/$name" "$ext4" "$@" >"$WORK/want" || fail "$name $* on ext4"
	"$BUILD/fs/$name" "$MNT" "$@" >"$WORK/got" || fail "$name $*"
	# A chown of nothing, by root or by another than the owner, of a file with set-ID bits: see SEMANTICS.
	sed -i -e "/^\(root\|member\|nobody\) chown(-1,-1) 'suid':/d" \
		-e '/^chown("s", (uid_t)-1, (gid_t)-1) of [0-7]* as 0:/d' "$WORK/want" "$WORK/got"
	[ "$(wc -l <"$WORK/want")" -ge "${lines_min:-20}" ] || fail "$name $*: it says nothing"
	diff "$WORK/want" "$WORK/got" >"$WORK/diff" || {
		head -n 50 "$WORK/diff"
		fail "$name $*, $mode: not as ext4 (<: ext4, >: here)"
	}
}

for mode in session=close session=write; do
	new_volume 2 1+1
	mount_volume "$mode"
	chmod 755 "$MNT"
	compare posix_matrix
	compare posix_rules
	rm -rf "$MNT/m" "$MNT/r" "$ext4/m" "$ext4/r"
	if [ -n "$LONG" ]; then
		lines_min=1 compare posix_rules 65000
		rm -rf "$MNT/r" "$ext4/r"
	fi
	"$BUILD/fs/posix_matrix" "$ext4" make
	"$BUILD/fs/posix_matrix" "$MNT" make
	unmount_volume
	check_volume
	mount_volume "$mode,ro"
	mount -o remount,ro "$ext4"
	compare posix_matrix read-only
	mount -o remount,rw "$ext4"
	rm -rf "$ext4/m"
	unmount_volume
	check_volume
	rm -rf "${DISKS[@]}"
done
