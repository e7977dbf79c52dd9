#!/bin/bash
# One damaged volume for each kind of damage, made anew each time from a volume that is the same every
# time: tests/images/NNN-what/damage says what is done to it, expected what fsck.sopfs -n, -y and -n again
# say then, and how they end. (Stored volumes would have to be made again with each change of the
# format, and nobody could read in them what is wrong with them.) UPDATE=1 writes expected anew; read it.
# Names of cases as arguments, or in CASES: those alone.
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
		-e 's/segment [0-9a-f]{16}/segment/' -e 's/\(host=[^)]*\)/(CLAIM)/' -e 's/LSN [0-9]+/LSN/g' -e 's/file [0-9]+,/file,/'
}

says() {
	local rc=0
	echo "\$ fsck.sopfs $*"
	"$fsck" "$@" >out 2>&1 || rc=$?
	plain <out
	echo "exit code $rc"
}

one_case() {
	local dir=$1 sources=d1 more=
	mkdir case
	(
		cd case
		cp -a ../closed/d? .
		# shellcheck disable=SC2317
		torn() {
			rm -rf d?
			cp -a ../torn/d? .
		}
		# shellcheck disable=SC1091
		. "$dir/damage"
		# shellcheck disable=SC2086
		{
			says -n $sources
			says -y $sources
			[ -z "$more" ] || says -y $more $sources
			says -n $sources
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

failed=0
make_volume closed ''
make_volume torn --torn
for dir in "$top"/tests/images/*/; do
	dir=${dir%/}
	case " ${CASES:-$*} " in
	'  ' | *" ${dir##*/} "*) one_case "$dir" ;;
	esac
done
[ "$failed" = 0 ]
