#!/bin/bash
# What people type: ls cat cp mv rm ln mkdir rmdir chmod touch truncate getfattr df, and all of it again
# after a remount.
. "$(dirname "$0")/functions.sh"
requires getfattr setfattr

new_volume 4 2+2 -L basic
mount_volume
cd "$MNT"

echo hello >a
assert_eq "$(cat a)" hello "cat"
echo again >>a
assert_eq "$(cat a)" $'hello\nagain' "append"
echo new >a
assert_eq "$(cat a)" new "rewrite"
assert_eq "$(stat -c %s a)" 4 "size"

mkdir -p dir/deep/er
cp a dir/deep/er/b
mv dir/deep/er/b dir/c
[ ! -e dir/deep/er/b ] || fail "mv left the old name"
assert_eq "$(cat dir/c)" new "mv across directories"
echo other >dir/d
mv dir/d dir/c
assert_eq "$(cat dir/c)" other "mv over a file"
mv dir/deep dir/shallow
[ -d dir/shallow/er ] || fail "mv of a directory"
rmdir dir 2>/dev/null && fail "rmdir of a full directory"
mv dir dir/shallow/x 2>/dev/null && fail "a directory moved below itself"

ln -s ../a dir/link
assert_eq "$(readlink dir/link)" ../a "readlink"
assert_eq "$(cat dir/link)" new "through a symlink"
ln a hard
assert_eq "$(stat -c %h a)" 2 "link count"
assert_eq "$(stat -c %i a)" "$(stat -c %i hard)" "inode of a hard link"
echo changed >hard
assert_eq "$(cat a)" changed "write through a hard link"
rm a
assert_eq "$(cat hard)" changed "the other name stays"
assert_eq "$(stat -c %h hard)" 1 "link count after rm"

chmod 640 hard
assert_eq "$(stat -c %a hard)" 640 "chmod"
touch -d '2001-02-03 04:05:06.123456789 UTC' hard
assert_eq "$(TZ=UTC stat -c %y hard)" '2001-02-03 04:05:06.123456789 +0000' "utimens"
stat -c %z hard >"$WORK/ctime"
for change in 'echo x >>hard' 'echo y >hard' 'truncate -s 7 hard' 'truncate -s 7 hard'; do
	touch -d '2001-02-03 04:05:06.123456789 UTC' hard
	sh -c "$change"
	[ "$(stat -c %Y hard)" -gt 1000000000 ] || fail "$change: the mtime stays"
	[ "$(stat -c %z hard)" != "$(cat "$WORK/ctime")" ] || fail "$change: the ctime stays"
	stat -c %z hard >"$WORK/ctime"
done
echo changed >hard
if [ "$(id -u)" = 0 ]; then
	chown 12:34 hard
	assert_eq "$(stat -c %u:%g hard)" 12:34 "chown"
fi
setfattr -n user.color -v blue hard
setfattr -n user.big -v "$(head -c 3000 /dev/zero | tr '\0' x)" hard
assert_eq "$(getfattr --only-values -n user.color hard)" blue "xattr"
assert_eq "$(getfattr -d hard 2>/dev/null | grep -c ^user)" 2 "xattr list"
setfattr -x user.color hard
getfattr -n user.color hard 2>/dev/null && fail "an xattr removed is there still"

head -c 100000 /dev/urandom >big
cp big big2
truncate -s 50000 big2
cmp -n 50000 big big2
truncate -s 150000 big2
assert_eq "$(stat -c %s big2)" 150000 "truncate up"
assert_eq "$(tail -c 100000 big2 | tr -d '\0' | wc -c)" 0 "what truncate adds is zeros"
dd if=/dev/zero of=sparse bs=1 count=1 seek=10000000 status=none
[ "$(du -k sparse | cut -f1)" -lt 1000 ] || fail "a hole takes space"
printf X | dd of=big bs=1 seek=4097 conv=notrunc status=none
assert_eq "$(dd if=big bs=1 skip=4097 count=1 status=none)" X "a byte in the middle"

mkdir many
for ((i = 0; i < 1000; i++)); do
	echo "$i" >"many/f$i"
done
assert_eq "$(find many -type f | wc -l)" 1000 "readdir"
rm many/f1*
assert_eq "$(find many -type f | wc -l)" 889 "readdir after rm"
assert_eq "$(cat many/f999)" 999 "a small file"

df "$MNT" | grep -q "$MNT" || fail "df"
df -i "$MNT" >/dev/null
[ "$(stat -f -c %a .)" -gt 0 ] || fail "statfs says there is no room"

tree_list "$MNT" >"$WORK/before"
cd /
cp -a "$MNT" "$WORK/copy"
unmount_volume
mount_volume
tree_list "$MNT" >"$WORK/after"
diff "$WORK/before" "$WORK/after" || fail "names or attributes changed over a remount"
same_tree "$WORK/copy" "$MNT"
assert_eq "$(getfattr --only-values -n user.big "$MNT/hard" | wc -c)" 3000 "xattr after a remount"
rm -r "${MNT:?}"/*
assert_eq "$(find "$MNT" -mindepth 1 | wc -l)" 0 "rm -r"
unmount_volume
check_volume
