#!/bin/bash
# Two mounts of one shared volume that meet at a Redis server: locks hold between them, and end with their
# holder; the server may be killed, emptied and stopped; who has no lease does not commit; status tells it all.
. "$(dirname "$0")/functions.sh"
# shellcheck source=tests/fs/redis.sh
. "$(dirname "$0")/redis.sh"

start_server redis
new_volume 3 2+1 --shared
mount_at "$A" "$LOG"
mount_at "$B" "$WORK/b.log"
echo x >"$A/f"

# ---- who is there
wait_until 30 mounters "$A" 2 || fail "status does not list two mounters"
assert_eq "$(status "$B" '[.mounters[].mountpoint] | sort | join(" ")')" \
	"$(printf '%s\n' "$A" "$B" | sort | paste -sd' ')" "mountpoints of mounters"
assert_eq "$(status "$A" '[.mounters[] | select(.this)] | length')" 1 "this one"
grep -q '^mounters: 2$' "$A/.sop/status" || fail "status says nothing of mounters"

# ---- locks hold between mounts
exec 5> >(lock flock ex "$A/f" >"$WORK/held")
wait_until 30 test -s "$WORK/held" || fail "no lock"
expect_exit 1 lock flock ex "$B/f" </dev/null
expect_exit 1 lock flock sh "$B/f" </dev/null
expect_exit 0 lock posix ex "$B/f" 0 1 </dev/null
# One that waits gets it when it is free.
lock flock ex "$B/f" wait </dev/null >"$WORK/waited" 5>&- &
waiter=$!
exec 5>&-
wait "$waiter" || fail "the waiter"
grep -q held "$WORK/waited" || fail "the waiter has no lock"
# Ranges.
: >"$WORK/held"
exec 5> >(lock posix ex "$B/f" 10 10 >"$WORK/held")
wait_until 30 test -s "$WORK/held" || fail "no range"
expect_exit 1 lock posix sh "$A/f" 19 1 </dev/null
expect_exit 0 lock posix ex "$A/f" 20 5 </dev/null

# ---- what it is asked: twice for a commit, and nothing for a read; the lease is renewed every three minutes
exec 5>&-
unmount_and_wait "$B"
unmount_volume
mount_at "$A" "$LOG" 600
asked() {
	redis redis info commandstats | sed -n 's/^cmdstat_evalsha:calls=\([0-9]*\).*/\1/p'
}
counted() {
	local before made i
	before=$(asked)
	for i in $(seq 20); do
		echo "$i" >>"$A/counted"
	done
	made=$(asked)
	cat "$A/counted" "$A/f" >/dev/null
	ls -l "$A" >/dev/null
	echo "20 commits: $((made - before)) round trips, reading: $(($(asked) - made))"
	[ $((made - before)) = 40 ] && [ "$(asked)" = "$made" ]
}
: >"$A/counted"
# Once more if a renewal came in between.
counted || counted || fail "20 commits and some reading ask too much, or too little"
unmount_volume
mount_at "$A" "$LOG"
mount_at "$B" "$WORK/b.log"
: >"$WORK/held"
exec 5> >(lock posix ex "$B/f" 10 10 wait >"$WORK/held")
wait_until 60 test -s "$WORK/held" || fail "no range"

# ---- the server forgets everything: what is held stays held
redis redis flushall >/dev/null
wait_until 30 mounters "$A" 2 || fail "they do not come back"
expect_exit 1 lock posix sh "$A/f" 19 1 </dev/null
stop_server
start_server redis
wait_until 60 is_up "$A" || fail "A does not come back"
wait_until 60 is_up "$B" || fail "B does not come back"
wait_until 60 mounters "$A" 2 || fail "they do not come back"
expect_exit 1 lock posix sh "$A/f" 19 1 </dev/null
echo y >"$B/g"
assert_eq "$(cat "$A/g")" y "after the server's restart"

# ---- a mount that sleeps until its lock is another's commits nothing that it writes under it
exec 5>&-
echo old >"$A/s"
sleeper_begins "$B/s"
sleeping=$(daemon_of "$B")
kill -STOP "$sleeping"
wait_until 60 takes "$A" s || { kill -CONT "$sleeping"; fail "the sleeper's lock is not free"; }
kill -CONT "$sleeping"
wait_until 30 mounters "$A" 2 || fail "the sleeper does not come back"
sleeper_is_refused
assert_eq "$(cat "$A/s")" old "what the sleeper wrote"

# ---- a mount that is killed leaves its locks
: >"$WORK/held"
exec 5> >(lock posix ex "$B/f" 10 10 wait >"$WORK/held")
wait_until 60 test -s "$WORK/held" || fail "no range"
kill -9 "$(daemon_of "$B")"
gone() {
	lock posix sh "$A/f" 19 1 </dev/null >/dev/null
}
wait_until 60 gone || fail "locks of the dead are still held"
exec 5>&-
umount -l "$B" 2>/dev/null || true
echo z >"$A/g"
wait_until 30 mounters "$A" 1 || fail "the dead is still listed"

# ---- the server is away: reads go on, commits are refused when the lease is over
unmount_volume
accepted() { # TEXT: a machine that is slow may have no lease for a moment
	python3 "$WORK/write.py" "$A/h" "$1" 2>/dev/null
}
refused() {
	! python3 "$WORK/write.py" "$A/h" during 2>"$WORK/err"
}
while read -r how error; do
	mount_at "$A" "$LOG" 1 "ondown=$how"
	wait_until 60 accepted "before $how" || fail "no commit with the server"
	stop_server
	wait_until 60 refused || fail "commits go on without a lease"
	grep -qi "$error" "$WORK/err" || fail "ondown=$how: $(cat "$WORK/err")"
	assert_eq "$(cat "$A/g")" z "a read without the server"
	expect_exit 2 lock flock ex "$A/g" </dev/null
	wait_until 60 is_away "$A" || fail "the server is not missed"
	grep -q '^ *redis: .*AWAY' "$A/.sop/status" || fail "status does not say that the server is away"
	start_server redis
	wait_until 60 accepted "after $how" || fail "commits do not go on"
	assert_eq "$(cat "$A/h")" "after $how" "when the server is back"
	unmount_volume
done <<'HOW'
ro read-only
eio input/output
HOW

# ---- and waits for it, which is the default
mount_at "$A" "$LOG" 1
stop_server
lease_over() {
	is_away "$A" && [ "$(status "$A" .redis.for_s)" -ge 2 ]
}
wait_until 60 lease_over || fail "the server is not missed"
python3 "$WORK/write.py" "$A/w" waits &
writer=$!
assert_eq "$(cat "$A/h")" "after eio" "a read meanwhile"
start_server redis
wait "$writer" || fail "the commit that waited"
assert_eq "$(cat "$A/w")" waits "what waited"
unmount_volume
check_volume

# ---- no use for it in a volume of one machine
new_volume 1 1+0
expect_exit 32 "$SOPFS" "$SOURCE" "$MNT" -o "log=$LOG,redis=unix://$WORK/redis.sock"
expect_says 'not shared'
