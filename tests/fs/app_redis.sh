#!/bin/bash
# A Redis server with its append-only file and its dumps on the mount: rewrites, a restart, a kill of the
# server, a crash of the daemon below it. Under both kinds of session.
. "$(dirname "$0")/functions.sh"
requires redis-server redis-cli

server=
stop_server() {
	[ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
	[ -z "$server" ] || wait "$server" 2>/dev/null || true
	server=
}
trap 'rc=$?; set +e; stop_server; (exit "$rc"); end_test' EXIT

cli() {
	redis-cli -s "$WORK/redis.sock" "$@"
}

start_server() { # DIR [option...]
	local dir=$1
	shift
	redis-server --port 0 --unixsocket "$WORK/redis.sock" --dir "$dir" --appendonly yes --save '' \
		--daemonize no --logfile "$WORK/redis.log" "$@" >"$WORK/out" 2>&1 &
	server=$!
	wait_until 30 answers || { tail "$WORK/redis.log" "$WORK/out"; fail "redis does not start"; }
}

answers() {
	[ "$(cli ping 2>/dev/null)" = PONG ]
}

fill() { # FROM TO
	local i
	for ((i = $1; i < $2; i++)); do
		echo "SET key$i value$i"
		echo "RPUSH list $i"
	done | cli >/dev/null
}

check_keys() { # COUNT
	assert_eq "$(cli get key0)" value0 "first key"
	assert_eq "$(cli get "key$(($1 - 1))")" "value$(($1 - 1))" "last key"
	assert_eq "$(cli llen list)" "$1" "list"
}

no_child() {
	[ "$(cli info persistence | grep -cE '(aof_rewrite_in_progress|rdb_bgsave_in_progress|aof_rewrite_scheduled):0')" = 3 ]
}

new_volume 2 1+1
for session in close write; do
	mount_volume "session=$session,commit=100ms"
	dir=$MNT/$session
	mkdir "$dir"
	start_server "$dir" --appendfsync always
	fill 0 1000
	cli bgrewriteaof >/dev/null
	fill 1000 2000
	wait_until 60 no_child || fail "the rewrite does not end"
	cli bgsave >/dev/null
	wait_until 60 no_child || fail "the dump does not end"
	fill 2000 2500
	cli shutdown nosave >/dev/null 2>&1 || true
	wait "$server" || true
	start_server "$dir" --appendfsync always
	check_keys 2500
	# Each command was answered after its fsync: a kill of the server takes nothing.
	fill 2500 3000
	stop_server
	start_server "$dir" --appendfsync always
	check_keys 3000
	# Nor does the end of the file system below.
	fill 3000 3200
	kill_daemon
	stop_server
	mount_volume "session=$session,commit=100ms"
	start_server "$dir"
	check_keys 3200
	cli shutdown nosave >/dev/null 2>&1 || true
	wait "$server" || true
	server=
	if command -v redis-check-aof >/dev/null; then
		for f in "$dir"/appendonlydir/*.manifest; do
			redis-check-aof "$f" >"$WORK/out" 2>&1 || { cat "$WORK/out"; fail "redis-check-aof"; }
		done
	fi
	unmount_volume
done
check_volume
