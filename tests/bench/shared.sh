#!/bin/bash
# Commits a second of 1, 2 and 4 mounts of one volume on this machine, each from one writer that appends a line and
# closes: each in a directory (a store) of its own, and all to one file; not shared, shared, and by a Redis server,
# if there is one. All of them durable at close, as those of a shared volume are. COUNT= closes of each (default 200).
. "$(dirname "$0")/../fs/functions.sh"
count=${COUNT:-200}
server=

at_end() {
	[ -z "$server" ] || kill "$server"
}

mount_point() { # NUMBER
	echo "$WORK/m$1"
}

# run TITLE MOUNTS OPTIONS: a line of the table
run() {
	local n=$2 where i from rate pids
	for where in own one; do
		for ((i = 0; i < n; i++)); do
			"$SOPFS" "$SOURCE" "$(mount_point $i)" -o "log=$LOG$3"
		done
		mkdir -p "$(mount_point 0)/one"
		: >"$(mount_point 0)/one/log"
		pids=()
		from=$(date +%s%N)
		for ((i = 0; i < n; i++)); do
			if [ "$where" = own ]; then
				mkdir -p "$(mount_point $i)/$i"
				"$BUILD/bench/drive" append "$(mount_point $i)/$i/log" "$count" >/dev/null &
			else
				"$BUILD/bench/drive" append "$(mount_point $i)/one/log" "$count" >/dev/null &
			fi
			pids+=($!)
		done
		for i in "${pids[@]}"; do
			wait "$i" || fail "a writer"
		done
		rate=$(awk -v n=$((n * count)) -v ns=$(($(date +%s%N) - from)) 'BEGIN { printf "%.0f", n * 1e9 / ns }')
		printf '%-28s %d mount(s), %-11s %6s commits/s\n' "$1" "$n" "$([ "$where" = own ] && echo own stores || echo one file)" "$rate"
		[ "$where" = own ] || [ "$(wc -l <"$(mount_point 0)/one/log")" = $((n * count)) ] || fail "lines are missing"
		for ((i = 0; i < n; i++)); do
			unmount_and_wait "$(mount_point $i)"
		done
		rm -rf "$WORK"/d[1-3]
		new_volume 3 2+1 "${MAKE[@]}"
	done
}

for i in 0 1 2 3; do
	mkdir "$(mount_point $i)"
	MOUNTS+=("$(mount_point $i)")
done
MAKE=()
new_volume 3 2+1
run "not shared, durable at close" 1 ,durability=close
MAKE=(--shared)
new_volume 3 2+1 --shared
for n in 1 2 4; do
	run shared "$n" ""
done
if command -v redis-server >/dev/null; then
	redis-server --port 0 --unixsocket "$WORK/redis.sock" --dir "$WORK" --save '' >/dev/null &
	server=$!
	wait_until 60 test -S "$WORK/redis.sock" || fail "redis does not start"
	for n in 1 2 4; do
		run "shared, by Redis" "$n" ",redis=unix://$WORK/redis.sock"
	done
fi
