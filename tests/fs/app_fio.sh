#!/bin/bash
# fio with verification: sequential and random, buffered, direct, mapped and by io_uring, several jobs on
# one file or on one each. Under both kinds of session.
. "$(dirname "$0")/functions.sh"
requires fio

size=6M
[ -z "$LONG" ] || size=256M

run() { # NAME ARG...
	local name=$1
	shift
	(cd "$WORK" && fio --minimal --name="$name" --directory="$MNT" --size="$size" --randseed="$SEED" \
		--verify=crc32c --verify_fatal=1 --verify_dump=0 --group_reporting "$@") >"$WORK/out" 2>&1 || {
		tail -n 20 "$WORK/out"
		fail "$session: fio $name $*"
	}
	rm -f "$MNT"/*
}

new_volume 4 2+2
for session in close write; do
	mount_volume "session=$session,commit=100ms"
	run seq --rw=write --bs=128k
	run random --rw=randwrite --bs=4k-64k
	run mixed --rw=randrw --bs=7k --verify=md5
	run jobs --rw=randwrite --bs=16k --numjobs=3
	run direct --rw=randwrite --bs=8k --direct=1
	run mapped --rw=randwrite --bs=8k --ioengine=mmap
	run async --rw=randwrite --bs=16k --ioengine=libaio --iodepth=8 --direct=1
	run trim --rw=randwrite --bs=16k --fsync=32 --end_fsync=1
	unmount_volume
done
check_volume
