#!/bin/bash
# Figures of losing and rebuilding a disk, beside what is wanted of them:
#
#   degraded    how fast a volume is read with m disks gone, beside the same with all       wanted: 0.8
#   copied      how fast a new disk takes over from one that still answers,
#   rebuilt     and from one that is gone, beside the new one's own sequential write        wanted: 0.8
#
# The disks are folders in memory, each on a file system of its own, so that reading the old ones costs the
# new one nothing, as it is with real disks. The new one is
#   - an ext4 on a device that takes as many MiB/s as a hard disk and a SATA drive (RATES=, default 200 and
#     500), for reads and writes together: this is what the 0.8 are about;
#   - a folder in memory too: what the processors are good for, whatever the disk. Its own speed is that of
#     copying memory, so there is no ratio that anybody could want.
# Taken over is what has reached the new disk, sync included; "and read back" is until the volume is whole and
# the old disk let go, of which reading the new one is the larger part.
# MIB= how much (default 512); a new disk gets half of it.
. "$(dirname "$0")/../fs/functions.sh"
. "$(dirname "$0")/../fs/disks.sh"
requires python3 mkfs.ext4 jq
requires_root
mib=${MIB:-512}
share=$((mib / 2))
read -r -a rates <<<"${RATES:-200 500}"

seconds() { # COMMAND...
	local from
	from=$(date +%s%N)
	"$@" >/dev/null
	since "$from"
}
since() {
	echo "$(date +%s%N) $1" | awk '{ printf "%.3f", ($1 - $2) / 1e9 }'
}
cold() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
}
per() { # MIB SECONDS
	awk -v m="$1" -v s="$2" 'BEGIN { printf "%.0f", m / s }'
}
ratio() {
	awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'
}
write_bare() {
	dd if=/dev/zero of="$1" bs=1M count="$2" conv=fsync status=none
}
read_all() {
	cat "$MNT"/big*
}
memory_disk() {
	mkdir -p "$1"
	mount -t tmpfs tmpfs "$1"
	LOOPS+=("$1")
}
cpu() {
	awk '{ print ($14 + $15) * 10 }' "/proc/$PID/stat"
}

for ((i = 1; i <= 4; i++)); do
	memory_disk "$WORK/d$i"
done
new_volume 4 2+2
mount_volume
for ((i = 0; i < 4; i++)); do
	dd if=/dev/urandom of="$MNT/big$i" bs=1M count=$((mib / 4)) conv=fsync status=none
done
unmount_volume

for round in 1 2; do
	mount_volume
	cold
	healthy=$(per "$mib" "$(seconds read_all)")
	unmount_volume
	for i in 1 2; do
		mkdir -p "$WORK/away$i"
		mount --move "$WORK/d$i" "$WORK/away$i"
	done
	SOURCE=$WORK/d3
	mount_volume degraded 2>/dev/null
	cold
	degraded=$(per "$mib" "$(seconds read_all)")
	unmount_volume
	for i in 1 2; do
		mount --move "$WORK/away$i" "$WORK/d$i"
	done
	SOURCE=$(colon_list "${DISKS[@]}")
	echo "read $round: healthy $healthy MiB/s, two of four disks gone $degraded MiB/s: $(ratio "$degraded" "$healthy"), wanted 0.8"
done

mount_volume
wait_until 60 all_online

# taken_over KIND OLD NEW TEXT [RATIO]: OLD is replaced by NEW, a folder that is there and empty.
taken_over() {
	local bare t whole from c
	cold
	bare=$(per "$share" "$(seconds write_bare "$3/bare" "$share")")
	rm "$3/bare"
	cold
	c=$(cpu)
	from=$(date +%s%N)
	ctl replace --yes --force "$MNT" "$2" "$3" >/dev/null
	moved() {
		[ "$(du -sm "$1/segments" | cut -f1)" -ge $((share * 98 / 100)) ]
	}
	wait_until 300 moved "$3" || fail "not moved: $(ctl status "$MNT")"
	sync -f "$3"
	t=$(per "$share" "$(since "$from")")
	c=$(($(cpu) - c))
	wait_until 300 all_online || fail "not replaced: $(ctl status "$MNT")"
	whole=$(per "$share" "$(since "$from")")
	echo "$1 to $4: $t MiB/s, its own sequential write $bare MiB/s: $(ratio "$t" "$bare")${5:+, wanted 0.8}; and read back: $whole MiB/s; $c ms of processor time"
}

# slow_disk DIR RATE: an ext4 in an image that is read and written at so many MiB/s.
slow_disk() {
	local at=$1.backing
	mkdir -p "$at/folder" "$at/slow" "$1"
	memory_disk "$at/folder"
	faulty_disk "$at/folder" "$at/mode" "$at/slow"
	truncate -s $((share + 512))M "$at/slow/image"
	mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0,nodiscard "$at/slow/image"
	mount -o loop "$at/slow/image" "$1"
	LOOPS=("$1" "${LOOPS[@]}")
	rmdir "$1/lost+found"
	echo "rate=$2" >"$at/mode"
}
n=0
for rate in memory "${rates[@]}"; do
	for kind in copied rebuilt; do
		n=$((n + 1))
		new=$WORK/new$n
		old=$(ctl status --json "$MNT" | jq -r '.disks[0].path')
		want=
		if [ "$rate" = memory ]; then
			memory_disk "$new"
		else
			slow_disk "$new" "$rate"
			want=1
		fi
		[ "$kind" = copied ] || ctl offline --yes "$MNT" "$old" >/dev/null
		taken_over "$kind" "$old" "$new" "${want:+a disk of }$rate${want:+ MiB/s}" $want
		rm -f "$new.backing/mode"
	done
done
unmount_volume
