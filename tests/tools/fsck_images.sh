#!/bin/bash
# One damaged volume for each kind of damage, made anew each time from a volume that is the same every
# time: tests/images/NNN-what/damage says what is done to it, expected what fsck.sopfs -n, -y and -n again
# say then, and how they end. (Stored volumes would have to be made again with each change of the
# format, and nobody could read in them what is wrong with them.) Of volumes that contradict themselves
# it is told, too, what a reader meets in them, before and after. UPDATE=1 writes expected anew; read it.
# Names of cases as arguments, or in CASES: those alone.
# Functions are called by what is sourced:
# shellcheck disable=SC2317
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$top" && realpath -m "${BUILD:-build}")
fsck=$build/fsck.sopfs
[ -x "$fsck" ] || { echo "needs $fsck"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/sopfs-test.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

uuid=01234567-89ab-4def-8123-456789abcdef

# Volumes are made, and damaged, in one place: labels know where their disks are.
make_volume() {
	mkdir case
	(
		cd case
		mkdir d1 d2 d3 d4
		"$build/mkfs.sopfs" -q -f -L tank -U "$uuid" --ec 2+2 d1 d2 d3 d4
		# shellcheck disable=SC2086
		"$build/examples/known_volume" $2 d1 d2 d3 d4
	)
	mv case "$1"
}

# ---- what the damages are made of; in a folder with d1 .. d4

# garbage FILE OFFSET [BYTES]
garbage() {
	yes 'DAMAGED!' | head -c "${3:-16}" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# zeros FILE OFFSET BYTES
zeros() {
	head -c "$3" /dev/zero | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# shards STREAM [DISK]: shard files of a stream (0 nodes, 1 small values, 2 large ones), by segment.
shards() {
	local f
	for f in "${2:-d?}"/segments/??/*; do
		[ "$(od -An -tu1 -j43 -N1 "$f" | tr -d ' ')" != "$1" ] || echo "$f"
	done
}

# fragments FILE: offsets of the fragments in it.
fragments() {
	grep -obUaF FRAG "$1" | cut -d: -f1
}

# lose_nodes_of STORE: all nodes of its tree, on three disks. Shard 0 of a node begins with its header.
lose_nodes_of() {
	local f o at=
	for f in $(shards 0 d1) $(shards 0 d2) $(shards 0 d3) $(shards 0 d4); do
		for o in $(fragments "$f"); do
			[ "$(dd if="$f" bs=1 skip=$((o + 40)) count=7 status=none | tr -d '\0')" = SOPNODE ] || continue
			[ "$(od -An -tu8 -j$((o + 56)) -N8 "$f" | tr -d ' ')" != "$1" ] || at="$at ${f##*/}:$o"
		done
	done
	for o in $at; do
		for f in $(shards 0 d1) $(shards 0 d2) $(shards 0 d3); do
			[[ $f != */${o%%.*}.* ]] || garbage "$f" $((${o##*:} + 50)) 200
		done
	done
}

# contradict VERB [ARGUMENT]...: every checksum stays right; see tests/images/contradict.c.
contradict() {
	reads=yes
	"$build/images/contradict" d1:d2:d3:d4 "$@"
}

swap_files() {
	mv "$1" swap
	mv "$2" "$1"
	mv swap "$2"
}

# ---- running

# What differs from one run to the next is not shown: where things lie, how long records are.
plain() {
	sed -E -e "s|$PWD/||g" -e 's/blob [0-9a-f]{16}:[0-9]+/blob/' -e 's/[0-9]+ blobs, [0-9]+ bytes/... blobs/' \
		-e 's/blob of [0-9]+ bytes at [0-9a-f]{16}\+[0-9]+/blob/' -e 's/journal\/[0-9a-f]{16}/journal\/FILE/' \
		-e 's/[0-9]+ bytes of a shard are live by account, [0-9]+/... bytes of a shard are live by account, .../' \
		-e 's/segment [0-9a-f]{16}/segment/' -e 's/ at [0-9a-f]{16}[:+][0-9]+/ at .../g' -e 's/\(host=[^)]*\)/(CLAIM)/' -e 's/LSN [0-9]+/LSN/g' -e 's/file [0-9]+,/file,/'
}

says() {
	local rc=0
	echo "\$ fsck.sopfs $*"
	"$fsck" "$@" >out 2>&1 || rc=$?
	plain <out
	echo "exit code $rc"
}

# What cannot be read of what is known to be in the volume; it ends, and nothing is read that was never written.
reads() {
	local rc=0
	echo "\$ known_volume --look"
	timeout 60 "$build/examples/known_volume" --look d? >out 2>&1 || rc=$?
	plain <out
	[ "$rc" = 0 ] || echo "exit code $rc"
}

one_case() {
	local dir=$1 sources=d1 more='' reads=''
	mkdir case
	(
		cd case
		cp -a ../closed/d? .
		torn() {
			rm -rf d?
			cp -a ../torn/d? .
		}
		# shellcheck disable=SC1091
		. "$dir/damage"
		# shellcheck disable=SC2086
		{
			[ -z "$reads" ] || reads
			says -n $sources
			says -y $sources
			[ -z "$more" ] || says -y $more $sources
			says -n $sources
			[ -z "$reads" ] || reads
		} >result
	)
	if [ -n "${UPDATE:-}" ]; then
		cp case/result "$dir/expected"
	elif ! diff -u "$dir/expected" case/result; then
		echo "FAILED: ${dir##*/}"
		failed=1
	fi
	rm -rf case
}

# Each of some that go on side by side has every so-manyth case, and volumes of its own: they know where
# they lie. Most of the time is spent waiting for disks.
workers=3

work() {
	local n=$1 i=0 dir
	failed=0
	mkdir "$n"
	cd "$n"
	make_volume closed ''
	make_volume torn --torn
	for dir in "$top"/tests/images/*/; do
		dir=${dir%/}
		case " ${CASES:-$cases} " in
		'  ' | *" ${dir##*/} "*)
			i=$((i + 1))
			[ $((i % workers)) != "$n" ] || one_case "$dir"
			;;
		esac
	done
	[ "$failed" = 0 ]
}

cases=$*
pids=
for n in $(seq 0 $((workers - 1))); do
	(work "$n") &
	pids="$pids $!"
done
rc=0
for p in $pids; do
	wait "$p" || rc=1
done
exit $rc
