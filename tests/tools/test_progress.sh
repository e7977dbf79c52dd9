#!/bin/bash
# What sopctl --wait shows: on a terminal (a real one, of tmux) one line that is drawn again, with rate and time
# to go; elsewhere whole lines; how it exits. The daemon is one that answers as told. And the questions asked
# before disks are changed.
. "$(dirname "$0")/../fs/functions.sh"
requires jq tmux

KNOCK=$BUILD/fs/knock
mkdir -m 700 "$SOPFS_RUN_DIR" "$WORK/say"
SOCK=$SOPFS_RUN_DIR/fake.sock

answer() {
	printf '{"version":1,"ok":true,"result":%s}\n' "$1"
}

# task STATE DONE ENDED ETA UNRECOVERABLE
task() {
	answer "{\"status\":{\"tasks\":[{\"kind\":\"scrub\",\"state\":\"$1\",\"disk\":null,\"target\":null,
		\"started\":\"2999-01-01T00:00:00.0Z\",\"ended\":$3,\"bytes_total\":1073741824,\"bytes_done\":$2,
		\"bytes_per_s\":26843545,\"eta_s\":$4,\"repaired_bytes\":0,\"corrected\":0,\"unrecoverable\":$5,
		\"message\":null}],\"disks\":[{\"name\":\"d1\",\"path\":\"/data/d1\",\"uuid\":\"aabbccdd\"}]}}" |
		tr -d '\n\t'
	echo
}

ended='"2999-01-01T00:01:00.0Z"'
answer "{\"name\":\"$NAME\",\"uuid\":\"00000000-0000-4000-8000-000000000000\",\"disks\":[],\"mount\":{\"point\":\"/nowhere\"}}" \
	>"$WORK/say/hello"

# fake N: the daemon, with N looks at a task under way; ends at the test's end, or with the next.
fake() {
	local i
	if [ -n "${FAKE:-}" ]; then
		kill "$FAKE"
		wait "$FAKE" 2>/dev/null || true
	fi
	rm -f "$SOCK" "$WORK"/say/status*
	for ((i = 1; i <= $1; i++)); do
		task running $((i * 104857600)) null $((40 - i)) 0 >"$WORK/say/status.$i"
	done
	task "${2:-finished}" 1073741824 "$ended" null "${3:-0}" >"$WORK/say/status"
	"$KNOCK" "$SOCK" serve "$WORK/say" &
	FAKE=$!
	wait_until 20 [ -S "$SOCK" ] || fail "no daemon"
}
end_begins() {
	[ -z "${FAKE:-}" ] || kill "$FAKE" 2>/dev/null
	tmux -L "$NAME" kill-server 2>/dev/null
}

# Not on a terminal: a line at first and one at the end here; nothing that moves a cursor.
fake 3
expect_exit 0 "$SOPCTL" scrub --wait "$NAME"
grep -qx 'scrub: 100 MiB of 1.00 GiB (9.8%) at 25.60 MiB/s, 0 errors, ETA 0:39' "$WORK/err" ||
	fail "the first line: $(cat "$WORK/err")"
tail -n 1 "$WORK/err" | grep -q '^scrub: 1.00 GiB of 1.00 GiB (100.0%).*finished' || fail "the last line"
assert_eq "$(wc -l <"$WORK/err")" 2 "lines in two seconds"
! grep -q $'[\r\033]' "$WORK/err" || fail "a line that is drawn again, where nobody sees it"
fake 2
"$SOPCTL" scrub --wait --json "$NAME" >"$WORK/json" 2>"$WORK/err"
jq -e 'select(.kind == "scrub").bytes_done' "$WORK/json" >/dev/null || fail "JSON: $(cat "$WORK/json")"
[ ! -s "$WORK/err" ] || fail "--json, and a line on stderr"

# How it exits.
fake 1 finished 3
expect_exit 3 "$SOPCTL" scrub --wait "$NAME"
fake 1 failed
expect_exit 1 "$SOPCTL" scrub --wait "$NAME"
fake 1 stopped
expect_exit 1 "$SOPCTL" scrub --wait "$NAME"
printf '{"version":1,"ok":false,"code":"SOP_EDISKS","message":"not now"}\n' >"$WORK/say/offline"
expect_exit 7 "$SOPCTL" offline --yes "$NAME" d1
printf '{"version":1,"ok":false,"code":"SOP_EINUSE","message":"in use"}\n' >"$WORK/say/offline"
expect_exit 5 "$SOPCTL" offline --yes "$NAME" d1
expect_exit 2 "$SOPCTL" replace "$NAME" d1 "$WORK" </dev/null
expect_exit 2 "$SOPCTL" remove "$NAME" d1 </dev/null
expect_exit 2 "$SOPCTL" add "$NAME" "$WORK" </dev/null
# The daemon dies while it is waited for.
fake 1000
"$SOPCTL" scrub --wait "$NAME" >/dev/null 2>"$WORK/err" &
waiting=$!
wait_until 20 grep -q ETA "$WORK/err" || fail "it does not wait"
kill -9 "$FAKE"
wait "$FAKE" 2>/dev/null || true
FAKE=
rc=0
wait "$waiting" || rc=$?
assert_eq "$rc" 1 "exit code without a daemon"
grep -q 'the daemon has ended' "$WORK/err" || fail "it does not say why: $(cat "$WORK/err")"
# Answers that make no sense.
for bad in '' 'garbage' '[]' '{"version":1,"ok":true}' '{"version":1,"ok":true,"result":7}' \
	'{"version":1,"ok":true,"result":{"status":{"tasks":7}}}'; do
	fake 0
	printf '%s\n' "$bad" >"$WORK/say/status"
	rc=0
	timeout 120 "$SOPCTL" status "$NAME" >/dev/null 2>&1 || rc=$?
	[ "$rc" -lt 124 ] || fail "status from '$bad': $rc"
	timeout 120 "$SOPCTL" scrub --wait "$NAME" >/dev/null 2>&1 || rc=$?
	[ "$rc" -lt 124 ] || fail "scrub from '$bad': $rc"
done
answer '{}' >"$WORK/say/status"

# On a terminal.
in_tmux() {
	tmux -L "$NAME" -f /dev/null new-session -d -s t -x 120 -y 24 \
		"env SOPFS_RUN_DIR='$SOPFS_RUN_DIR' $*; echo rc=\$?; exec cat"
}
screen() {
	tmux -L "$NAME" capture-pane -p -t t
}
shows() {
	screen | grep -qE "$1"
}
fake 6
in_tmux "'$SOPCTL' scrub --wait '$NAME'"
wait_until 20 shows '^scrub: [2-6]00 MiB of 1.00 GiB .* at 25.60 MiB/s, 0 errors, ETA 0:3[0-9]$' ||
	fail "no line with rate and time to go: $(screen)"
wait_until 30 shows '^rc=0' || fail "it does not end: $(screen)"
assert_eq "$(screen | grep -c 'scrub:')" 1 "lines on the terminal"
shows '^scrub: 1.00 GiB of 1.00 GiB \(100.0%\)' || fail "the line at the end: $(screen)"
tmux -L "$NAME" kill-server
# The question: no, then yes.
rm "$WORK/say/offline"
for say in n y; do
	fake 0
	in_tmux "'$SOPCTL' offline '$NAME' d1"
	wait_until 20 shows 'Stop using disk d1 of .*\[y/N\]' || fail "no question: $(screen)"
	tmux -L "$NAME" send-keys -t t "$say" Enter
	if [ "$say" = y ]; then
		wait_until 20 shows '^rc=0' || fail "y: $(screen)"
	else
		wait_until 20 shows '^rc=1' || fail "n: $(screen)"
	fi
	tmux -L "$NAME" kill-server
done

# Work on a disk goes on as long as the disk's state says so: a task may begin late, and one of before may be
# there still. Each look is at disks and tasks as they are then.
disk() {
	printf '{"name":"%s","path":"/data/%s","uuid":"%s","state":"%s","current":%s}' "$1" "$1" "$2" "$3" "${4:-true}"
}
work() {
	printf '{"kind":"%s","state":"%s","disk":%s,"target":null,"started":"2999-01-01T00:00:0%d.0Z","ended":%s,
		"bytes_total":100,"bytes_done":50,"bytes_per_s":0,"eta_s":null,"repaired_bytes":0,"corrected":0,
		"unrecoverable":%d,"message":null}' "$1" "$2" "$3" "${5:-0}" "$4" "${6:-0}" | tr -d '\n\t'
}
looks_begin() {
	LOOKS=0
	rm -rf "$WORK/looks"
	mkdir "$WORK/looks"
}
# look N DISKS TASKS: N times in turn; and for ever, when it is the last.
look() {
	local i
	for ((i = 0; i < $1; i++)); do
		LOOKS=$((LOOKS + 1))
		answer "{\"status\":{\"tasks\":[${3:-}],\"disks\":[$2]}}" >"$WORK/looks/status.$LOOKS"
	done
	cp "$WORK/looks/status.$LOOKS" "$WORK/looks/status"
}
# waits CODE COMMAND...: it exits so, and not before the last look. How long it takes is all the same.
waits() {
	local code=$1
	shift
	fake 0
	cp "$WORK"/looks/* "$WORK/say"
	expect_exit "$code" "$SOPCTL" "$@"
	[ ! -e "$WORK/say/status.$LOOKS" ] || fail "$*: has ended before the work: $(cat "$WORK/err")"
}
ONLINE=$(disk d1 aabb ONLINE)
REPLACING=$(disk d1 aabb REPLACING)
HEALING=$(disk d1 aabb HEALING false)
OTHER=$(disk d2 ccdd ONLINE)
mkdir "$WORK/new"

looks_begin
look 1 "$ONLINE,$OTHER"
look 6 "$REPLACING,$OTHER"
look 2 "$REPLACING,$OTHER" "$(work replace running '"d1"' null)"
look 1 "$OTHER" "$(work replace running '"d1"' null)"
look 1 "$OTHER" "$(work replace finished '"d1"' "$ended")"
waits 0 replace --yes --wait "$NAME" /data/d1 "$WORK/new"
grep -q 'd1 is REPLACING' "$WORK/err" || fail "it does not say that it waits: $(cat "$WORK/err")"
grep -q '^replace d1: 50 B of 100 B' "$WORK/err" || fail "replace: $(cat "$WORK/err")"
grep -q 'finished$' "$WORK/err" || fail "replace: $(cat "$WORK/err")"

echo "its name is another disk's, and there are tasks of before"
looks_begin
look 1 "$ONLINE"
look 2 "$REPLACING" "$(work replace stopped '"d1"' "$ended")"
look 1 "$(disk d1 eeff ONLINE)" "$(work replace finished '"d1"' "$ended" 2),$(work replace stopped '"d1"' "$ended")"
waits 0 replace --yes --wait "$NAME" d1 "$WORK/new"

echo "what could not be moved"
looks_begin
look 1 "$ONLINE"
look 2 "$(disk d1 aabb REMOVING)"
look 1 "$OTHER" "$(work remove finished '"d1"' "$ended" 0 3)"
waits 3 remove --yes --wait "$NAME" d1

echo "cancelled, before there is a task"
looks_begin
look 1 "$ONLINE"
look 2 "$REPLACING"
look 1 "$ONLINE"
waits 1 replace --yes --wait "$NAME" d1 "$WORK/new"
grep -q 'replace was ended: d1 is ONLINE' "$WORK/err" || fail "cancelled: $(cat "$WORK/err")"

echo "a disk that is put online"
looks_begin
look 1 "$(disk d1 aabb OFFLINE),$OTHER"
look 6 "$HEALING,$OTHER"
look 2 "$HEALING,$OTHER" "$(work heal running null null)"
look 1 "$ONLINE,$OTHER" "$(work heal running '"d1"' null)"
look 1 "$ONLINE,$OTHER" "$(work heal finished null "$ended")"
waits 0 online --wait "$NAME" d1
grep -q '^heal: 50 B of 100 B' "$WORK/err" || fail "online: $(cat "$WORK/err")"
looks_begin
look 1 "$(disk d1 aabb OFFLINE)"
look 2 "$(disk d1 aabb REPLACING false)"
look 1 "$REPLACING"
waits 0 online --wait "$NAME" d1
looks_begin
look 1 "$(disk d1 aabb OFFLINE)"
look 2 "$HEALING"
look 1 "$(disk d1 aabb FAILED)"
waits 1 online --wait "$NAME" d1
grep -q 'd1 is FAILED' "$WORK/err" || fail "failed again: $(cat "$WORK/err")"

echo "a status that names no disks is no sign that one has gone"
looks_begin
look 1 "$ONLINE"
look 2 "$REPLACING"
look 1 "$ONLINE"
answer '{"status":{}}' | tee "$WORK/looks/status.$LOOKS" >"$WORK/looks/status"
waits 1 replace --yes --wait "$NAME" d1 "$WORK/new"
