#!/bin/bash
# What an operation costs, in counts that do not depend on the machine's speed: requests of the kernel, and
# calls, bytes and syncs that reach the disks. They are printed; the bounds hold the gains.
# shellcheck source=tests/fs/functions.sh
. "$(dirname "$0")/functions.sh"
requires jq

drive=$BUILD/bench/drive

# Counts before and after, by kind; the status comes by the control socket and asks nothing of the kernel.
look() {
	"$SOPCTL" status --json "$MNT" >"$WORK/status.json"
}
value() { # FILTER
	jq -r "$1" "$WORK/status.json"
}
# Kinds of requests that came during a command, as "KIND n", and what went to the disks.
during() { # COMMAND...
	look
	mv "$WORK/status.json" "$WORK/before.json"
	"$@" >/dev/null
	look
	jq -rn --slurpfile a "$WORK/before.json" --slurpfile b "$WORK/status.json" '
		($b[0].requests, {}) as $new | $new | to_entries[]
		| "\(.key) \(.value - $a[0].requests[.key])"' >"$WORK/requests"
	jq -rn --slurpfile a "$WORK/before.json" --slurpfile b "$WORK/status.json" '
		$b[0].disk_io | to_entries[] | "\(.key) \(.value - $a[0].disk_io[.key])"' >"$WORK/io"
}
came() { # KIND
	awk -v k="$1" '$1 == k { print $2 }' "$WORK/requests"
}
written() { # writes|written_bytes|syncs
	awk -v k="$1" '$1 == k { print $2 }' "$WORK/io"
}
shown() {
	echo "$1: $(awk '$2 && $1 != "total" { printf "%s %d  ", $1, $2 }' "$WORK/requests")"
}
# Of n operations, each may cost so many; and a few more for what goes on beside them.
at_most() { # WHAT COUNT N EACH
	[ "$2" -le $(($3 * $4 + 20)) ] || fail "$1: $2 for $3 operations, $4 each are allowed"
}
# Of n operations, each with so many bytes: four times as many may be written for it, and 1 KiB.
small() { # WHAT N BYTES
	local each=$(($(written written_bytes) / $2))
	echo "    $each bytes written for each $1"
	[ $each -le $((4 * $3 + 1024)) ] || fail "$each bytes written for each $1"
}

n=200
new_volume 4 2+2
# No checkpoint and no barrier that the clock brings.
mount_volume checkpoint=1h,commit=1h
mkdir "$MNT/d" "$MNT/s" "$MNT/p"

during "$drive" create "$MNT/d" $n 4096
shown "$n files made, 4 KiB each"
echo "    writes $(written writes), syncs $(written syncs), bytes $(written written_bytes)"
at_most "requests of a new file" "$(came total)" $n 8
at_most "GETXATTR of a new file" "$(came GETXATTR)" $n 1
at_most "writes of a commit (4 shards, 3 replicas of the journal)" "$(written writes)" $n 7
at_most "syncs of a relaxed commit" "$(written syncs)" 1 20
relaxed=$(written written_bytes)
[ "$(written written_bytes)" -le $((n * (4 * 4096 + 1024))) ] || fail "$(written written_bytes) bytes written"

during "$drive" create "$MNT/s" $n 4096 1 sync
echo "$n files made and fsynced: writes $(written writes), syncs $(written syncs)"
at_most "writes of a synced commit" "$(written writes)" $n 7
at_most "syncs of a synced commit (4 shards, 3 replicas of the journal)" "$(written syncs)" $n 7
[ "$(written syncs)" -ge $((n * 4)) ] || fail "an fsync did not reach the disks"
# Places were written ahead with zeros, or each sync would cost a commit of the disk's own file system.
ahead=$(($(written written_bytes) - relaxed))
[ $ahead -ge $((4 * 128 * 1024)) ] || fail "only $ahead bytes were written ahead"
# At most 512 KiB at a time for each of 4 shards and 3 replicas of the journal, and once more for what was begun.
[ $ahead -le $((2 * 7 * 512 * 1024)) ] || fail "$ahead bytes were written ahead for $n synced files"

# The nodeid stays the same if the RELEASE of the last close is served before the next look-up is, which a busy
# machine may not do: then names are kept and taken back, and the directory is asked about.
for ((i = 0; i < 20; i++)); do
	during "$drive" append "$MNT/log" $n
	[ "$(came GETATTR)" -gt 20 ] || break
done
shown "$n times open, append, close"
at_most "requests of an append" "$(came total)" $n 6
at_most "GETATTR of the directory, for an append" "$(came GETATTR)" 0 0
small "64 bytes appended" $n 64
during "$drive" rename "$MNT/d" $((n / 2))
shown "$n renames"
at_most "requests of a rename" "$(came total)" $n 4
small rename $n 0

# The kernel may drop what it keeps when memory is short, so one of several rounds has to be quiet.
quiet() { # KIND COMMAND...
	local kind=$1 i
	shift
	for ((i = 0; i < 10; i++)); do
		during "$@"
		[ "$(came "$kind")" != 0 ] || return 0
	done
	fail "$*: $(came "$kind") requests of kind $kind, each time"
}
"$drive" read "$MNT/d" $n 4096 >/dev/null
quiet total "$drive" stat "$MNT/d" $n
shown "$n files looked at again"
quiet READ "$drive" read "$MNT/d" $n 4096
shown "$n files read again"
at_most "requests of reading again" "$(came total)" $n 2

# Many small writes to one open file: what is asked beside each.
dd if=/dev/zero of="$MNT/pages" bs=1M count=1 status=none
during "$drive" rwrite "$MNT/pages" 1 $n
shown "$n pages written anywhere"
at_most "WRITE" "$(came WRITE)" $n 1
at_most "GETXATTR beside writes" "$(came GETXATTR)" 1 20

unmount_volume

# With the checkpoints: as many as a journal of 1 MiB brings, the default being 64.
mount_volume checkpoint=1h,commit=1h,journal=1M
mkdir "$MNT/c"
many=4000
checkpointed() {
	look
	[ "$(value .space.journal_bytes)" -lt $((1 << 20)) ]
}
with_checkpoint() {
	"$drive" create "$MNT/c" $many 4096
	wait_until 60 checkpointed || fail "no checkpoint"
}
during with_checkpoint
each=$(($(written written_bytes) / many))
echo "bytes written for each of $many files of 4 KiB, directories and checkpoints included: $each"
[ $each -le $((4 * 4096 + 1024)) ] || fail "$each bytes written for 4 KiB"
unmount_volume
