#!/bin/bash
# SQLite as it is: several processes insert into one database at once, in every journal mode, in the default
# session=close, while others read; some are killed. No row is lost, nothing is malformed.
. "$(dirname "$0")/functions.sh"
requires python3
python3 -c 'import sqlite3' 2>/dev/null || skip "needs python3's sqlite3"
new_volume 4 2+2
mount_volume
cat >"$WORK/sqlite.py" <<'PY'
import os, random, signal, sqlite3, subprocess, sys
kind, path = sys.argv[1:3]
def connect(sync='normal'):
    d = sqlite3.connect(path, timeout=60, isolation_level=None)
    d.execute('pragma synchronous=' + sync)
    return d
if kind == 'insert':
    who, rows, sync = int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    d = connect(sync)
    d.execute('pragma wal_autocheckpoint=20')
    for i in range(rows):
        d.execute('begin immediate')
        n = d.execute('select n from counter').fetchone()[0]
        d.execute('update counter set n = ?', (n + 1,))
        d.execute('insert into t values (?, ?, ?)', (who, i, 'x' * ((i * 37 + who) % 900)))
        d.execute('commit')
    print(rows)
elif kind == 'killed':
    # In the middle of a transaction, at a moment of its own.
    random.seed(int(sys.argv[3]))
    d = connect()
    d.execute('pragma cache_size=2') # so that it spills into the file
    d.execute('begin immediate')
    for i in range(random.randrange(200)):
        d.execute('insert into t values (-1, ?, ?)', (i, 'y' * 900))
    os.kill(os.getpid(), signal.SIGKILL)
elif kind == 'read':
    d, last = connect(), 0
    while True:
        n, c = d.execute('select (select n from counter), count(*) from t').fetchone()
        assert n == c and n >= last, (n, c, last)
        last = n
        if n >= int(sys.argv[3]):
            break
elif kind == 'check':
    d = connect()
    total, mode = int(sys.argv[3]), sys.argv[4]
    assert d.execute('pragma journal_mode').fetchone()[0] == mode
    assert d.execute('pragma integrity_check').fetchone()[0] == 'ok'
    got = d.execute('select n, (select count(*) from t), (select count(distinct a*100000+b) from t) from counter').fetchone()
    assert got == (total, total, total), (got, total)
elif kind == 'make':
    d = connect()
    assert d.execute('pragma journal_mode=' + sys.argv[3]).fetchone()[0] == sys.argv[3]
    d.execute('create table counter (n)')
    d.execute('insert into counter values (0)')
    d.execute('create table t (a, b, c)')
    d.execute('create index i on t (a, b)')
else: # a connection from the beginning on, while the mode is set and others come and go
    d = connect()
    subprocess.run([sys.executable, sys.argv[0], 'make', path, sys.argv[3]], check=True)
    print('ready', flush=True)
    last = 0
    for line in sys.stdin:
        n, c = d.execute('select (select n from counter), count(*) from t').fetchone()
        assert n == c and n >= last, (n, c, last)
        last = n
PY
rows=12 killed=3
[ -z "$LONG" ] || rows=400 killed=20
sql() {
	timeout "${LONG:+1}200" python3 "$WORK/sqlite.py" "$@"
}
run() {
	local mode=$1 sync=$2 db=$MNT/$1-$2 p pids=() i
	coproc OLD { sql old "$db" "$mode" 2>"$WORK/old.err"; }
	# shellcheck disable=SC2153 # of coproc
	local old_pid=$OLD_PID in=${OLD[1]}
	read -r _ <&"${OLD[0]}"
	sql read "$db" $((4 * rows)) &
	pids+=($!)
	for i in 1 2 3 4; do
		sql insert "$db" $i $rows "$sync" >"$WORK/ins.$i" &
		pids+=($!)
	done
	for ((i = 1; i <= killed; i++)); do
		sql killed "$db" $i 2>/dev/null || true
		echo "look" >&"$in"
	done
	for p in "${pids[@]}"; do
		wait "$p" || fail "$mode, synchronous=$sync: see above"
	done
	eval "exec $in>&-"
	wait "$old_pid" || { cat "$WORK/old.err"; fail "$mode, synchronous=$sync: the oldest connection"; }
	sql check "$db" $((4 * rows)) "$mode" || fail "$mode, synchronous=$sync: rows"
	echo "$mode $sync: ok"
}
for mode in delete wal; do
	for sync in off normal full; do
		[ $mode-$sync != delete-normal ] && [ $mode-$sync != wal-full ] || [ -n "$LONG" ] || continue
		run $mode $sync
	done
done
[ -z "$LONG" ] || { run truncate full; run persist normal; }
grep -q ' 0 conflicts' "$MNT/.sop/status" || fail "sessions conflict: $(grep -A5 sessions "$MNT/.sop/status")"
unmount_volume
check_volume
