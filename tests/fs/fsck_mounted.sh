#!/bin/bash
# fsck.sopfs beside a mounter: -n tells nothing that is not so while files come and go and checkpoints are
# made all the time, tells damage when there is some, and writes nothing; -y refuses. And what the mount
# does with what is lost: EIO for that range alone, the rest is right, the daemon lives.
. "$(dirname "$0")/functions.sh"

fsck=$BUILD/fsck.sopfs
new_volume 4 2+2
mount_volume commit=50ms,checkpoint=100ms

# fsck_says CODE ARGS...: exit code; its output is in $WORK/fsck.out.
fsck_says() {
	local want=$1 rc=0
	shift
	"$fsck" "$@" >"$WORK/fsck.out" 2>&1 || rc=$?
	if [ "$rc" != "$want" ]; then
		cat "$WORK/fsck.out"
		fail "fsck.sopfs $*: exit code $rc, not $want"
	fi
}

echo "--- while files come and go"
mkdir "$MNT/busy"
(
	i=0
	while [ ! -e "$WORK/stop" ]; do
		i=$((i + 1))
		head -c $((i % 7 * 9000 + 10)) /dev/urandom >"$MNT/busy/f$((i % 40))"
		[ $((i % 5)) != 0 ] || rm -f "$MNT/busy/f$((i * 3 % 40))"
		[ $((i % 9)) != 0 ] || mv -f "$MNT/busy/f$((i % 40))" "$MNT/moved"
	done
) 2>/dev/null &
writer=$!
for _ in 1 2 3 4 5; do
	fsck_says 0 -n "${DISKS[0]}"
	grep -q 'in use' "$WORK/fsck.out" || fail "it does not say that the volume is in use"
done
fsck_says 8 -y "${DISKS[0]}"
grep -q 'is in use (host=' "$WORK/fsck.out" || fail "it does not say by whom the volume is held"
touch "$WORK/stop"
wait "$writer" || true

echo "--- damage while it is mounted"
unmount_volume
rm -rf "${DISKS[@]}"
new_volume 4 2+2
mount_volume commit=50ms,checkpoint=100ms
head -c 1000000 /dev/urandom >"$WORK/big"
cp "$WORK/big" "$MNT/big"
sync "$MNT/big"
umount_and_mount() {
	unmount_volume
	mount_volume commit=50ms,checkpoint=100ms
}
umount_and_mount # nothing is in memory
hit() {
	local f
	f=$(find "$1/segments" -type f -printf '%s %p\n' | sort -rn | head -n 1 | cut -d' ' -f2-)
	printf 'DAMAGED! DAMAGED!' | dd of="$f" bs=1 seek=100000 conv=notrunc status=none
}
hit "${DISKS[0]}"
fsck_says 4 -n "${DISKS[0]}"
grep -q '^/big: .*1 shard does not verify.*can be repaired' "$WORK/fsck.out" || {
	cat "$WORK/fsck.out"
	fail "it does not name the file"
}
cmp "$WORK/big" "$MNT/big"

echo "--- too much of it"
umount_and_mount
for d in "${DISKS[@]:0:3}"; do hit "$d"; done
fsck_says 4 -n "${DISKS[0]}"
grep -q '^/big: bytes [0-9]*-[0-9]*: .*LOST' "$WORK/fsck.out" || {
	cat "$WORK/fsck.out"
	fail "it does not name the range"
}
read -r first last < <(sed -nE 's/^\/big: bytes ([0-9]+)-([0-9]+): .*LOST.*/\1 \2/p' "$WORK/fsck.out" | head -n 1)
# direct: as read(2) has it, and not as the kernel reads ahead.
! dd if="$MNT/big" of=/dev/null bs=1 skip="$first" count=1 iflag=direct status=none 2>/dev/null || fail "a lost byte reads"
cmp <(head -c "$first" "$WORK/big") <(dd if="$MNT/big" bs="$first" count=1 iflag=fullblock,direct status=none)
cmp <(tail -c +$((last + 2)) "$WORK/big") <(dd if="$MNT/big" bs=65536 iflag=skip_bytes,fullblock,direct skip=$((last + 1)) status=none)
echo still here >"$MNT/new"
assert_eq "$(cat "$MNT/new")" 'still here'
kill -0 "$PID" || fail "the daemon is gone"
unmount_volume
fsck_says 4 -y "${DISKS[0]}"
mount_volume
[ -e "$MNT/big" ] || fail "fsck -y has removed what is lost"
unmount_volume
fsck_says 1 -y --discard-lost "${DISKS[0]}"
fsck_says 0 -n "${DISKS[0]}"
mount_volume
[ ! -e "$MNT/big" ] || fail "--discard-lost has not removed it"
assert_eq "$(cat "$MNT/new")" 'still here'
unmount_volume
check_volume

echo "--- by a volume's name, and by a pattern"
export SOPFS_CONFIG_DIR=$WORK/etc
mkdir "$WORK/etc"
printf '# drives\ncommit = 1s\nsource = %s/d?\n' "$WORK" >"$WORK/etc/tank.conf"
fsck_says 0 -n tank
grep -q ': clean$' "$WORK/fsck.out" || fail "by name: $(cat "$WORK/fsck.out")"
fsck_says 0 -n "$WORK/d[12]"
printf 'commit = 1s\n' >"$WORK/etc/none.conf"
fsck_says 16 -n none
grep -q 'none.conf: says no source' "$WORK/fsck.out" || fail "no source: $(cat "$WORK/fsck.out")"
fsck_says 16 -n "$WORK/x*"
grep -q 'matches no folder' "$WORK/fsck.out" || fail "no folder: $(cat "$WORK/fsck.out")"
