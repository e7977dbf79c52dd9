#!/bin/bash
# Following commits by .sop/events and sopctl events: each one, in order, whatever the reader does, and the
# mount does not mind him.
. "$(dirname "$0")/functions.sh"
requires jq

new_volume 2 1+1 -L "$NAME"
mount_volume
EVENTS=$MNT/.sop/events

# A reader that stands before and one in tiny pieces; four writers.
cat "$EVENTS" >"$WORK/events" &
reader=$!
dd if="$EVENTS" of="$WORK/pieces" bs=7 2>/dev/null &
pieces=$!
"$SOPCTL" events --follow --json --kind=commit "$NAME" >"$WORK/socket" &
socket=$!
is_following() {
	[ "$("$SOPCTL" events --json "$NAME" | wc -l)" -ge 1 ] && echo x >"$MNT/probe" &&
		[ -s "$WORK/events" ] && [ -s "$WORK/pieces" ] && [ -s "$WORK/socket" ]
}
wait_until 20 is_following || fail "no reader gets anything"
for w in 1 2 3 4; do
	mkdir "$MNT/w$w"
	(for i in $(seq 100); do
		echo "$i" >"$MNT/w$w/f$i"
	done) &
	writers[w]=$!
done
wait "${writers[@]}"
mv "$MNT/w1/f1" "$MNT/w2/moved"
rm "$MNT/w3/f3"
printf 'x' >"$MNT/$(printf 'not\377utf8')"
echo end >"$MNT/end"
all_there() {
	grep -q '"key":"end"' "$1" && ! tail -c 1 "$1" | grep -q .
}
for f in events pieces socket; do
	wait_until 20 all_there "$WORK/$f" || fail "$f has no end"
	jq -e . "$WORK/$f" >/dev/null || fail "$f is not JSON"
	jq -s '[.[].lsn] | . == sort' "$WORK/$f" | grep -q true || fail "$f: not in order"
	assert_eq "$(jq -r 'select(.kind == "created" and (.key // "" | test("^f[0-9]+$"))) | .key' "$WORK/$f" |
		wc -l)" 400 "$f: files created"
	assert_eq "$(jq -rs '[.[] | select(.key == "moved" or (.key == "f1" and .kind == "removed"))] |
		map(.lsn) | unique | length' "$WORK/$f")" 1 "$f: a rename is one commit"
	assert_eq "$(jq -r 'select(.key == "f3" and .kind == "removed") | .store' "$WORK/$f")" \
		"$(stat -c %i "$MNT/w3")" "$f: directory of a removal"
	grep -q '"key_hex":"6e6f74ff75746638"' "$WORK/$f" || fail "$f: a name that is no text"
done
diff <(tail -n 200 "$WORK/events") <(tail -n 200 "$WORK/pieces") || fail "pieces differ"
diff <(tail -n 200 "$WORK/events") <(tail -n 200 "$WORK/socket") || fail "the socket's differ"
kill "$reader" "$pieces" "$socket"
wait "$reader" "$pieces" "$socket" 2>/dev/null || true

# More readers that wait than there are threads; the mount serves on. A signal ends each.
for i in $(seq 30); do
	cat "$EVENTS" >"$WORK/r$i" &
	readers[i]=$!
done
have_all() {
	echo x >"$MNT/probe"
	for i in $(seq 30); do
		[ -s "$WORK/r$i" ] || return 1
	done
}
wait_until 30 have_all || fail "thirty readers are not all served"
kill -INT "${readers[@]}" # ignored by background jobs of a shell
kill "${readers[@]}"
wait "${readers[@]}" 2>/dev/null || true
echo still >"$MNT/served"
# Nothing to read, and not to wait: EAGAIN. It cannot be sought, written, and is the owner's alone.
expect_exit 1 dd if="$EVENTS" iflag=nonblock of=/dev/null
grep -qi 'temporarily unavailable' "$WORK/err" || fail "not EAGAIN: $(cat "$WORK/err")"
! (echo x >"$EVENTS") 2>/dev/null || fail "events can be written"
if [ "$(id -u)" = 0 ]; then
	! setpriv --reuid 65534 --regid 65534 --clear-groups cat "$EVENTS" 2>/dev/null ||
		fail "others read names of all directories"
fi

# A session that comes to nothing is told, and kept.
exec 5<>"$MNT/served"
read -r _ <&5
echo other >"$MNT/served"
echo mine >&5
exec 5>&- || true
"$SOPCTL" events --json --kind=session "$NAME" | grep -q '"path":"/served","code":"SOP_ECONFLICT"' || fail "the conflict is not among the events"
"$SOPCTL" events "$NAME" | grep -q 'session  /served: SOP_ECONFLICT' || fail "nor in the text"
expect_exit 1 "$SOPCTL" events --kind=weather "$NAME"

# A reader keeps the mount busy as any open file; the daemon can be ended all the same.
cat "$EVENTS" >"$WORK/last" 2>/dev/null &
last=$!
"$SOPCTL" events --follow --json "$NAME" >"$WORK/last.socket" 2>/dev/null &
last_socket=$!
wait_until 20 sh -c "echo x >'$MNT/probe'; [ -s '$WORK/last' ]" || fail "the last reader"
ended() {
	! kill -TERM "$PID" 2>/dev/null || wait_gone "$PID" 1
}
wait_until 30 ended || fail "a waiting reader keeps the daemon"
wait "$last" || true
wait "$last_socket" || true
check_volume
