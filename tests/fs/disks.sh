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

load_loop() {
	local dir=$MNT/load$1 n=0 size f
	RANDOM=$((SEED + $1))
	mkdir -p "$dir"
	while [ -e "$WORK/load.go" ]; do
		size=$((RANDOM % 5 == 0 ? 300000 + RANDOM * 40 : RANDOM))
		f=$dir/f$((RANDOM % 40))
		head -c "$size" /dev/urandom >"$WORK/load$1.data"
		{
			cat "$WORK/load$1.data"
			md5sum <"$WORK/load$1.data"
		} >"$f" || {
			echo "write of $f failed" >>"$WORK/load.failed"
			return
		}
		case $((RANDOM % 8)) in
		0) rm -f "$dir/f$((RANDOM % 40))" ;;
		1) mv -f "$f" "$dir/f$((40 + RANDOM % 10))" ;;
		esac || {
			echo "rename or remove in $dir failed" >>"$WORK/load.failed"
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
