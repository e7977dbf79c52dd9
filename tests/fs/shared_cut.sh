#!/bin/bash
# Two mounts of one shared volume, one of them behind a network that is cut: who is cut off goes on reading, and
# waits with its commits; its locks are another's after a lease, and what it has written under them is refused; with
# the network comes all the rest.
. "$(dirname "$0")/functions.sh"
# shellcheck source=tests/fs/redis.sh
. "$(dirname "$0")/redis.sh"
requires ip nsenter
requires_root

NS=sopfs$$
NET=10.213.$((1 + $$ % 250))
ip netns add "$NS" 2>/dev/null || skip "needs network namespaces"
end_begins() {
	ip netns del "$NS"
}
ip link add "sop$$" type veth peer name eth0 netns "$NS" || fail "no pair of links"
ip addr add "$NET.1/30" dev "sop$$"
ip link set "sop$$" up
ip -n "$NS" addr add "$NET.2/30" dev eth0
ip -n "$NS" link set eth0 up

start_server redis --port 6379 --bind "$NET.1" --protected-mode no
new_volume 3 2+1 --shared
mount_at "$A" "$LOG" 3
nsenter --net="/run/netns/$NS" "$SOPFS" "$SOURCE" "$B" -o "log=$WORK/b.log,redis=redis://$NET.1:6379,lease=3"
wait_until 60 mounters "$A" 2 || fail "they do not meet"
echo first >"$B/f"
assert_eq "$(cat "$A/f")" first "before"
echo old >"$A/s"
sleeper_begins "$B/s"

ip -n "$NS" link set eth0 down
wait_until 120 takes "$A" s || fail "the lock of who is cut off is not free"
wait_until 120 is_away "$B" || fail "the server is not missed"
echo "of A" >"$A/s"
assert_eq "$(cat "$B/s")" "of A" "what is committed meanwhile, read by who is cut off"
python3 "$WORK/write.py" "$B/w" waits 6>&- &
writer=$!
for i in $(seq 20); do
	echo "$i" >>"$A/f"
	assert_eq "$(tail -n 1 "$B/f")" "$i" "line $i"
done
# Its lease is over, so nothing of it can be there.
[ ! -e "$A/w" ] || fail "who is cut off has committed"

ip -n "$NS" link set eth0 up
wait "$writer" || fail "the commit that waited"
assert_eq "$(cat "$A/w")" waits "what waited"
sleeper_is_refused
assert_eq "$(cat "$A/s")" "of A" "what the other wrote under the lock"
wait_until 120 mounters "$A" 2 || fail "they do not meet again"
echo last >"$B/s"
assert_eq "$(cat "$A/s")" last "after all"
unmount_and_wait "$B"
unmount_volume
check_volume
