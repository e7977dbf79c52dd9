# shellcheck shell=bash
# Sourced after functions.sh by the tests that take disks away, give them back and change them while
# the volume is used.

ctl() {
	"$SOPCTL" "$@"
}

# of DISK MEMBER: what status --json says of a disk, named d1 and so on, or by its path.
of() {
	ctl status --json "$MNT" | jq -r --arg d "$1" --arg m "$2" \
		'.disks[] | select(.name == $d or .path == $d) | .[$m]'
}

state_of() {
	of "$1" state
}

is_state() {
	[ "$(state_of "$1")" = "$2" ]
}

# None is missing, healed, moved.
all_online() {
	! ctl status --json "$MNT" | grep -qE '"state": ?"(OFFLINE|MISSING|FAILED|HEALING|REPLACING|REMOVING)"'
}

# Nothing is left to be healed: check_volume begins with that, fsck -n does not.
check_whole() {
	"$BUILD/fsck.sopfs" -n "${DISKS[0]}" >"$WORK/fsck.out" 2>&1 || fail "not whole: $(cat "$WORK/fsck.out")"
	check_volume
}

# Whoever asks, wherever, hears that all is well.
well_everywhere() {
	assert_eq "$(ctl status --json "$MNT" | jq -r '"\(.state) \(.health) \(.status) \(.volume.disks == .volume.disks_online)"')" \
		"ONLINE ok null true" "status --json"
	assert_eq "$(jq -r '"\(.state) \(.health)"' "$MNT/.sop/status.json")" "ONLINE ok" ".sop/status.json"
	ctl status --check "$MNT" >/dev/null || fail "status --check gives $?"
	ctl status "$MNT" | grep -qE '^ +state: ONLINE$' || fail "status: $(ctl status "$MNT")"
	grep -qE '^ +state: ONLINE$' "$MNT/.sop/status" || fail ".sop/status: $(cat "$MNT/.sop/status")"
	assert_eq "$(grep -E '^sopfs_(degraded|healthy)\{' "$MNT/.sop/metrics" | sed 's/{.*}//' | sort | paste -sd,)" \
		"sopfs_degraded 0,sopfs_healthy 1" ".sop/metrics"
}

# faulty_disk BACKING MODE MOUNTPOINT: a folder that fails, or hangs, as the file MODE says (faulty_folder.c). Whatever
# happens, at the end the file goes, so that nobody stays in a folder that hangs.
FAULTS=()
faulty_disk() {
	"$BUILD/fs/faulty_folder" "$1" "$2" "$3"
	is_mounted "$3" || skip "needs FUSE"
	FAULTS+=("$2")
	[[ " ${LOOPS[*]} " == *" $3 "* ]] || LOOPS+=("$3")
}
end_begins() {
	rm -f "${FAULTS[@]}"
}

# fill_disks SIZE: a large file and many small ones. filled: they are right.
fill_disks() {
	head -c "$1" /dev/urandom >"$WORK/big"
	cp "$WORK/big" "$MNT/big"
	mkdir "$MNT/many"
	(cd "$MNT/many" && seq 1 300 | split -l 1 -a 3 - f)
}
filled() {
	cmp "$WORK/big" "$MNT/big"
	cat "$MNT"/many/* | sort -n | cmp - <(seq 1 300)
}
# The same from the disks, not from memory.
filled_on_disk() {
	echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || true
	filled
}

# rot DISK [N]: overwrite 64 bytes at N places of its shard files, behind the headers.
rot() {
	python3 - "$WORK/$1/segments" "${2:-40}" <<'PY'
import os, random, sys
random.seed(5)
files = [os.path.join(d, f) for d, _, fs in os.walk(sys.argv[1]) for f in fs]
done = 0
while done < int(sys.argv[2]):
    f = random.choice(files)
    try:
        size = os.path.getsize(f)
        if size > 20000:
            with open(f, "r+b") as o:
                o.seek(random.randrange(8192, size - 64))
                o.write(os.urandom(64))
            done += 1
            continue
    except FileNotFoundError: # given back meanwhile
        pass
    files.remove(f)
PY
}

# load_start [N]: writers that make, rewrite, rename and delete files of all sizes until load_stop. Each
# file holds its own checksum, as its last line says; so any mixture shows.
load_start() {
	LOAD=()
	local i
	: >"$WORK/load.go"
	for ((i = 0; i < ${1:-2}; i++)); do
		load_loop "$i" &
		LOAD+=($!)
	done
}

# With LOAD_MAY_DIE set a writer that gets an error ends, and that is all.
load_fails() {
	[ -n "${LOAD_MAY_DIE:-}" ] || echo "$*" >>"$WORK/load.failed"
}

load_loop() {
	local dir=$MNT/load$1 n=0 size f
	RANDOM=$((SEED + $1))
	mkdir -p "$dir" || return
	while [ -e "$WORK/load.go" ]; do
		size=$((RANDOM % 5 == 0 ? 300000 + RANDOM * 40 : RANDOM))
		f=$dir/f$((RANDOM % 40))
		head -c "$size" /dev/urandom >"$WORK/load$1.data"
		{
			cat "$WORK/load$1.data"
			md5sum <"$WORK/load$1.data"
		} >"$f" || {
			load_fails "write of $f failed"
			return
		}
		case $((RANDOM % 8)) in
		0) rm -f "$dir/f$((RANDOM % 40))" ;;
		1) mv -f "$f" "$dir/f$((40 + RANDOM % 10))" ;;
		esac || {
			load_fails "rename or remove in $dir failed"
			return
		}
		n=$((n + 1))
		echo $n >"$WORK/load$1.new"
		mv "$WORK/load$1.new" "$WORK/load$1.count"
	done
}

load_stop() {
	rm -f "$WORK/load.go"
	wait "${LOAD[@]}"
	[ ! -e "$WORK/load.failed" ] || fail "$(cat "$WORK/load.failed")"
	verify_load
}

# Everything that is there is whole.
verify_load() {
	local f
	for f in "$MNT"/load*/f*; do
		[ -e "$f" ] || continue
		[ "$(head -c -36 "$f" | md5sum)" = "$(tail -c 36 "$f")" ] || fail "$f is not what was written"
	done
}

# load_turns N: until each writer has come round N times more.
load_turns() {
	local i from=()
	for ((i = 0; i < ${#LOAD[@]}; i++)); do
		from[i]=$(cat "$WORK/load$i.count" 2>/dev/null || echo 0)
	done
	for ((i = 0; i < ${#LOAD[@]}; i++)); do
		wait_until 120 load_reached "$i" $((from[i] + $1)) ||
			fail "the load does not get on"
	done
}

# Or it has ended for good.
load_reached() {
	[ ! -e "$WORK/load.failed" ] || fail "$(cat "$WORK/load.failed")"
	[ "$(cat "$WORK/load$1.count" 2>/dev/null || echo 0)" -ge "$2" ]
}
