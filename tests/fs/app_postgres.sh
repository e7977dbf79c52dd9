#!/bin/bash
# PostgreSQL on a mount with session=write: initdb, pgbench, a crash of the server, a crash of the file
# system below it; every transaction that was reported committed is there.
. "$(dirname "$0")/functions.sh"
requires_root
bin=
for d in /usr/lib/postgresql/*/bin; do
	[ ! -x "$d/pgbench" ] || bin=$d
done
[ -n "$bin" ] || skip "needs postgresql"
id postgres >/dev/null 2>&1 || skip "needs the user postgres"
requires runuser

seconds=4
[ -z "$LONG" ] || seconds=60
as_postgres() {
	(cd "$WORK" && runuser -u postgres -- "$@")
}
stop_server() {
	[ ! -e "$MNT/db/postmaster.pid" ] || as_postgres "$bin/pg_ctl" -D "$MNT/db" -m immediate stop >/dev/null 2>&1 || true
}
trap 'rc=$?; set +e; stop_server; (exit "$rc"); end_test' EXIT

start_server() {
	as_postgres "$bin/pg_ctl" -D "$MNT/db" -w -t 60 -l "$MNT/log" \
		-o "-k $WORK/pgrun -c listen_addresses= -c max_connections=20 -c shared_buffers=16MB -c max_wal_size=64MB -c min_wal_size=32MB -c checkpoint_timeout=30s -c full_page_writes=on" \
		start >"$WORK/out" 2>&1 || { cat "$WORK/out" "$MNT/log"; fail "postgres does not start"; }
}
sql() {
	as_postgres "$bin/psql" -h "$WORK/pgrun" -qAtX -c "$1" postgres
}

new_volume 2 1+1
mount_volume session=write,allow_other
mkdir "$WORK/pgrun"
chown postgres "$MNT" "$WORK/pgrun"
as_postgres "$bin/initdb" -D "$MNT/db" -A trust --no-locale -E UTF8 --wal-segsize=4 >"$WORK/out" 2>&1 || {
	tail "$WORK/out"
	fail initdb
}
start_server
as_postgres "$bin/pgbench" -h "$WORK/pgrun" -i -q -s 1 postgres >"$WORK/out" 2>&1 || {
	cat "$WORK/out"
	fail "pgbench -i"
}
as_postgres "$bin/pgbench" -h "$WORK/pgrun" -c 4 -j 2 -T "$seconds" postgres >"$WORK/out" 2>&1 || {
	cat "$WORK/out"
	fail pgbench
}
grep -E 'tps|processed' "$WORK/out"
check_sums() { # of one transaction each
	assert_eq "$(sql 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)')" t "accounts"
	assert_eq "$(sql 'select (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)')" t "tellers"
}
check_sums
sql 'create table t (i int primary key); insert into t select generate_series(1, 1000)'

# The server crashes.
as_postgres "$bin/pg_ctl" -D "$MNT/db" -m immediate stop >/dev/null
start_server
check_sums
assert_eq "$(sql 'select count(*) from t')" 1000 "rows after a crash of the server"
sql 'insert into t select generate_series(1001, 1500)'

# The file system does.
pid=$(head -n 1 "$MNT/db/postmaster.pid")
read -r -a pids <"/proc/$pid/task/$pid/children" || true # no newline at its end
kill_daemon
kill -9 "$pid" "${pids[@]}" 2>/dev/null || true
for pid in "$pid" "${pids[@]}"; do
	wait_gone "$pid" 30 || fail "postgres does not die"
done
mount_volume session=write,allow_other
rm "$MNT/db/postmaster.pid" "$WORK"/pgrun/.s.* # they name a process that may be a zombie still
start_server
assert_eq "$(sql 'select count(*) from t')" 1500 "rows after a crash of the file system"
check_sums
sql 'create index on pgbench_history (aid); vacuum full pgbench_accounts; reindex database postgres' 2>/dev/null ||
	sql 'reindex table pgbench_accounts'
as_postgres "$bin/pg_ctl" -D "$MNT/db" -m fast -w stop >/dev/null
if [ -x "$bin/pg_checksums" ]; then
	as_postgres "$bin/pg_checksums" -D "$MNT/db" --enable >/dev/null
	as_postgres "$bin/pg_checksums" -D "$MNT/db" --check >/dev/null || fail "pg_checksums"
fi
unmount_volume
check_volume
