#!/bin/bash
# What an item carries beside its bytes survives renames, links, remounts, and copying with the usual programs:
# owners, modes, times to the nanosecond, hard links, attributes of all families, access lists.
. "$(dirname "$0")/functions.sh"
requires_root
requires setfattr setfacl setcap rsync tar cp
new_volume 2 1+1
mount_volume
chmod 755 "$MNT"
cd "$MNT"

mkdir -p a/sub
echo text >a/file
echo more >a/sub/other
ln a/file a/hard
ln -s file a/link
mkfifo a/fifo
mknod a/device c 1 3
cp /bin/true a/program
setcap cap_net_raw+ep a/program
: >a/empty
truncate -s 1M a/sparse
for i in $(seq 300); do setfattr -n "user.name-$i" -v "value $i" a/sub/other; done
setfattr -n user.big -v "0x$(head -c 20000 /dev/urandom | od -An -tx1 | tr -d ' \n')" a/file
setfattr -n user.empty a/file
setfattr -n trusted.secret -v t a/file
setfattr -n trusted.dir -v t a/sub
setfattr -h -n trusted.link -v t a/link
setfattr -n security.label -v s a/file
setfattr -n user.dir -v d a/sub
setfacl -m u:1234:rw,g:77:r a/file
setfacl -m u:1:rwx,d:u:1234:rwx,d:g:77:rx a/sub
chown -h 12:34 a/link a/sub/other
chmod 2751 a/sub
chmod 4711 a/empty
touch -h -d '1955-11-05 06:15:00.123456789 UTC' a/link
touch -d '2100-01-02 03:04:05.000000001 UTC' a/file
touch -d '2001-02-03 04:05:06.987654321 UTC' a/sub

# All that can be seen of a tree, but ctime and inode numbers.
all_of() {
	(
		cd "$1"
		find . -printf '%P %y %m %U:%G %n %s %l %T+\n' | LC_ALL=C sort
		find . | LC_ALL=C sort | while read -r p; do
			getfattr -h -d -m - -e hex "$p" 2>/dev/null | LC_ALL=C sort | cut -c -100
		done
		getfacl -cpPR . 2>/dev/null
		getfattr --only-values -n user.big file 2>/dev/null | md5sum
		md5sum file program sub/other sparse
	)
}
all_of a >"$WORK/want"
[ "$(grep -c user.name- "$WORK/want")" = 300 ] || fail "300 names are not listed"
grep -q security.capability "$WORK/want" || fail "no capability"

same_as_a() {
	all_of "$1" >"$WORK/got"
	diff "$WORK/want" "$WORK/got" >"$WORK/diff" || {
		head -20 "$WORK/diff"
		fail "$2"
	}
}

mv a b
same_as_a b "a rename"
mv b a
cd /
unmount_volume
mount_volume
cd "$MNT"
same_as_a a "a remount"
cp -a a b
same_as_a b "cp -a"
mv b out
rsync -aHAX a/ b/
same_as_a b "rsync -aHAX"
assert_eq "$(rsync -aHAXi a/ b/)" "" "rsync finds something to do again"
rsync -aHAX --inplace out/ b/
same_as_a b "rsync over it"
rm -r b out
tar --xattrs --xattrs-include='*' --acls --format=posix -C a -cf - . | (mkdir b && tar --xattrs --xattrs-include='*' --acls -C b -xpf -)
same_as_a b "tar --xattrs --acls"
rm -r b

# Each is its own: what is done to a copy or a second name.
cp -a a/file c
setfattr -x user.big c
getfattr -n user.big a/file >/dev/null 2>&1 || fail "the copy's removal reached the original"
assert_eq "$(getfattr --only-values -n trusted.secret a/hard)" t "by the other name"
rm a/file
assert_eq "$(getfattr --only-values -n trusted.secret a/hard)" t "without the first name"

# While it is renamed, and its name is another's, a descriptor shows its own.
echo mine >moving
echo other >other
setfattr -n user.who -v mine moving
setfattr -n user.who -v other other
python3 - <<'PY' || fail "attributes of a file that is renamed"
import os, sys
f = os.open('moving', os.O_RDONLY)
child = os.fork()
if not child:
    for i in range(3000):
        os.rename('moving', 'moved')
        os.rename('other', 'moving')
        os.rename('moving', 'other')
        os.rename('moved', 'moving')
    os._exit(0)
looks = 0
while os.waitpid(child, os.WNOHANG)[0] == 0:
    assert os.getxattr(f, 'user.who') == b'mine'
    assert os.listxattr(f) == ['user.who']
    looks += 1
assert looks
PY

# Too much of it.
: >many
n=0
while setfattr -n "user.$n" -v "$(head -c 30000 /dev/zero | tr '\0' x)" many 2>"$WORK/err"; do
	n=$((n + 1))
	[ $n -lt 100 ] || fail "no limit to the attributes of one item"
done
grep -q "No space" "$WORK/err" || fail "beyond the limit: $(cat "$WORK/err")"
[ $n -gt 30 ] || fail "only $n attributes of 30,000 bytes"
assert_eq "$(getfattr --only-values -n user.0 many | wc -c)" 30000 "what was there stays"
head -c 65537 /dev/zero | tr '\0' x >"$WORK/long"
python3 - <<'PY' || fail "a value over 64 KiB"
import errno, os
os.setxattr('a/hard', 'user.most', b'x' * 65536)
assert len(os.getxattr('a/hard', 'user.most')) == 65536
try:
    os.setxattr('a/hard', 'user.over', b'x' * 65537)
except OSError as e:
    assert e.errno == errno.E2BIG, e
PY
cd /
unmount_volume
check_volume
