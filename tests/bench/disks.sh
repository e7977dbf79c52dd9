#!/bin/bash
# Figures of losing and rebuilding a disk: how fast a new one is filled, beside its own sequential write;
# how fast a volume is read with m disks gone, beside the same with all. MIB= how much (default 512).
. "$(dirname "$0")/../fs/functions.sh"
requires python3
requires_root
mib=${MIB:-512}

seconds() { # COMMAND...
	local from
	from=$(date +%s%N)
	"$@" >/dev/null
	echo "$(date +%s%N) $from" | awk '{ printf "%.3f", ($1 - $2) / 1e9 }'
}
cold() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
}
rate() { # MIB SECONDS
	awk -v m="$1" -v s="$2" 'BEGIN { printf "%.0f", m / s }'
}
write_bare() {
	dd if=/dev/zero of="$1" bs=1M count="$2" conv=fsync status=none
}
read_all() {
	cat "$MNT"/big*
}
rebuilt() {
	"$SOPCTL" status --json "$MNT" | grep -qE '"state": ?"(REPLACING|HEALING)"' && return 1
	return 0
}

new_volume 4 2+2
mount_volume
for ((i = 0; i < 4; i++)); do
	dd if=/dev/urandom of="$MNT/big$i" bs=1M count=$((mib / 4)) conv=fsync status=none
done
unmount_volume

for round in 1 2; do
	mount_volume
	cold
	t=$(seconds read_all)
	echo "healthy read $round: $(rate "$mib" "$t") MiB/s"
	unmount_volume
	mv "$WORK/d1" "$WORK/away1"
	mv "$WORK/d2" "$WORK/away2"
	SOURCE=$WORK/d3
	mount_volume degraded
	cold
	t=$(seconds read_all)
	echo "degraded read $round, two of four gone: $(rate "$mib" "$t") MiB/s"
	unmount_volume
	mv "$WORK/away1" "$WORK/d1"
	mv "$WORK/away2" "$WORK/d2"
	SOURCE=$(colon_list "${DISKS[@]}")
done

mount_volume
sleep 3 # what was away is taken in
wait_until 60 rebuilt
cpu() {
	awk '{ print ($14 + $15) * 10 }' "/proc/$PID/stat"
}
for source in copied rebuilt; do
	mkdir "$WORK/new$source"
	cold
	t=$(seconds write_bare "$WORK/bare" $((mib / 2)))
	bare=$(rate $((mib / 2)) "$t")
	rm "$WORK/bare"
	# All disks are one here: what is read comes from memory, so that the new one is measured alone.
	sync
	read_all >/dev/null
	cat "$WORK"/d[0-9]/segments/*/* >/dev/null
	old=d1
	if [ "$source" = rebuilt ]; then
		old=d2
		"$SOPCTL" offline --yes "$MNT" d2 >/dev/null
	fi
	c=$(cpu)
	from=$(date +%s%N)
	"$SOPCTL" replace --yes --force "$MNT" "$old" "$WORK/new$source" >/dev/null
	moved() {
		[ "$(du -sm "$WORK/new$source/segments" | cut -f1)" -ge $((mib * 49 / 100)) ]
	}
	wait_until 120 moved || fail "not moved"
	sync -f "$WORK/new$source"
	t=$(echo "$(date +%s%N) $from" | awk '{ printf "%.3f", ($1 - $2) / 1e9 }')
	echo "new disk, $source: $(rate $((mib / 2)) "$t") MiB/s; its own sequential write: $bare MiB/s; $(($(cpu) - c)) ms of CPU"
	wait_until 120 rebuilt
done
unmount_volume
