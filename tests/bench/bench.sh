#!/bin/bash
# make bench: the same work on sopfs and on what it is compared with (systems.sh says what, and on which
# disks). Rounds are interleaved and who goes first changes, so that a noisy machine is noisy for all;
# medians and ratios are printed. Seeds are fixed. What was written is read again and checked, outside of
# the measured time, so that no wrong answer can be fast.
#
#     tests/bench/bench.sh [--json FILE] [MOUNT-OPTION,...]
#
# QUICK=1: a few minutes. SYSTEMS='sopfs bare floor': only these. FILES= MIB= ROUNDS= TREE= SCALE=: sizes.
# BENCH_DIR=: where the disks are made (default: the build folder). IMAGE_SIZE=: of each, sparse.
set -eu

# With mounts of its own: whoever copied them would keep them alive after they are unmounted here.
if [ -z "${SOPFS_BENCH_UNSHARED:-}" ] && unshare --mount true 2>/dev/null; then
	SOPFS_BENCH_UNSHARED=1 exec unshare --mount --propagation private "$0" "$@"
fi

cd "$(dirname "$0")/../.."
# shellcheck source=tests/mounts.sh
. tests/mounts.sh
build=$(realpath "${BUILD:-build}")
drive=$build/bench/drive

json=
if [ "${1:-}" = --json ]; then
	json=$2
	shift 2
fi
options=${1:-cache=256M}

quick=${QUICK:-}
[ "$quick" != 0 ] || quick=
files=${FILES:-$([ -n "$quick" ] && echo 1000 || echo 10000)}
mib=${MIB:-$([ -n "$quick" ] && echo 128 || echo 1024)}
tree=${TREE:-$([ -n "$quick" ] && echo 400 || echo 2000)}
touches=${TOUCHES:-$([ -n "$quick" ] && echo 2000 || echo 10000)}
rounds=${ROUNDS:-$([ -n "$quick" ] && echo 2 || echo 3)}
scale=${SCALE:-$([ -n "$quick" ] && echo 10000 || echo 1000000)}

work=$(mktemp -d "${BENCH_DIR:-$build}/bench.XXXXXX")
export SOPFS_RUN_DIR=$work/run
mkdir "$work/m" "$work/run"
results=$work/results
: >"$results"
journal=
# shellcheck source=tests/bench/systems.sh
. tests/bench/systems.sh

up=()
clean() {
	local rc=$? s
	trap '' EXIT
	set +e
	for s in "${up[@]}"; do
		"down_$s"
	done
	remove_disks
	rm -rf --one-file-system "$work"
	exit $rc
}
trap clean EXIT
trap 'exit 1' INT TERM

die() {
	echo "bench: $*" >&2
	exit 1
}

# ---- measuring ----

note() { # CASE SYSTEM SECONDS COUNT [P50 P99]
	echo "$1 $2 $3 $4 ${5:-0} ${6:-0}" >>"$results"
}

run() { # CASE SYSTEM drive-arguments...
	local figure=$1 system=$2 out
	shift 2
	out=$("$drive" "$@") || die "$figure on $system failed"
	# shellcheck disable=SC2086
	note "$figure" "$system" $out
}

must() { # CASE SYSTEM COMMAND...: a check, not measured
	local figure=$1 system=$2
	shift 2
	"$@" >/dev/null || die "$figure on $system: the content is wrong"
}

timed() { # CASE SYSTEM COUNT COMMAND...
	local figure=$1 system=$2 count=$3 from
	shift 3
	from=$(date +%s%N)
	"$@" >/dev/null || die "$figure on $system failed"
	note "$figure" "$system" \
		"$(echo "$(date +%s%N) $from" | awk '{ printf "%.6f", ($1 - $2) / 1e9 }')" "$count"
}

# Out of the list, and taken down; a peer that has failed does not end the others' run.
drop() { # SYSTEM
	local left=() s
	for s in "${up[@]}"; do
		[ "$s" = "$1" ] || left+=("$s")
	done
	up=("${left[@]}")
	"down_$1" || true
}

# Each system, beginning with another in each round; the disks are quiet before.
each() { # FUNCTION
	local now=("${up[@]}") n=${#up[@]} i s rc
	for ((i = 0; i < n; i++)); do
		s=${now[(i + r) % n]}
		settle
		set +e
		(
			set -e
			"$1" "$s" "$work/m/$s"
		)
		rc=$?
		set -e
		[ $rc != 0 ] || continue
		case $s in
		sopfs | bare | floor) die "$1 on $s" ;;
		esac
		echo "bench: without $s from here on: it failed in $1" >&2
		drop "$s"
	done
}

# ---- the work: FUNCTION SYSTEM FOLDER ----

small_files() {
	local s=$1 d=$2
	mkdir "$d/files" "$d/par4" "$d/par16"
	run create "$s" create "$d/files" "$files" 4096
	run create-4proc "$s" create "$d/par4" "$files" 4096 4
	run create-16proc "$s" create "$d/par16" "$files" 4096 16
	must create-16proc "$s" "$drive" read "$d/par16" "$files" 4096
	rm -r "$d/par4" "$d/par16"
}

synced_files() {
	local s=$1 d=$2
	mkdir "$d/sync1" "$d/sync4" "$d/sync16"
	run create-fsync "$s" create "$d/sync1" $((files / 10)) 4096 1 sync
	run create-fsync-4proc "$s" create "$d/sync4" $((files / 5)) 4096 4 sync
	run create-fsync-16proc "$s" create "$d/sync16" $((files / 2)) 4096 16 sync
	must create-fsync "$s" "$drive" read "$d/sync16" $((files / 2)) 4096
	rm -r "$d/sync1" "$d/sync4" "$d/sync16"
}

warm_files() {
	local s=$1 d=$2
	must read-warm "$s" "$drive" read "$d/files" "$files" 4096
	run stat "$s" stat "$d/files" "$files"
	run read-warm "$s" read "$d/files" "$files" 4096
	run overwrite "$s" overwrite "$d/files" $((files / 2)) 4096 1 lazy 1
	must overwrite "$s" "$drive" read "$d/files" $((files / 2)) 4096 1 lazy 1
	run append "$s" append "$d/log" $((files / 2))
	must append "$s" "$drive" appended "$d/log" $((files / 2))
	run rename "$s" rename "$d/files" $((files / 4))
}

cold_files() {
	local s=$1 d=$2
	"cold_$s"
	run list-cold "$s" list "$d/files" "$files"
	run read-cold "$s" read "$d/files" $((files / 2)) 4096 1 lazy 1
}

remove_files() {
	run unlink "$1" unlink "$2/files" "$files"
	rm -r "$2/files" "$2/log"
}

needles() { # COUNT FOLDER
	[ "$(grep -rl needle "$2" | wc -l)" = "$1" ]
}

trees() {
	local s=$1 d=$2 with=$(((tree + 15) / 16))
	mkdir "$d/tree"
	timed untar "$s" "$tree" tar -C "$d/tree" -xf "$work/tree.tar"
	must untar "$s" diff -r "$work/tree" "$d/tree"
	timed cp-r "$s" "$tree" cp -r "$d/tree" "$d/copy"
	must cp-r "$s" diff -r "$work/tree" "$d/copy"
	"cold_$s"
	timed grep-r-cold "$s" "$tree" needles "$with" "$d/tree"
	timed grep-r-warm "$s" "$tree" needles "$with" "$d/tree"
	timed rm-rf "$s" "$tree" rm -rf "$d/copy"
	rm -rf "$d/tree"
	if command -v git >/dev/null; then
		timed git-clone "$s" "$tree" git clone -q --no-hardlinks "$work/tree.git" "$d/clone"
		timed git-status "$s" "$tree" git -C "$d/clone" status --porcelain
		must git-clone "$s" git -C "$d/clone" diff --quiet HEAD
		must git-clone "$s" git -C "$d/clone" fsck --full
		rm -rf "$d/clone"
	fi
}

inserts() { # FILE COUNT
	seq "$2" | awk '{ printf "insert into t values (%d, '\''%064d'\'');\n", $1, $1 }' |
		sqlite3 "$1"
}

database() {
	local s=$1 d=$2 n=$((touches / 20))
	command -v sqlite3 >/dev/null || return 0
	sqlite3 "$d/db" 'create table t (a integer primary key, b text);'
	timed sqlite "$s" "$n" inserts "$d/db" "$n"
	[ "$(sqlite3 "$d/db" 'select count(*), sum(a) from t; pragma integrity_check;')" = \
		"$n|$((n * (n + 1) / 2))
ok" ] || die "sqlite on $s: the content is wrong"
	rm "$d/db"
}

streams() {
	local s=$1 d=$2
	run stream-write "$s" write "$d/stream" "$mib" sync
	# 2+2 stores every byte twice: what the bare one takes for as many bytes on its disk.
	if [ "$s" = bare ]; then
		rm "$d/stream"
		settle
		run stream-write-twice "$s" write "$d/stream" $((mib * 2)) sync
		rm "$d/stream"
		"$drive" write "$d/stream" "$mib" sync >/dev/null
	fi
	"cold_$s"
	run stream-read-cold "$s" sread "$d/stream" "$mib"
	run stream-read-warm "$s" sread "$d/stream" "$mib"
	"cold_$s"
	run random-read-cold "$s" rread "$d/stream" "$mib" $((touches / 5))
	run random-write "$s" rwrite "$d/stream" "$mib" "$touches"
	"cold_$s"
	must random-write "$s" "$drive" rcheck "$d/stream" "$mib" "$touches"
	rm "$d/stream"
}

# Ever more items in one folder: what the last tenfold cost each; then all of them, listed.
many_items() {
	local s=$1 d=$2 n
	for ((n = 1000; n <= scale; n *= 10)); do
		mkdir "$d/many"
		run "items-$n" "$s" create "$d/many" "$n" 100
		[ $((n * 10)) -gt "$scale" ] || rm -r "$d/many"
	done
	n=$((n / 10))
	"cold_$s"
	run "names-$n" "$s" names "$d/many" "$n"
	"cold_$s"
	run "list-$n" "$s" list "$d/many" "$n"
	rm -r "$d/many"
}

# ---- what there is only of sopfs ----

mount_seconds() {
	local from
	from=$(date +%s%N)
	"$build/sopfs" "$sopfs_source" "$work/m/sopfs" -o "$options${1:+,$1}"
	echo "$(date +%s%N) $from" | awk '{ printf "%.6f", ($1 - $2) / 1e9 }'
}

kill_sopfs() {
	local pid
	pid=$(daemon_of "$work/m/sopfs")
	kill -9 "$pid"
	wait_gone "$pid"
	umount "$work/m/sopfs" 2>/dev/null || fusermount3 -u "$work/m/sopfs"
}

after_crash() {
	local d=$work/m/sopfs n=$((touches * 4))
	unmount_and_wait "$d"
	mount_seconds checkpoint=1h,journal=1G >/dev/null
	mkdir "$d/crash"
	"$drive" create "$d/crash" "$n" 200 4 >/dev/null
	journal=$(awk '/^sopfs_journal_bytes/ { print $2 }' "$d/.sop/metrics")
	kill_sopfs
	note mount-after-crash sopfs "$(mount_seconds)" 1
	must mount-after-crash sopfs "$drive" read "$d/crash" "$n" 200
	rm -r "$d/crash"
	unmount_and_wait "$d"
	note mount sopfs "$(mount_seconds)" 1
}

degraded() {
	local d=$work/m/sopfs
	"$drive" write "$d/stream" "$mib" sync >/dev/null
	cold_sopfs
	run read-healthy sopfs sread "$d/stream" "$mib"
	unmount_and_wait "$d"
	mv "$work/disk1/sopfs" "$work/disk1/away"
	mv "$work/disk2/sopfs" "$work/disk2/away"
	settle
	mount_seconds degraded >/dev/null 2>&1
	run read-degraded sopfs sread "$d/stream" "$mib"
	unmount_and_wait "$d"
	mv "$work/disk1/away" "$work/disk1/sopfs"
	mv "$work/disk2/away" "$work/disk2/sopfs"
	mount_seconds >/dev/null
	rm "$d/stream"
}

# ---- all of it ----

make_disks
for s in ${SYSTEMS:-sopfs bare floor bindfs zfs btrfs gluster}; do
	why=$("can_$s")
	if [ -n "$why" ]; then
		echo "bench: without $s: $why" >&2
		continue
	fi
	mkdir "$work/m/$s"
	if ! "up_$s" 2>"$work/why"; then
		echo "bench: without $s: it does not start: $(tail -1 "$work/why")" >&2
		continue
	fi
	up+=("$s")
	echo "#system $s $("what_$s")" >>"$results"
done
mkdir "$work/tree"
"$drive" tree "$work/tree" "$tree" >/dev/null
tar -C "$work/tree" -cf "$work/tree.tar" .
if command -v git >/dev/null; then
	git init -q "$work/tree.work"
	cp -r "$work/tree/." "$work/tree.work"
	git -C "$work/tree.work" add .
	git -C "$work/tree.work" -c user.name=bench -c user.email=bench commit -q -m tree
	git clone -q --bare "$work/tree.work" "$work/tree.git"
fi

for ((r = 0; r < rounds; r++)); do
	for part in small_files synced_files warm_files cold_files remove_files trees database streams; do
		echo "round $((r + 1)) of $rounds: $part" >&2
		each $part
	done
done
r=0
echo "once: many_items" >&2
each many_items
if [[ " ${up[*]} " == *' sopfs '* ]]; then
	for ((r = 0; r < rounds; r++)); do
		degraded
		after_crash
	done
fi

{
	echo "#date $(date -u +%Y-%m-%d)"
	echo "#machine $(nproc) processors ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)), \
$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r), \
load $(cut -d' ' -f1 /proc/loadavg)"
	echo "#sizes $files files of 4 KiB, streams of $mib MiB, trees of $tree files, $touches random pages, \
medians of $rounds rounds"
	[ -z "$journal" ] || echo "#journal $journal"
} >>"$results"
if [ -n "$json" ]; then
	awk -v form=json -f tests/bench/table.awk "$results" >"$json"
fi
awk -v form=text -f tests/bench/table.awk "$results"
