#!/bin/bash
# make bench: the same work on sopfs (2+2 on four folders), on the bare file system that holds the
# folders, and on the RAM-only FUSE file system (the floor of FUSE itself). Rounds are interleaved, so
# that a noisy machine is noisy for all; medians and ratios are printed. Content is checked as it is read.
#
#     FILES=20000 MIB=1024 ROUNDS=5 BENCH_DIR=/srv/bench tests/bench/bench.sh [MOUNT-OPTION,...]
set -eu

cd "$(dirname "$0")/../.."
# shellcheck source=tests/mounts.sh
. tests/mounts.sh
build=$(realpath "${BUILD:-build}")
drive=$build/bench/drive
files=${FILES:-5000}
mib=${MIB:-256}
rounds=${ROUNDS:-3}
options=${1:-cache=256M}
work=$(mktemp -d "${BENCH_DIR:-$build}/bench.XXXXXX")
mkdir "$work/bare" "$work/ram" "$work/mnt" "$work/d1" "$work/d2" "$work/d3" "$work/d4"
source=$work/d1:$work/d2:$work/d3:$work/d4
results=$work/results

clean() {
	local rc=$?
	trap '' EXIT
	set +e
	unmount_and_wait "$work/mnt"
	umount "$work/ram" 2>/dev/null || fusermount3 -u "$work/ram"
	rm -rf --one-file-system "$work"
	exit $rc
}
trap clean EXIT
trap 'exit 1' INT TERM

# What was written before does not disturb what comes; as root, nothing of it is in memory either.
settle() {
	sync
	if [ "$(id -u)" = 0 ]; then
		echo 3 >/proc/sys/vm/drop_caches
	fi
}

mount_sopfs() {
	"$build/sopfs" "$source" "$work/mnt" -o "$options"
}

# Cold: sopfs with a new daemon, the bare one without page cache. The floor has no cold.
cold() {
	unmount_and_wait "$work/mnt"
	settle
	mount_sopfs
}

where() {
	case $1 in
	sopfs) echo "$work/mnt" ;;
	bare) echo "$work/bare" ;;
	ram) echo "$work/ram" ;;
	esac
}

# run FIGURE SYSTEM UNIT-PER-COUNT drive-arguments...: notes the rate.
run() {
	local figure=$1 system=$2 out
	shift 2
	out=$("$drive" "$@") || {
		echo "bench: $figure on $system failed" >&2
		exit 1
	}
	awk -v f="$figure" -v s="$system" '{ printf "%s %s %f\n", f, s, $2 / $1 }' <<<"$out" >>"$results"
}

"$build/mkfs.sopfs" -q -f --ec 2+2 "$work/d1" "$work/d2" "$work/d3" "$work/d4"
mount_sopfs
"$build/bench/ram_fuse" "$work/ram" &
wait_for_ram=100
until is_mounted "$work/ram"; do
	[ $((wait_for_ram -= 1)) -gt 0 ] || exit 1
	sleep 0.05
done

for ((r = 1; r <= rounds; r++)); do
	echo "round $r of $rounds" >&2
	# Who goes first changes: the first pays for memory that the others find ready.
	case $((r % 3)) in
	0) systems='sopfs bare ram' ;;
	1) systems='bare ram sopfs' ;;
	2) systems='ram sopfs bare' ;;
	esac
	settle
	for s in $systems; do
		d=$(where "$s")
		mkdir "$d/files" "$d/sync" "$d/par"
		run create "$s" create "$d/files" "$files" 4096
		run create-4proc "$s" create "$d/par" "$files" 4096 4
		run create-fsync-16proc "$s" create "$d/sync" $((files / 5)) 4096 16 sync
	done
	for s in $systems; do
		d=$(where "$s")
		run stat "$s" stat "$d/files" "$files"
		run read-warm "$s" read "$d/files" "$files" 4096
	done
	cold
	for s in $systems; do
		run list-cold "$s" list "$(where "$s")/files"
		run read-cold "$s" read "$(where "$s")/files" "$files" 4096
	done
	settle
	for s in $systems; do
		d=$(where "$s")
		run unlink "$s" unlink "$d/files" "$files"
		rm -r "$d/files" "$d/sync" "$d/par"
	done
	settle
	for s in $systems; do
		d=$(where "$s")
		run stream-write "$s" write "$d/stream" "$mib"
		# 2+2 stores every byte twice: what the bare one takes for as many bytes on the disks.
		if [ "$s" = bare ]; then
			rm "$d/stream"
			settle
			run stream-write bare-x2 write "$d/stream2" $((mib * 2))
			rm "$d/stream2"
			"$drive" write "$d/stream" "$mib" >/dev/null
		fi
		settle
	done
	for s in $systems; do
		"$drive" sread "$(where "$s")/stream" "$mib" >/dev/null
		run stream-read-warm "$s" sread "$(where "$s")/stream" "$mib"
	done
	cold
	for s in $systems; do
		run stream-read-cold "$s" sread "$(where "$s")/stream" "$mib"
	done
	cold
	for s in $systems; do
		run random-4k-cold "$s" rread "$(where "$s")/stream" "$mib" 2000
		rm "$(where "$s")/stream"
	done
done

awk -v files="$files" -v mib="$mib" -v rounds="$rounds" -v options="$options" '
function median(key,    n, i, j, t, v) {
	n = split(all[key], v, " ")
	for (i = 1; i <= n; i++)
		for (j = i + 1; j <= n; j++)
			if (v[j] + 0 < v[i] + 0) { t = v[i]; v[i] = v[j]; v[j] = t }
	return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
function ratio(a, b) { return b > 0 ? sprintf("%.2f", a / b) : "-" }
{
	key = $1 " " $2
	all[key] = all[key] " " $3
	if (!($1 in seen)) { seen[$1] = 1; order[++n] = $1 }
}
END {
	printf "\n%d files of 4 KiB, streams of %d MiB, medians of %d rounds, options %s\n\n",
		files, mib, rounds, options
	printf "%-22s %12s %12s %12s %10s %10s\n", "", "sopfs", "bare disk", "RAM FUSE", "of bare", "of floor"
	for (i = 1; i <= n; i++) {
		f = order[i]
		s = median(f " sopfs"); b = median(f " bare"); m = median(f " ram")
		unit = f ~ /^stream/ ? "MiB/s" : "/s"
		printf "%-22s %12.0f %12.0f %12.0f %10s %10s  %s\n", f, s, b, m, ratio(s, b), ratio(s, m), unit
		if (f == "stream-write") {
			b = median(f " bare-x2") / 2
			printf "%-22s %12s %12.0f %12s %10s\n", "  (bare: 2x the bytes)", "", b, "", ratio(s, b)
		}
	}
}' "$results"
