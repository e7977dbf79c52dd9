#!/bin/bash
# As large as it is meant to be: a million directories; a file of 1 TiB that is nearly all holes; ten million
# items in one directory; a file of 20 GiB. All of it is found again as it was made, after a mount too, and the
# daemon stays within its cache and 64 MiB. A mount reads as much of a volume with 20 GiB as of one with one:
# what counts is the journal.
#
# PARTS="dirs sparse items large": not all of it. DIRS, ITEMS, SPARSE_GIB, LARGE_GIB, WRITES: smaller, or larger.
# EC and DISKS_OF_LARGE: of the large file; it needs LARGE_GIB * (k+m)/k on the disk.
# shellcheck source=tests/fs/functions.sh
. "$(dirname "$0")/../fs/functions.sh"
requires python3 jq

DIRS=${DIRS:-1000000}
ITEMS=${ITEMS:-10000000}
SPARSE_GIB=${SPARSE_GIB:-1024}
LARGE_GIB=${LARGE_GIB:-20}
WRITES=${WRITES:-20000}
EC=${EC:-2+1}
DISKS_OF_LARGE=${DISKS_OF_LARGE:-3}
CACHE=64 # MiB
drive=$BUILD/bench/drive

said() {
	echo "$(date +%T) $*"
}

fresh() { # disks, profile
	rm -rf --one-file-system "$WORK"/d?
	new_volume "$1" "$2"
}

up() {
	mount_volume "cache=${CACHE}M${1:+,$1}"
}

bounded() { # WHEN
	FREE=${more:-0} within_bounds "$CACHE" "$1"
}

# KiB of content, parity, directories and registry: the journal is as large for a small volume.
on_disks() {
	du -sk --exclude=journal "${DISKS[@]}" | awk '{ n += $1 } END { print n }'
}

known() {
	"$SOPCTL" status --json "$MNT" | jq .mount.known
}

dirs() {
	local folders=$(((DIRS + 999) / 1000)) all gone more=0 before
	all=$((1 + folders + DIRS))
	# A kernel that cannot be asked to forget keeps them all, and so must the daemon.
	kernel_prunes || more=$((all * 480 / 1024))
	fresh 4 2+2
	up
	mkdir "$MNT/t"
	unmount_volume
	before=$(on_disks)
	up
	"$drive" dirs "$MNT/t" "$DIRS"
	bounded "$DIRS directories made; the kernel knows $(known)"
	assert_eq "$(find "$MNT/t" | wc -l)" $all "found"
	bounded "find; the kernel knows $(known)"
	unmount_volume
	said "$DIRS directories: $((($(on_disks) - before) * 1024 / DIRS)) bytes each on all disks"
	up
	assert_eq "$(find "$MNT/t" | wc -l)" $all "found after a mount"
	bounded "a mount and find; the kernel knows $(known)"
	# shellcheck disable=SC2012 # their number
	gone=$(ls -d "$MNT/t"/d??00 | wc -l)
	rm -r "$MNT/t"/d??00
	assert_eq "$(find "$MNT/t" | wc -l)" $((all - gone * 1001)) "found after rm -r of $gone folders"
	bounded "rm -r"
	unmount_volume
	check_volume
	said "$(cat "$WORK/check.out")"
}

cat >"$WORK/sparse.py" <<'PY'
import os, random, sys
verb, path, size, writes, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]) << 30, int(sys.argv[4]), int(sys.argv[5])
BLOCK = 4096
def page(at):
    return (b'%16d' % at) * (BLOCK // 16)
rnd = random.Random(seed)
first = [0, size // 2, size - BLOCK]
places = sorted({rnd.randrange(size // BLOCK) * BLOCK for _ in range(writes)} | set(first))
punched = (size // 4, size // 2 + size // 4)
f = os.open(path, os.O_RDWR if verb in ('ends', 'scatter') else os.O_RDONLY)
assert os.fstat(f).st_size == size
def extents():
    at, found = 0, []
    while at < size:
        try:
            start = os.lseek(f, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(f, start, os.SEEK_HOLE)
        found.append((start, at))
    return found
def covered(want, slack=False):
    found = extents()
    data = sum(b - a for a, b in found)
    print('%d runs of data, %d bytes' % (len(found), data), flush=True)
    joined = []
    for at in want:
        if joined and joined[-1][1] == at:
            joined[-1][1] = at + BLOCK
        else:
            joined.append([at, at + BLOCK])
    assert found == [tuple(x) for x in joined], (found[:5], joined[:5])
    for at in want:
        assert os.pread(f, BLOCK, at) == page(at), at
    have = set(want)
    for _ in range(1000):
        at = rnd.randrange(size // BLOCK) * BLOCK
        if at not in have:
            assert os.pread(f, BLOCK, at) == bytes(BLOCK), at
    assert os.pread(f, 1 << 20, BLOCK)[:1 << 20].count(0) >= (1 << 20) - BLOCK * 2
if verb == 'ends':
    for at in first:
        os.pwrite(f, page(at), at)
elif verb == 'scatter':
    shuffled = places[:]
    rnd.shuffle(shuffled)
    for at in shuffled:
        os.pwrite(f, page(at), at)
elif verb == 'ends?':
    covered(first)
elif verb == 'scatter?':
    covered(places)
elif verb == 'punched?':
    covered([at for at in places if not punched[0] <= at < punched[1]])
os.close(f)
PY

sparse() {
	local at
	requires fallocate
	py() {
		python3 "$WORK/sparse.py" "$1" "$2" "$SPARSE_GIB" "$WRITES" "$SEED"
	}
	fresh 4 2+2
	up
	truncate -s "${SPARSE_GIB}G" "$MNT/f"
	py ends "$MNT/f"
	py "ends?" "$MNT/f"
	cp --sparse=auto "$MNT/f" "$MNT/copy"
	py "ends?" "$MNT/copy"
	bounded "three writes in $SPARSE_GIB GiB, and a copy"
	py scatter "$MNT/f"
	py "scatter?" "$MNT/f"
	bounded "$WRITES writes all over it"
	unmount_volume
	said "$WRITES pieces of 4 KiB and $SPARSE_GIB GiB of holes, and a copy with three: $(on_disks) KiB on all disks"
	up
	py "scatter?" "$MNT/f"
	py "ends?" "$MNT/copy"
	at=$((SPARSE_GIB / 4))
	fallocate -p -o ${at}G -l $((2 * at))G "$MNT/f"
	py "punched?" "$MNT/f"
	bounded "a mount, and a hole of $((2 * at)) GiB"
	truncate -s 0 "$MNT/copy"
	truncate -s 1T "$MNT/copy"
	assert_eq "$(stat -c %s "$MNT/copy")" $((1 << 40)) "size after truncate"
	rm "$MNT/f" "$MNT/copy"
	bounded "rm"
	unmount_volume
	check_volume
	said "$(cat "$WORK/check.out")"
}

items() {
	local before
	fresh 4 2+2
	before=$(on_disks)
	said "$ITEMS items"
	awk -v n="$ITEMS" 'BEGIN { for (i = 0; i < n; i++) printf "{\"key\":\"key%012d\",\"value\":\"key%012d\"}\n", i, i }' |
		python3 -c 'import resource, subprocess, sys
rc = subprocess.call(sys.argv[1:])
kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print("sopctl import: %d KiB resident at most" % kib)
sys.exit(rc)' "$SOPCTL" import "$SOURCE" many --key=string
	said "imported: $((($(on_disks) - before) * 1024 / ITEMS)) bytes each on all disks"
	up
	assert_eq "$("$drive" names "$MNT/many" | awk '{ print $2 }')" "$ITEMS" "names listed"
	bounded "their names listed"
	said "names listed"
	assert_eq "$("$drive" list "$MNT/many" | awk '{ print $2 }')" "$ITEMS" "listed with their attributes"
	bounded "their attributes listed; the kernel knows $(known)"
	said "attributes listed"
	seq 0 $((ITEMS / 1000 > 0 ? ITEMS / 1000 : 1)) $((ITEMS - 1)) | while read -r i; do
		printf -v name 'key%012d' "$i"
		[ "$(cat "$MNT/many/$name")" = "$name" ] || fail "$name is '$(cat "$MNT/many/$name")'"
		rm "$MNT/many/$name"
	done
	assert_eq "$("$drive" names "$MNT/many" | awk '{ print $2 }')" \
		$((ITEMS - $(seq 0 $((ITEMS / 1000 > 0 ? ITEMS / 1000 : 1)) $((ITEMS - 1)) | wc -l))) "names after rm"
	bounded "a thousand read and removed"
	unmount_volume
	check_volume
	said "$(cat "$WORK/check.out")"
}

# What a mount reads goes to $read, in KiB, by the daemon's own count: what the disks' file systems read for
# themselves depends on how full they are. How often, to $calls; and how many files it has open then to $opened.
mount_counted() {
	up commit=1h,checkpoint=1h,journal=1G
	read=$(awk '/^rchar/ { print int($2 / 1024) }' "/proc/$PID/io")
	calls=$(awk '/^syscr/ { print $2 }' "/proc/$PID/io")
	opened=$(find "/proc/$PID/fd" -type l | wc -l)
}

# large GIB: sets $clean and $killed, "read calls opened" of a mount after an unmount and after a kill.
large() {
	local gib=$1 mib=$(($1 * 1024)) i
	fresh "$DISKS_OF_LARGE" "$EC"
	up
	"$drive" write "$MNT/f" $mib sync
	bounded "$gib GiB written"
	unmount_volume
	up
	"$drive" sread "$MNT/f" $mib
	bounded "$gib GiB read"
	"$drive" rread "$MNT/f" $mib "$WRITES"
	"$drive" rwrite "$MNT/f" $mib "$WRITES"
	"$drive" rcheck "$MNT/f" $mib "$WRITES"
	bounded "$WRITES pages written anywhere in $gib GiB"
	unmount_volume
	# As many commits lie in the journal, each time.
	for i in clean killed; do
		mount_counted
		printf -v $i '%s' "$read $calls $opened"
		said "a mount of $gib GiB ($i): $read KiB read in $calls calls, $opened files open"
		mkdir "$MNT/$i"
		"$drive" create "$MNT/$i" 2000 1000
		kill_daemon
	done
	up
	"$drive" read "$MNT/killed" 2000 1000
	"$drive" rcheck "$MNT/f" $mib "$WRITES"
	bounded "recovery of $gib GiB"
	rm "$MNT/f"
	unmount_volume
	check_volume
	said "$(cat "$WORK/check.out")"
}

# no_more SMALL LARGE: of the first, each count may be so much larger in the second.
no_more() {
	local -a small large
	read -ra small <<<"$1"
	read -ra large <<<"$2"
	[ "${large[0]}" -le $((small[0] + 256)) ] || fail "a mount reads ${large[0]} KiB of $LARGE_GIB GiB, ${small[0]} of one"
	[ "${large[1]}" -le $((small[1] + 64)) ] || fail "a mount reads ${large[1]} times of $LARGE_GIB GiB, ${small[1]} of one"
	[ "${large[2]}" -le $((small[2] + 8)) ] || fail "a mount opens ${large[2]} files of $LARGE_GIB GiB, ${small[2]} of one"
}

large_and_small() {
	local clean killed small_clean small_killed
	large 1
	small_clean=$clean small_killed=$killed
	large "$LARGE_GIB"
	no_more "$small_clean" "$clean"
	no_more "$small_killed" "$killed"
}

for part in ${PARTS:-dirs sparse items large}; do
	said "$part"
	case $part in
	dirs | sparse | items) $part ;;
	large) large_and_small ;;
	*) fail "PARTS: $part?" ;;
	esac
done
