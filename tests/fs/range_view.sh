#!/bin/bash
# .sop/range: part of a directory by key, rising and falling, as a directory; nobody sees by it what he may
# not see without it.
. "$(dirname "$0")/functions.sh"
new_volume 2 1+1
mount_volume
chmod 755 "$WORK" "$MNT"
cd "$MNT"
R=.sop/range

list() {
	# shellcheck disable=SC2012 # the order of ls -UA is what is looked at
	ls -UA "$R/$1" | tr '\n' ' '
}

[ -n "$(find .sop -mindepth 1 -maxdepth 1 -name range)" ] || fail "not listed in .sop"
mkdir -p a/b secret
for i in 10 11 12 2 3; do echo "$i" >"a/$i"; done
echo deep >a/b/x
mkdir a/1d
assert_eq "$(list a/11..2)" "11 12 1d 2 " "a range"
assert_eq "$(list a/desc:11..2)" "2 1d 12 11 " "falling"
assert_eq "$(list a/..11)" "10 11 " "no lower bound"
assert_eq "$(list a/2..)" "2 3 b " "no upper bound"
assert_eq "$(list a/desc:..)" "b 3 2 1d 12 11 10 " "all, falling"
assert_eq "$(list a/11z..11zz)" "" "an empty range"
assert_eq "$(list a/3..2)" "" "the wrong way round"
assert_eq "$(list a/b/..)" "$(list a/)" ".. alone is the parent"
assert_eq "$(list a/)" "10 11 12 1d 2 3 b " "without a range, all"
assert_eq "$(list a..a)" "a " "of the root"
assert_eq "$(cat $R/a/11..2/12)" 12 "a file in it"
assert_eq "$(stat -c %i $R/a/11..2/12)" "$(stat -c %i a/12)" "is the file itself"
[ ! -e "$R/a/11..2/10" ] || fail "a file outside it can be opened"
assert_eq "$(cat $R/a/b..b/b/x)" deep "below a directory in it"
assert_eq "$(list a/b/x..x)" "x " "of a nested store"
[ "$(stat -c %i $R/a/1d..1d/1d)" != "$(stat -c %i a/1d)" ] || fail "the kernel knows a directory twice"
assert_eq "$(find $R/a/11..2 | sort | tr '\n' ' ')" \
	"$R/a/11..2 $R/a/11..2/11 $R/a/11..2/12 $R/a/11..2/1d $R/a/11..2/2 " "find"
[ ! -e "$R/nothing/a..b" ] || fail "a range of what is not there"
[ ! -e "$R/a/10/a..b" ] || fail "a range of a file"

# The view follows the directory, committed or not.
echo 13 >a/13
exec 5>a/14
assert_eq "$(list a/13..14)" "13 14 " "new ones"
assert_eq "$(list a/desc:13..14)" "14 13 " "new ones, falling"
rm a/13
assert_eq "$(list a/13..14)" "14 " "and gone"
[ ! -e "$R/a/13..14/13" ] || fail "gone, but found"
exec 5>&-
echo more >>"$R/a/10..10/10"
assert_eq "$(tail -n 1 a/10)" more "written through it"

# Nothing else can be changed.
for c in "touch $R/a/1..2/new" "mkdir $R/a/1..2/new" "rm -f $R/a/..11/10" "mv $R/a/..11/10 a/y" "ln a/2 $R/a/1..2/new" \
	"rmdir $R/a/1d..1d/1d" "chmod 700 $R/a/1..2" "mkdir $R/new" "rmdir $R" "setfattr -n user.x -v 1 $R/a"; do
	if $c 2>"$WORK/err"; then fail "$c: done"; fi
	grep -qi "not permitted" "$WORK/err" || fail "$c: $(cat "$WORK/err")"
done

# Names that look like ranges, and bounds with odd bytes.
mkdir 'x..y' 'p%q'
echo 1 >'x..y/..k'
echo 2 >'x..y/k%20'
assert_eq "$(list 'x%2e%2ey/%2e%2ek..k%2520')" "..k k%20 " "escaped"
assert_eq "$(list 'p%25q/..z')" "" "a store with a percent sign"
assert_eq "$(cat "$R/x%2e%2ey/..z/k%20")" 2 "names in a range are as they are"
ls "$R/a/%zz..b" 2>"$WORK/err" && fail "a bad escape"
grep -qi invalid "$WORK/err" || fail "a bad escape gives $(cat "$WORK/err")"

# Of a typed store, in its order: what is listed is there, and what is not is not.
mkdir ints
setfattr -n sop.key -v int64 ints
for i in -5 2 9 10 100 101; do echo "$i" >"ints/$i"; done
exec 5>ints/11
assert_eq "$(list ints/9..100)" "9 10 11 100 " "a range of numbers"
assert_eq "$(list ints/desc:-5..9)" "9 2 -5 " "falling"
assert_eq "$(cat "$R/ints/9..100"/{9,10,100} "$R/ints/desc:-5..9"/{-5,2} | xargs)" "9 10 100 -5 2" "numbers in a range"
[ -e "$R/ints/9..100/11" ] || fail "one that is not committed"
for i in 2 101 -5 010 x; do
	[ ! -e "$R/ints/9..100/$i" ] || fail "$i is between 9 and 100"
done
assert_eq "$(list ints/a..z)" "" "between what is no number"
[ ! -e "$R/ints/a..z/9" ] || fail "a number between what is none"
exec 5>&-

# Many, with long common beginnings: each position can be gone back to, in both orders.
cat >"$WORK/many.py" <<'PY'
import ctypes, os, random, sys
random.seed(1)
os.mkdir('m')
names = set('long' * 50 + '%d' % i for i in range(100, 400)) | set('n%05d' % i for i in range(3000))
names |= set(''.join(random.choice('ab\x01\xff') for _ in range(random.randrange(1, 30))) for _ in range(700))
names = sorted(n.encode('latin-1') for n in names)
for n in names:
    os.mknod(b'm/' + n)
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
class Dirent(ctypes.Structure):
    _fields_ = [('ino', ctypes.c_uint64), ('off', ctypes.c_int64), ('reclen', ctypes.c_uint16),
                ('type', ctypes.c_uint8), ('name', ctypes.c_char * 256)]
libc.readdir.restype = ctypes.POINTER(Dirent)
def entries(d):
    while True:
        e = libc.readdir(ctypes.c_void_p(d))
        if not e:
            return
        yield e.contents.name, e.contents.type, libc.telldir(ctypes.c_void_p(d))
for view, want in ((b'..', names), (b'desc:..', names[::-1]),
                   (b'b..n02', [n for n in names if b'b' <= n <= b'n02']),
                   (b'desc:b..n02', [n for n in names[::-1] if b'b' <= n <= b'n02'])):
    path = b'm' if view == b'..' else b'.sop/range/m/' + view
    d = libc.opendir(path)
    seen = [x for x in entries(d) if x[0] not in (b'.', b'..')]
    assert [x[0] for x in seen] == want, '%r: order or content, %d of %d' % (view, len(seen), len(want))
    assert all(x[1] == 8 for x in seen), 'types'
    assert len(set(x[2] for x in seen)) == len(seen), 'two entries with one position'
    for i in random.sample(range(len(seen) - 1), 200):
        libc.seekdir(ctypes.c_void_p(d), ctypes.c_long(seen[i][2]))
        assert next(entries(d))[0] == want[i + 1], 'after seekdir'
    libc.closedir(ctypes.c_void_p(d))
PY
python3 "$WORK/many.py" || fail "see above"

# Permissions are those of the directories themselves.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && command -v setfacl >/dev/null; then
	as() {
		setpriv --reuid="$1" --regid="$1" --clear-groups "${@:2}" 2>/dev/null
	}
	echo no >secret/s
	mkdir secret/below
	echo no >secret/below/t
	chmod 700 secret
	as 1000 cat a/2 >/dev/null || fail "a user cannot read"
	as 1000 ls "$R/a/1..2" >/dev/null || fail "a user cannot list a range"
	! as 1000 ls "$R/secret/a..z" || fail "a range of a closed directory can be listed"
	! as 1000 cat "$R/secret/a..z/s" || fail "and its files read"
	! as 1000 cat "$R/secret/below/a..z/t" || fail "and what lies below"
	! as 1000 cat "$R/..zz/secret/below/t" || fail "by way of a range of the root"
	chmod 711 secret
	! as 1000 ls "$R/secret/a..z" || fail "a range of an unreadable directory can be listed"
	chmod 700 secret
	setfacl -m u:1000:rx secret
	as 1000 ls "$R/secret/a..z" >/dev/null || fail "who is let in by a list"
	setfacl -b secret
	chmod 755 secret
	setfacl -m u:1000:--- secret
	! as 1000 ls "$R/secret/a..z" || fail "who is kept out by a list"
fi
rmdir a/1d
exec 6<"$R/a"
rm -r a
assert_eq "$(list ..b)" "" "its store is gone"
exec 6<&-
cd /
unmount_volume
check_volume
