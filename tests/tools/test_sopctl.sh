#!/bin/bash
# sopctl: volumes by all their names, what status says and counts, exit codes, words and help.
. "$(dirname "$0")/../fs/functions.sh"
requires jq

status() {
	"$SOPCTL" status --json "$NAME" | jq -r "$1"
}

# Every verb has help, says what it takes, and refuses what it does not.
"$SOPCTL" --help >"$WORK/help"
VERBS=$(sed -n 's/^  \([a-z]*\)  .*/\1/p' "$WORK/help")
[ "$(wc -w <<<"$VERBS")" -ge 12 ] || fail "verbs: $VERBS"
for v in $VERBS; do
	"$SOPCTL" "$v" --help >"$WORK/help"
	grep -q "^usage: sopctl $v" "$WORK/help" || fail "$v --help"
	expect_exit 2 "$SOPCTL" "$v" --no-such-option
	[ "$v" = status ] || expect_exit 2 "$SOPCTL" "$v"
done
expect_exit 2 "$SOPCTL"
expect_exit 2 "$SOPCTL" fly
expect_exit 4 "$SOPCTL" status no-such-volume
expect_says 'no-such-volume'
expect_exit 3 "$SOPCTL" status --check no-such-volume
[ "$("$SOPCTL" status)" = 'no volume is mounted' ] || fail "status without any volume"
expect_exit 4 "$SOPCTL" status "$WORK"
expect_says "$WORK"

# One that is not mounted, by a member folder.
new_volume 4 2+2 -L "$NAME"
"$SOPCTL" status "$WORK/d2" >"$WORK/out"
grep -q 'state: NOT MOUNTED$' "$WORK/out" || fail "unmounted: $(cat "$WORK/out")"
assert_eq "$(grep -c PRESENT "$WORK/out")" 4 "disks present"
expect_exit 3 "$SOPCTL" status --check "$WORK"
if [ "$(id -u)" = 0 ]; then
	expect_exit 6 setpriv --reuid 65534 --regid 65534 --clear-groups "$SOPCTL" status "$WORK/d2"
	expect_says 'Permission denied'
fi
mkdir "$WORK/"$'odd\xfe'
"$MKFS" -q "$WORK/"$'odd\xfe'
assert_eq "$("$SOPCTL" status --json "$WORK/"$'odd\xfe' | jq -r '.disks[0].path_hex')" \
	"$(printf %s "$WORK/"$'odd\xfe' | od -An -v -tx1 | tr -d ' \n')" "a path that is no text"
mv "$WORK/d3" "$WORK/away"
assert_eq "$("$SOPCTL" status --json "$WORK/d2" | jq -r '[.disks[].state] | join(",")')" \
	PRESENT,PRESENT,MISSING,PRESENT "a disk is away"
expect_exit 2 "$SOPCTL" status --check "$WORK/d2"
mv "$WORK/d4" "$WORK/away4"
mv "$WORK/d1" "$WORK/away1"
expect_exit 7 "$SOPCTL" status "$WORK/d2"
mv "$WORK/away" "$WORK/d3"
mv "$WORK/away4" "$WORK/d4"
mv "$WORK/away1" "$WORK/d1"

# Mounted: by mount point, label, UUID and its beginning, member folder; relative, with dots, by a link.
mount_volume
UUID=$(status .volume.uuid)
ln -s "$MNT" "$WORK/link"
for name in "$MNT" "$MNT/" "$WORK/./x/../mnt" "$NAME" "$UUID" "${UUID:0:8}" "${UUID^^}" "$WORK/d3" "$WORK/link"; do
	assert_eq "$("$SOPCTL" status --json "$name" | jq -r .volume.uuid)" "$UUID" "$name"
done
(cd "$WORK" && "$SOPCTL" sync mnt && cd d1 && "$SOPCTL" sync .)
expect_exit 0 "$SOPCTL" status --check "$NAME"
grep -q "^OK: $NAME ONLINE" "$WORK/out" || fail "--check: $(cat "$WORK/out")"
assert_eq "$("$SOPCTL" status -x)" 'all volumes are healthy' "-x"

# The three forms agree, and the counts are what happened.
assert_eq "$(status .version)" 1 "version"
C0=$(status .sessions.committed)
for i in 1 2 3 4 5; do
	echo "$i" >"$MNT/f$i"
done
mkdir "$MNT/dir"
assert_eq "$(($(status .sessions.committed) - C0))" 5 "sessions committed"
assert_eq "$(status .volume.items)" 6 "items"
exec 5<>"$MNT/f1" 6<>"$MNT/f1"
assert_eq "$(status .sessions.open)" 2 "sessions open"
read -r _ <&5
read -r _ <&6
echo a >&5
echo b >&6 2>"$WORK/err" || true
assert_eq "$(status .sessions.conflicts)" 1 "conflicts"
exec 5>&- 6>&- || true
assert_eq "$(status .sessions.open)" 0 "sessions open"
"$SOPCTL" sync "$NAME"
for path in .sessions .volume .commits .space.segments .state .disks[].state; do
	assert_eq "$(jq -c "$path" "$MNT/.sop/status.json")" \
		"$("$SOPCTL" status --json "$MNT" | jq -c "$path")" "status.json and the socket, $path"
done
# Others use the disks, too: what is free may change from one look to the next.
texts_agree() {
	"$SOPCTL" status "$NAME" | grep -v ' up ' >"$WORK/text"
	grep -v ' up ' "$MNT/.sop/status" | diff "$WORK/text" - >"$WORK/diff"
}
wait_until 20 texts_agree || fail "the texts differ: $(cat "$WORK/diff")"
metric() {
	sed -n "s/^sopfs_$1{[^}]*} //p" "$MNT/.sop/metrics"
}
assert_eq "$(metric sessions_committed_total)" "$(status .sessions.committed)" "metric"
assert_eq "$(metric items)" 6 "metric items"
assert_eq "$(metric healthy)" 1 "metric healthy"
assert_eq "$(grep -c '^sopfs_disk_state{.*ONLINE' "$MNT/.sop/metrics")" 4 "metric disk_state"
# df and status say the same.
sizes_agree() {
	[ "$(($(stat -f -c '%b * %S' "$MNT")))" = "$(($(status .space.total_bytes) / 4096 * 4096))" ]
}
wait_until 20 sizes_agree || fail "df and status differ in size"

# Colour on a terminal alone, and not with NO_COLOR. Names do not reach the terminal as they are.
on_terminal() {
	script -qec "$*" /dev/null </dev/null
}
if command -v script >/dev/null; then
	export TERM=xterm
	on_terminal "$SOPCTL" status "$NAME" | grep -q $'\033\[32mONLINE' || fail "no colour on a terminal"
	! NO_COLOR=1 on_terminal "$SOPCTL" status "$NAME" | grep -q $'\033' || fail "colour with NO_COLOR"
fi
! "$SOPCTL" status "$NAME" | grep -q $'\033' || fail "colour in a file"

# fstab, stores.
assert_eq "$("$SOPCTL" fstab "$NAME")" "$SOURCE  $MNT  sopfs  nofail,x-systemd.mount-timeout=5min  0 0" fstab
mkdir "$MNT/dir/sub"
touch "$MNT/dir/sub/"{a,b,c}
assert_eq "$("$SOPCTL" store list --json "$MNT/dir" | jq -c '[.path, .items, .session]')" \
	"[\"$MNT/dir/sub\",3,\"close\"]" "store list"
"$SOPCTL" store info "$MNT/dir" | grep -q 'items: 1$' || fail "store info"
expect_exit 4 "$SOPCTL" store info "$WORK"

# Dangerous verbs ask; nobody is there to answer.
expect_exit 2 "$SOPCTL" offline "$NAME" d1 </dev/null
expect_says '--yes'
expect_exit 2 "$SOPCTL" scrub --rate=fast "$NAME"
expect_exit 2 "$SOPCTL" scrub --pause --stop "$NAME"
expect_exit 2 "$SOPCTL" scrub --speed=1M "$NAME"
expect_says 'sopctl scrub: '
if [ "$(id -u)" = 0 ]; then
	chmod 755 "$SOPFS_RUN_DIR"
	expect_exit 6 setpriv --reuid 65534 --regid 65534 --clear-groups "$SOPCTL" sync "$NAME"
fi
# Where nobody reads on, or nothing can be written, that is told.
(cd "$MNT/dir" && touch n{1..300})
expect_exit 1 sh -c "'$SOPCTL' dump '$NAME' >/dev/full"
expect_says 'standard output: '
# A word that is no text is no word less.
expect_exit 2 "$SOPCTL" clear "$NAME" $'\xff'
expect_says 'no such disk'
expect_exit 2 "$SOPCTL" events --kind=$'\xff' "$NAME"
expect_says 'no such kind'
(cd "$WORK" && expect_exit 0 "$SOPCTL" clear "$NAME" ./d1)
# One that holds the mount point could be mounted there no more.
for what in "add $NAME" "replace $NAME d1"; do
	# shellcheck disable=SC2086 # words
	expect_exit 1 "$SOPCTL" $what "$WORK" --force --yes
	expect_says "holds $MNT"
done
# A folder that is not there: what to do about it.
for folder in "$WORK/none" "$WORK/none/deeper" ./none; do
	for what in "replace $NAME d1" "add $NAME"; do
		# shellcheck disable=SC2086 # words
		expect_exit 1 "$SOPCTL" $what "$folder"
		expect_says 'none' 'no such folder; make it, or mount the drive that belongs there'
	done
done

unmount_volume
check_volume

# Whoever may not ask is not told that there is nothing.
if [ "$(id -u)" = 0 ]; then
	mount_volume noallow_other
	expect_exit 6 setpriv --reuid 65534 --regid 65534 --clear-groups "$SOPCTL" status
	expect_says 'as root'
	expect_exit 3 setpriv --reuid 65534 --regid 65534 --clear-groups "$SOPCTL" status --check
	grep -q UNKNOWN "$WORK/out" || fail "--check: $(cat "$WORK/out")"
	unmount_volume
fi

# A mount whose daemon is dead says what to do.
mount_volume
kill -9 "$PID"
wait_gone "$PID"
for verb in status fstab; do
	expect_exit 4 "$SOPCTL" $verb "$MNT"
	expect_says 'daemon of this mount is dead; mount again'
done
mount_volume
unmount_volume
check_volume

# Names that fstab, JSON, Prometheus and the terminal have their own ideas about.
ODD=$WORK/$(printf 'a b:c*\\\\"\033[31m')
mkdir -p "$ODD"
SOURCE=$ODD/d
"$MKFS" -q -f -L "$NAME-2" "$ODD/d" 2>/dev/null
"$SOPFS" "$(dirname "$ODD" | sed 's/:/\\:/g')/$(basename "$ODD" | sed 's/[:\\]/\\&/g')/d" "$MNT" -o "log=$LOG"
"$SOPCTL" status "$MNT" >"$WORK/out"
! grep -q $'\033' "$WORK/out" || fail "an escape in a path reaches the terminal"
touch "$MNT/"$'odd\033[31m'
! "$SOPCTL" info "$MNT/"odd* | grep -q $'\033' || fail "an escape in a file's name reaches the terminal"
assert_eq "$("$SOPCTL" status --json "$MNT" | jq -r '.disks[0].path')" "$ODD/d" "path in JSON"
"$SOPCTL" fstab "$MNT" >"$WORK/fstab"
unmount_volume
! "$SOPCTL" status "$ODD/d" | grep -q $'\033' || fail "an escape in a path of a label reaches the terminal"
read -r from to _ <"$WORK/fstab"
"$SOPFS" "$(printf '%b' "$from")" "$(printf '%b' "$to")" -o "log=$LOG" ||
	fail "the line of fstab does not mount: $(cat "$WORK/fstab")"
unmount_volume
# A path that is no text does not come through the daemon as it is: no line that could not work.
RAW=$WORK/$(printf 'raw\377?')
mkdir -p "$RAW" "$WORK/q?"
"$MKFS" -q -f --ec 2+0 "$RAW/e1" "$RAW/e2" 2>/dev/null
mv "$RAW/e2" "$WORK/e2"
expect_exit 7 "$SOPCTL" status --json "$RAW/e1"
jq -e '.state == "NOT MOUNTED" and .health == "critical" and
	(.status // .status_hex | length > 0)' "$WORK/out" >/dev/null || fail "--json: $(cat "$WORK/out")"
"$MKFS" -q -f -L "$NAME-3" "$RAW/d" 2>/dev/null
"$SOPCTL" fstab "$RAW/d" | grep -qF "$(printf '\377')" || fail "the labels have it"
"$SOPFS" "${RAW//\?/\\?}/d" "$MNT" -o "log=$LOG"
"$SOPCTL" status "$RAW/d" | grep -q 'state: ONLINE' || fail "not found by its folder: $("$SOPCTL" status "$RAW/d")"
expect_exit 1 "$SOPCTL" fstab "$MNT"
expect_says 'raw\?\?/d: ' 'while it is not mounted'
[ ! -s "$WORK/out" ] || fail "a line all the same"
unmount_volume
"$MKFS" -q -f -L "$NAME-4" "$WORK/q?/d" 2>/dev/null
"$SOPFS" "$WORK/q\\?/d" "$MNT" -o "log=$LOG"
expect_exit 0 "$SOPCTL" fstab "$MNT"
unmount_volume

# A disk's name is one, though a folder of that name lies here that is another disk. One that has gone is told of
# no more, nor named in fstab.
mkdir "$WORK/x" "$WORK/x/"{a,b,d1,new}
"$MKFS" -q -f -L "$NAME-5" --ec 2+1 "$WORK/x/a" "$WORK/x/b" "$WORK/x/d1" 2>/dev/null
"$SOPFS" "$WORK/x/a" "$MNT" -o "log=$LOG"
(cd "$WORK/x" && expect_exit 0 "$SOPCTL" replace --yes --force --wait "$NAME-5" d1 new)
unmount_volume
expect_exit 0 "$SOPCTL" status "$WORK/x/b"
assert_eq "$(grep -c PRESENT "$WORK/out") $(grep -c MISSING "$WORK/out")" "3 0" "disks after one was replaced"
! "$SOPCTL" fstab "$WORK/x/b" | grep -q "$WORK/x/a" || fail "fstab names a folder that is no member any more"
