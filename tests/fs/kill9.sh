#!/bin/bash
# The daemon is killed (SIGKILL) at random moments of a storm of creates and rewrites: after a new mount
# every file whose close() had returned is there, whole; nothing is torn.
. "$(dirname "$0")/functions.sh"

rounds=8
[ -z "$LONG" ] || rounds=100
new_volume 4 2+2

# One file's content is its name, over and over; its length depends on the number. So a torn or mixed
# file is seen for what it is.
content() { # NAME NUMBER
	yes "$1" | head -c $((1 + $2 * 7919 % 70000))
}

# Writes files until the mount dies; a name goes to done.ID after its close() has returned: the
# redirection closes before the next command runs.
writer() { # ID ROUND
	local n=0 f
	cd "$MNT" # of this mount: the path will lead to another
	while :; do
		f=r$2.w$1.$n
		content "$f" "$n" >"$f" || return 0
		echo "$f $n" >>"$WORK/done.$1"
		# One name that is rewritten all the time: some whole version, not older than the last done.
		echo "$2 $n $(yes x | head -c $((n * 37 % 9000)) | tr -d '\n') end" >"same.$1" || return 0
		echo "$2 $n" >"$WORK/same.$1"
		n=$((n + 1))
	done
} 2>/dev/null

verify() {
	local f n w round last have_round have_n
	for w in 1 2 3; do
		[ -e "$WORK/done.$w" ] || continue
		while read -r f n; do
			[ -e "$MNT/$f" ] || fail "$f was closed, and is gone"
			content "$f" "$n" | cmp -s - "$MNT/$f" || fail "$f is not whole"
		done <"$WORK/done.$w"
		[ -e "$WORK/same.$w" ] || continue
		read -r round last <"$WORK/same.$w"
		read -r have_round have_n _ <"$MNT/same.$w"
		[ "$have_round" -gt "$round" ] || [ "$have_n" -ge "$last" ] ||
			fail "same.$w is at $have_round $have_n, but $round $last was closed"
		grep -q ' end$' "$MNT/same.$w" || fail "same.$w is torn"
	done
	# What was not closed is absent or whole.
	for f in "$MNT"/r*; do
		[ -e "$f" ] || continue
		n=${f##*.}
		content "${f##*/}" "$n" | cmp -s - "$f" || fail "${f##*/} is torn"
	done
}

for ((r = 1; r <= rounds; r++)); do
	mount_volume "commit=$((RANDOM % 1000 + 1))ms,checkpoint=$((RANDOM % 2000 + 100))ms"
	writers=()
	for w in 1 2 3; do
		writer $w $r &
		writers+=($!)
	done
	sleep "$((RANDOM % 2)).$((RANDOM % 1000 + 1000))"
	kill_daemon
	for w in "${writers[@]}"; do
		wait "$w" || true
	done
	echo "round $r: $(cat "$WORK"/done.* | wc -l) files were closed"
	mount_volume
	verify
	rm -f "$MNT"/r* "$WORK"/done.*
	unmount_volume
done
[ "$r" -gt 1 ]
check_volume
