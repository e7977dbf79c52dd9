#!/bin/bash
# mkfs.sopfs on real folders: what it refuses, what it says, what it leaves. MKFS=program, or BUILD=dir.
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$top" && realpath -m "${BUILD:-build}")
mkfs=${MKFS:-$build/mkfs.sopfs}
[ -x "$mkfs" ] || { echo "needs $mkfs"; exit 77; }

work=$(mktemp -d "${TMPDIR:-/tmp}/sopfs-test.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
	echo "FAILED: $*" >&2
	echo "stdout: $(cat out)" >&2
	echo "stderr: $(cat err)" >&2
	exit 1
}

run() {
	rc=0
	"$mkfs" "$@" >out 2>err || rc=$?
}

# works ARGS: exit code 0.
works() {
	run "$@"
	[ "$rc" = 0 ] || fail "mkfs.sopfs $*: exit code $rc"
}

# refuses TEXT ARGS: exit code 1, one line "mkfs.sopfs: TEXT" on stderr, nothing on stdout.
refuses() {
	local text=$1
	shift
	run "$@"
	[ "$rc" = 1 ] || fail "mkfs.sopfs $*: exit code $rc, not 1"
	[ ! -s out ] || fail "mkfs.sopfs $*: prints to stdout"
	case $(head -n 1 err) in
	"mkfs.sopfs: "*"$text"*) ;;
	*) fail "mkfs.sopfs $*: does not say \"$text\"" ;;
	esac
}

# says FILE TEXT: the fixed text is in it.
says() {
	grep -qF -e "$2" "$1" || fail "no \"$2\" in $1"
}

# All below the folders: names, sizes, times.
tree() {
	find "$@" -mindepth 1 -printf '%p %s %T@\n' | sort
}

there() {
	local f
	for f in "$@"; do
		[ -e "$f" ] || fail "$f is missing"
	done
}

gone() {
	local f
	for f in "$@"; do
		[ ! -e "$f" ] || fail "$f is there"
	done
}

# --- usage

works --help
says out '--ec K+M'
works -V
says out 'mkfs.sopfs (sopfs)'
refuses 'no folder was given'
says err "Try 'mkfs.sopfs --help'."
run -Z
[ "$rc" = 1 ] || fail "-Z: exit code $rc"
mkdir d1 d2 d3 d4
for bad in 4 4+ +2 4+2+1 0+2 -1+2 4x2 999+1; do
	refuses '--ec' --ec "$bad" d1
done
for bad in 249 750001 12x '' -5; do
	refuses '--registry-hashmod' --registry-hashmod "$bad" d1
done
refuses 'is not a UUID' -U nonsense d1
refuses 'an empty name' --stores d1,,d2 d1
refuses '4+2 needs 6 disks, 4 are given' -f --ec 4+2 d1 d2 d3 d4
refuses '1+1 needs 2 disks, 1 is given' -f --ec 1+1 d1
refuses 'is given twice' -f d1 d2 ./d1
refuses 'cannot be in it' -L 'two words' d1
refuses 'is not UTF-8' -L $'t\xe4nk' d1
refuses 'is not UTF-8' --ec $'p\xe4=1+0' d1
[ -z "$(tree d1 d2 d3 d4)" ] || fail 'a refusal has written something'

# --- one device, missing folders, things that are no folders

refuses "$work/d2: is on the same device as $work/d1" d1 d2
refuses "$work/nowhere: no such folder" nowhere
refuses 'nowhere/below: no such folder' -f nowhere/below
refuses 'No such file or directory' -f "$work/nowhere/below"
touch plain
refuses "$work/plain: Not a directory" -f plain
ln -s d1 link
refuses 'is the same folder as' -f d1 "$work/link"

# --- a dry run writes nothing

works -n -f -L tank --ec 2+2 d1 d2 d3 d4
says out 'would make volume tank'
works -n -f fresh1 fresh2
gone fresh1 fresh2
[ -z "$(tree d1 d2 d3 d4)" ] || fail 'a dry run has written something'

# --- making one

works -v -f -L tank -U 01234567-89ab-4cde-8f01-23456789abcd --ec 2+2 d1 d2 d3 d4
says out 'made volume tank (uuid 01234567-89ab-4cde-8f01-23456789abcd)'
says out '(4 disks, erasure code 2+2)'
says out 'any 2 disks may fail'
says out "$work/d1:$work/d2:$work/d3:$work/d4  /MOUNTPOINT  sopfs  nofail"
says out "member:     3 $work/d4 (data)"
says err 'warning: folders share a device'
for d in d1 d2 d3 d4; do
	for f in label.0 label.1; do
		[ "$(stat -c %s "$d/$f")" = 32768 ] || fail "$d/$f is not a label"
		[ "$(head -c 8 "$d/$f")" = SOPLABEL ] || fail "$d/$f is not a label"
	done
	there "$d/segments"
	[ ! -s "$d/lock" ] || fail "$d/lock still holds the claim of mkfs"
done
for d in d1 d2 d3; do
	there "$d/checkpoint" "$d/registry" "$d/journal"
done
gone d4/checkpoint

# --- it is not made again by accident

before=$(tree d1 d2 d3 d4)
refuses "$work/d1: belongs to volume 01234567-89ab-4cde-8f01-23456789abcd (label \"tank\"); -f overwrites it" d1
[ "$before" = "$(tree d1 d2 d3 d4)" ] || fail 'a refusal has written something'

# --- nor under a mounter

exec 9>>d2/lock
flock -n 9 || fail 'cannot lock d2/lock'
echo 'host=alpha pid=77' >d2/lock
refuses "$work/d2: is in use (host=alpha pid=77)" -f d1 d2
says err 'unmount it there first'
exec 9>&-

# --- a folder that another is just making something of: the others are not touched either

mkdir taken
works -q -f -L old made0
exec 9>>taken/lock
flock -n 9 || fail 'cannot lock taken/lock'
before=$(tree made0 | grep -v '/lock ')
refuses "$work/taken: is in use" -f made0 taken
exec 9>&-
[ "$before" = "$(tree made0 | grep -v '/lock ')" ] || fail 'a refusal has taken a volume away'
rm taken/lock

# --- over old content: what belongs to the old volume goes, what does not stays

mkdir -p d1/segments/0a d1/mine
echo old >d1/segments/0a/00000000001000a.0
echo old >d1/journal/0000000000000001
echo precious >d1/mine/letter
works -n -f -L pool d1
says out '(1 disk, erasure code 1+0)'
works -q -f -L pool d1
[ -z "$(cat out err)" ] || fail '-q prints something'
gone d1/segments/0a/00000000001000a.0 d1/journal/0000000000000001
[ "$(cat d1/mine/letter)" = precious ] || fail 'a file that is not ours is gone'
works -f d1
says out 'no redundancy'

# --- a directory that only has the name of one of ours is not emptied, whatever is said

mkdir -p diary/journal/2024 diary/segments
echo dear >diary/journal/2024/may
refuses "$work/diary: its \"journal\" is no volume's, and would be emptied; move it away" -f diary
[ "$(cat diary/journal/2024/may)" = dear ] || fail 'a journal that is not ours is gone'
[ ! -e diary/lock ] || fail 'a refusal has left a lock'
rm -r diary/journal
works -f diary
# What a disk that was removed has left is nothing.
mkdir -p left/segments/0a left/journal left/registry
works -f left

mkdir full lf lf/lost+found
touch full/letter
refuses "$work/full: is not empty (holds \"letter\"); -f" full
works lf
works -f made1
[ -s made1/label.0 ] || fail '-f has not made the folder'

# --- whatever the umask keeps from others, what is made is its owner's

(
	umask 777
	"$mkfs" -q -f masked made1
) || fail 'a umask of 777'
closed=$(find masked ! -perm -u=rw -o -type d ! -perm -u=rwx -o -perm /go=rwx)
[ -z "$closed" ] || fail "made with a umask of 777: $closed"

# --- names with characters that a list or fstab gives a meaning to

odd='odd:a,b c\d*'
mkdir "$odd"
works -f -q "$odd"
works -f "$odd" made1
# The list has \: \\ \* ; fstab then wants \134 for each backslash and \040 for the space.
says out "$work/odd\\134:a,b\\040c\\134\\134d\\134*:$work/made1  /MOUNTPOINT"

mkdir s1 's,2'
works -v -f --stores "s1,s\\,2" --ec 1+1 d3 d4
says out "$work/s1 (registry)"
says out "$work/s,2 (registry)"
refuses '1 stores folder for erasure code 1+1: 2 are needed' --stores s1 d3 d4

# --- permissions (root is not held up by them)

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 755 "$work"
	mkdir -m 755 locked
	rc=0
	setpriv --reuid=65534 --regid=65534 --clear-groups "$mkfs" locked >out 2>err || rc=$?
	[ "$rc" = 1 ] || fail "an unwritable folder: exit code $rc"
	says err "$work/locked: Permission denied"
elif [ "$(id -u)" != 0 ]; then
	mkdir -m 555 locked
	refuses "$work/locked: Permission denied" locked
fi

# --- an error at the other end of stdout is one

if [ -w /dev/full ]; then
	rc=0
	"$mkfs" -f d1 >/dev/full 2>err || rc=$?
	[ "$rc" = 1 ] || fail "a full stdout: exit code $rc"
fi
echo passed
