#!/bin/bash
# Typed stores through the mount: directories whose names are numbers, doubles, JSON maps or duplicates; what
# they accept, in which order they are listed, and what their attributes say.
. "$(dirname "$0")/functions.sh"
requires getfattr setfattr python3
new_volume 4 2+2 --ec fast=1+1
mount_volume
cd "$MNT"

attr_is() {
	local got
	got=$(getfattr --only-values -n "$2" "$1") || fail "$1: $2 cannot be read"
	[ "$got" = "$3" ] || fail "$1: $2 is '$got' and not '$3'"
}

# refused ERRNO-TEXT COMMAND...
refused() {
	local want=$1
	shift
	if "$@" 2>"$WORK/err"; then
		fail "$* is accepted"
	fi
	grep -q "$want" "$WORK/err" || fail "$*: $(cat "$WORK/err"), not $want"
}

lists() {
	local dir=$1 got
	shift
	got=$(ls -U "$dir")
	[ "$got" = "$(printf '%s\n' "$@")" ] || fail "$dir lists: $got"
}

# ---- numbers ----
mkdir ints
attr_is ints sop.key bytes
attr_is ints sop.unique 1
setfattr -n sop.key -v int64 ints
attr_is ints sop.key int64
for i in 10 9 -1 0 100 -20; do echo "$i" >ints/$i; done
lists ints -20 -1 0 9 10 100
for bad in 01 +1 x 1.0 9223372036854775808 -0 ''"'1'"; do
	refused 'Invalid argument' touch "ints/$bad"
	refused 'Invalid argument' mkdir "ints/$bad"
	[ ! -e "ints/$bad" ] || fail "ints/$bad is there"
done
refused 'cannot move' mv ints/9 ints/nine
[ "$(cat ints/9)" = 9 ] || fail "ints/9 after a rename that was refused"
mv ints/9 ints/11
ln ints/11 ints/12
mkdir ints/50
lists ints -20 -1 0 10 11 12 50 100
rmdir ints/50
rm ints/12
# Fixed by the first item.
refused 'Directory not empty' setfattr -n sop.key -v string ints
refused 'Directory not empty' setfattr -n sop.slot_length -v 100 ints
setfattr -n sop.note -v 'of numbers' ints
attr_is ints sop.note 'of numbers'
# More than a listing reads at once, with positions in the middle.
python3 - ints <<'PY'
import os, sys
d = sys.argv[1]
for i in range(-400, 400): open(f'{d}/{i}', 'w').close()
names = [int(e.name) for e in os.scandir(d)]
assert names == sorted(names) and len(names) == len(set(names)) == 800, len(names)
# A file that is not committed yet stands in its place.
f = open(f'{d}/5000', 'w'); g = open(f'{d}/-5000', 'w')
names = [int(e.name) for e in os.scandir(d)]
assert names == sorted(names) and names[0] == -5000 and names[-1] == 5000
f.close(); g.close()
for e in os.listdir(d): os.unlink(f'{d}/{e}')
assert not os.listdir(d)
PY

# A file without a name has a key all the same, which is none of a number.
expect_exit 0 python3 - <<'PY'
import errno, os
os.close(os.open('.', os.O_TMPFILE | os.O_RDWR))
try:
    os.open('ints', os.O_TMPFILE | os.O_RDWR)
    raise SystemExit('O_TMPFILE among numbers')
except OSError as e:
    assert e.errno == errno.EOPNOTSUPP, e
PY

# ---- doubles ----
mkdir floats
setfattr -n sop.key -v float64 floats
touch floats/1.5 floats/-inf floats/nan floats/1e+300 floats/-2 floats/0 floats/inf
lists floats nan -inf -2 0 1.5 1e+300 inf
for bad in 1.50 -0 NaN 1e300 .5; do refused 'Invalid argument' touch "floats/$bad"; done

# ---- JSON ----
mkdir people
setfattr -n sop.key -v 'json:country,age:desc:number' people
attr_is people sop.key 'json:country,age:desc:number'
touch 'people/{"age":30,"country":"de"}' 'people/{"age":72,"country":"de","name":"Pauline"}' \
	'people/{"age":1,"country":"at"}'
lists people '{"age":1,"country":"at"}' '{"age":72,"country":"de","name":"Pauline"}' \
	'{"age":30,"country":"de"}'
refused 'Invalid argument' touch 'people/{"country":"de","age":30}'
refused 'Invalid argument' touch 'people/{"age":"30","country":"de"}'
# Another map with the same index is the same key.
refused 'File exists' mkdir 'people/{"age":72,"country":"de","name":"Other"}'
[ ! -e 'people/{"age":72,"country":"de"}' ] || fail "a name that is not there"
mv 'people/{"age":30,"country":"de"}' 'people/{"age":31,"country":"de","z":[1,2]}'
lists people '{"age":1,"country":"at"}' '{"age":72,"country":"de","name":"Pauline"}' \
	'{"age":31,"country":"de","z":[1,2]}'
# Nor is it replaced by another that is moved to such a name; it can get the name itself.
echo kept >'people/{"age":72,"country":"de","name":"Pauline"}'
# (Not by mv, which goes by a stat that it has not made when a name is taken and not there.)
refused 'File exists' python3 -c 'import os, sys; os.rename(*sys.argv[1:])' 'people/{"age":1,"country":"at"}' \
	'people/{"age":72,"country":"de","name":"Other"}'
[ "$(cat 'people/{"age":72,"country":"de","name":"Pauline"}')" = kept ] || fail "replaced by a twin"
mv -T 'people/{"age":72,"country":"de","name":"Pauline"}' 'people/{"age":72,"country":"de","name":"Other"}'
[ "$(cat 'people/{"age":72,"country":"de","name":"Other"}')" = kept ] || fail "a twin's name"
[ ! -e 'people/{"age":72,"country":"de","name":"Pauline"}' ] || fail "the name before"
getfattr -n sop.layout 'people/{"age":72,"country":"de","name":"Other"}' >/dev/null
lists people '{"age":1,"country":"at"}' '{"age":72,"country":"de","name":"Other"}' \
	'{"age":31,"country":"de","z":[1,2]}'
# Without an index the first key says which.
mkdir first
setfattr -n sop.key -v json first
touch 'first/{"b":2,"a":1}' 2>/dev/null && fail "not canonical"
touch 'first/{"a":1,"b":"x"}'
attr_is first sop.key 'json:a:number,b:string'
refused 'Invalid argument' touch 'first/{"a":"1","b":"x"}'

# ---- duplicates ----
mkdir dups
setfattr -n sop.key -v string dups
setfattr -n sop.unique -v 0 dups
attr_is dups sop.unique 0
h='#'
for n in k "k${h}2" ka "k${h}10" "k${h}3"; do echo "$n" >"dups/$n"; done
lists dups k "k${h}2" "k${h}3" "k${h}10" ka
rm "dups/k${h}2"
lists dups k "k${h}3" "k${h}10" ka
[ "$(cat "dups/k${h}3")" = "k${h}3" ] || fail "a duplicate"
refused 'Invalid argument' touch "dups/k${h}1"
cp -r dups copy && rm -r dups copy

# ---- names whose keys are longer than a name can be are listed, and can be gone on from ----
mkdir long longer
setfattr -n sop.unique -v 0 long
python3 - <<'PY'
import os
x = 'x' * 246
names = [x + '%03d' % i for i in range(500)] + ['y' * 255]
for n in names:
    os.mknod('long/' + n)
assert os.listdir('long') == names, len(os.listdir('long'))
names = ['{' + ''.join('"%c":%d,' % (97 + i, n) for i in range(15)) + '"p":"' + 'x' * 157 + '"}' for n in range(10)]
os.setxattr('longer', 'sop.key', b'json')
for n in names:
    os.mknod('longer/' + n)
assert os.listdir('longer') == names, len(os.listdir('longer'))
PY
rm -r long longer

# ---- the rest ----
mkdir shaped
setfattr -n sop.value -v medium shaped
setfattr -n sop.slot_length -v 50 shaped
setfattr -n sop.ec -v fast shaped
setfattr -n sop.balance -v 1 shaped
setfattr -n sop.cache -v cold shaped
attr_is shaped sop.value medium
attr_is shaped sop.slot_length 50
attr_is shaped sop.ec fast
attr_is shaped sop.cache cold
for a in sop.value=huge sop.slot_length=1 sop.slot_length=x sop.ec=none sop.key=json: sop.key=int64:a \
	sop.unique=maybe sop.cache=warm; do
	refused 'Invalid argument' setfattr -n "${a%%=*}" -v "${a#*=}" shaped
done
refused 'Operation not permitted' setfattr -n sop.count -v 1 shaped
refused 'Operation not permitted' setfattr -x sop.key shaped
refused 'Operation not permitted' setfattr -n sop.unheard -v 1 shaped
seq 1000 | (cd shaped && xargs touch)
[ "$(find shaped -mindepth 1 | wc -l)" = 1000 ] || fail "items"

cd /
unmount_volume
mount_volume
cd "$MNT"
attr_is people sop.key 'json:country,age:desc:number'
lists floats nan -inf -2 0 1.5 1e+300 inf
cd /
unmount_volume
"$CHECK" "${DISKS[@]}" >"$WORK/check" 2>&1 || fail "$(cat "$WORK/check")"
