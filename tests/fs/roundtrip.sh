#!/bin/bash
# A real tree, random bytes, and many small files in one directory come back as they were: after a
# remount; with any two of the four disk folders away; with bytes flipped and files cut in any two.
. "$(dirname "$0")/functions.sh"

if [ -n "$LONG" ]; then
	trees=(/usr/include /usr/share/doc) mib=1024 files=100000
else
	trees=(/usr/include/linux "$TOP/core" "$TOP/tests") mib=48 files=5000
fi

new_volume 4 2+2
ref=$WORK/ref
mkdir "$ref" "$ref/many"
for t in "${trees[@]}"; do
	if [ -d "$t" ]; then
		cp -a "$t" "$ref/"
	fi
done
head -c "${mib}M" /dev/urandom >"$ref/random"
(cd "$ref/many" && seq 1 "$files" | split -l 1 -a 5 - f)
assert_eq "$(find "$ref/many" -type f | wc -l)" "$files" "files made"

mount_volume
cp -a "$ref/." "$MNT/"
same_tree "$ref" "$MNT"
unmount_volume
mount_volume
same_tree "$ref" "$MNT"
tree_list "$ref" | sed '1d' | awk '!/ d /' >"$WORK/list.ref"
tree_list "$MNT" | sed '1d' | awk '!/ d /' >"$WORK/list.mnt"
cmp -s "$WORK/list.ref" "$WORK/list.mnt" || {
	diff "$WORK/list.ref" "$WORK/list.mnt" | head
	fail "attributes differ"
}
unmount_volume
check_volume

# Each case starts from the same healthy folders.
mkdir "$WORK/good"
cp -a --sparse=always "${DISKS[@]}" "$WORK/good/"
restore() {
	rm -rf "${DISKS[@]}"
	cp -a --sparse=always "$WORK/good/." "$WORK/"
}

for ((a = 1; a <= 4; a++)); do
	for ((b = a + 1; b <= 4; b++)); do
		echo "without d$a and d$b"
		mkdir -p "$WORK/away"
		mv "$WORK/d$a" "$WORK/d$b" "$WORK/away/"
		mount_volume degraded
		same_tree "$ref" "$MNT"
		echo "written while two are away" >"$MNT/degraded"
		unmount_volume
		mount_volume degraded
		assert_eq "$(cat "$MNT/degraded")" "written while two are away" "a degraded write"
		unmount_volume
		rm -rf "$WORK/away"
		restore
	done
done

# Flip bytes all over the files of one folder, and cut some files short. The labels and the lock are
# left: a folder without its label is an absent member, which is the case above.
damage() {
	local f size i
	while IFS= read -r f; do
		size=$(stat -c %s "$f")
		[ "$size" -gt 0 ] || continue
		for ((i = 0; i < 20; i++)); do
			printf '%b' "\\x$(printf %02x $((RANDOM % 256)))" |
				dd of="$f" bs=1 conv=notrunc status=none \
					seek=$(((RANDOM * 32768 + RANDOM) % size))
		done
		if [ $((RANDOM % 3)) = 0 ]; then
			truncate -s $(((RANDOM * 32768 + RANDOM) % size)) "$f"
		fi
	done < <(find "$1" -type f ! -name 'label.*' ! -name lock | LC_ALL=C sort)
}

for ((a = 1; a <= 4; a++)); do
	for ((b = a + 1; b <= 4; b++)); do
		echo "damage in d$a and d$b"
		damage "$WORK/d$a"
		damage "$WORK/d$b"
		mount_volume
		same_tree "$ref" "$MNT"
		unmount_volume
		restore
	done
done
