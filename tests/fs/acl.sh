#!/bin/bash
# Access control lists: mode and list follow each other, default lists are inherited, the kernel checks.
. "$(dirname "$0")/functions.sh"
requires setfacl getfacl setpriv
requires_root
new_volume 2 1+1
mount_volume
chmod 755 "$WORK" "$MNT"
cd "$MNT"
umask 022
echo a >a
setfacl -m u:1234:rw a
assert_eq "$(stat -c %a a)" 664 "mode shows the mask"
assert_eq "$(getfacl -cp a | grep -c 'user:1234:rw-')" 1 "the named user"
setpriv --reuid=1234 --regid=99 --clear-groups sh -c 'echo b >> a' || fail "the named user may not write"
setpriv --reuid=1235 --regid=99 --clear-groups sh -c 'echo c >> a' 2>/dev/null && fail "another may"
chmod 600 a
assert_eq "$(getfacl -cp a | grep mask)" "mask::---" "chmod narrows the mask"
setfacl -b a
[ -z "$(getfattr -m- a 2>/dev/null)" ] || fail "a list that says no more than the mode is kept"
mkdir d
setfacl -d -m u:1234:rwx d
echo x >d/f
mkdir d/s
assert_eq "$(getfacl -cp d/f | grep user:1234 | tr -s "\t")" "user:1234:rwx	#effective:rw-" "inherited by a file"
assert_eq "$(getfacl -cp d/s | grep -c '^default:user:1234:rwx')" 1 "and on, by a directory"
assert_eq "$(stat -c %a d/f)" 664 "no umask with a default list"
cp -a d e
assert_eq "$(getfacl -cpR e)" "$(getfacl -cpR d)" "cp -a keeps lists"
cd /
unmount_volume
mount_volume
assert_eq "$(getfacl -cp "$MNT/d/f" | grep -c 'user:1234')" 1 "after a remount"
unmount_volume
check_volume
