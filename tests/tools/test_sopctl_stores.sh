#!/bin/bash
# sopctl ec, store and txn: profiles are added and listed, stores made with all their options or not at all,
# and a transaction that a program has prepared is found and ended under a mount, which shows what it wrote.
. "$(dirname "$0")/../fs/functions.sh"
requires jq getfattr

attr() {
	getfattr --absolute-names --only-values -n "$2" "$1"
}

names() {
	find "$1" -mindepth 1 -printf '%f\n' | sort | paste -sd,
}

ids() {
	"$SOPCTL" txn list --json "$NAME" | jq -r .id
}

new_volume 4 2+2 -L "$NAME"
mount_volume
mkdir "$MNT/bank"
echo 100 >"$MNT/bank/giro"
echo 5 >"$MNT/bank/other"

# ---- ec ----
assert_eq "$("$SOPCTL" ec list --json "$NAME" | jq -r '"\(.name) \(.data_shards)+\(.parity_shards) \(.all_disks)"')" \
	'default 2+2 true' "profiles of a new volume"
expect_exit 0 "$SOPCTL" ec add "$NAME" films 1+1 --disks "d3,$WORK/d4" --no-repair
expect_exit 0 "$SOPCTL" ec add "$NAME" wide 3+1 --json
[ ! -s "$WORK/out" ] || fail "--json: $(cat "$WORK/out")"
assert_eq "$("$SOPCTL" ec list --json "$NAME" |
	jq -r 'select(.name == "films") | "\(.data_shards)+\(.parity_shards) \(.repair) \(.all_disks) \(.disks | join(","))"')" \
	'1+1 false false d3,d4' "a profile on two disks"
"$SOPCTL" ec list "$NAME" >"$WORK/out"
grep -qE '^films +1\+1 +off .* d3,d4$' "$WORK/out" || fail "ec list: $(cat "$WORK/out")"
grep -qE '^wide +3\+1 +on .* all$' "$WORK/out" || fail "ec list: $(cat "$WORK/out")"
expect_exit 1 "$SOPCTL" ec add "$NAME" films 2+1
expect_says "$NAME" 'films' '1\+1 already'
expect_exit 1 "$SOPCTL" ec add "$NAME" big 4+2
expect_says 'needs 6 disks'
expect_exit 1 "$SOPCTL" ec add "$NAME" far 1+1 --disks d1,d9
expect_says 'd9'
for bad in 2 +2 2+ 2+x 0+1 2+2x 256+1 -1+2; do
	expect_exit 2 "$SOPCTL" ec add "$NAME" bad -- "$bad"
done
expect_exit 2 "$SOPCTL" ec add "$NAME" bad 1+1 --disks d1,,d2
expect_exit 2 "$SOPCTL" ec list "$NAME" --no-repair
expect_exit 2 "$SOPCTL" ec drop "$NAME"
expect_exit 2 "$SOPCTL" ec add "$NAME"
expect_exit 4 "$SOPCTL" ec list no-such-volume
assert_eq "$("$SOPCTL" ec list --json "$NAME" | wc -l)" 3 "profiles after refusals"

# ---- store ----
s=$MNT/store
expect_exit 0 "$SOPCTL" store create "$s" --key int64 --duplicates --slot-length 100 --value medium --ec films \
	--balance --cache hot --session write --note 'by number'
assert_eq "$(for a in key unique balance slot_length value cache ec session note; do attr "$s" sop.$a && echo; done | paste -sd/)" \
	'int64/0/1/100/medium/hot/films/write/by number' "options of a store"
# Free space is that of what a directory's files are written with.
room_of() { # PROFILE MEMBER
	"$SOPCTL" ec list --json "$NAME" | jq -r --arg p "$1" --arg m "$2" 'select(.name == $p) | .[$m]'
}
df_of() { # DIR FIELD
	df -B1 --output="$2" "$1" | tail -n 1 | tr -d ' '
}
mkdir "$MNT/wide" # the name is the profile's
echo x >"$MNT/wide/file"
for place in ":default" "store:films" "wide:wide" "wide/file:wide"; do
	assert_eq "$(df_of "$MNT/${place%:*}" size)" "$(($(room_of "${place#*:}" total_bytes) / 4096 * 4096))" "df of $place"
done
[ "$(df_of "$MNT/wide" size)" -gt "$(df_of "$MNT" size)" ] || fail "3+1 holds no more than 2+2"
rm -r "$MNT/wide"
"$SOPCTL" store info "$s" >"$WORK/out"
grep -q 'node: 100, balanced$' "$WORK/out" || fail "store info: $(cat "$WORK/out")"
grep -q 'keys: int64, duplicates$' "$WORK/out" || fail "store info: $(cat "$WORK/out")"
assert_eq "$("$SOPCTL" store info --json "$s" | jq -r '"\(.key) \(.duplicates) \(.balance) \(.value) \(.cache) \(.note) \(.ec) \(.slot_length)"')" \
	'int64 true true medium hot by number films 100' "store info --json"
assert_eq "$("$SOPCTL" store create --json "$MNT/map" --key json:age:desc,name | jq -r .key)" \
	"$(attr "$MNT/map" sop.key)" "store create --json"
# All or nothing.
for bad in --key=int65 --slot-length=1 --value=huge --ec=no-such --session=never --cache=warm; do
	expect_exit 1 "$SOPCTL" store create "$MNT/none" --note x "$bad"
	expect_says "$MNT/none" "${bad%%=*}"
	[ ! -e "$MNT/none" ] || fail "$bad leaves a directory"
done
expect_exit 4 "$SOPCTL" store create "$WORK/elsewhere" --note x
[ ! -e "$WORK/elsewhere" ] || fail "a directory is left outside the volume"
expect_exit 1 "$SOPCTL" store create "$s"
expect_says 'exists' 'store set'
[ -d "$s" ] || fail "one that was there is gone"
expect_exit 1 "$SOPCTL" store create "$MNT/no/such"
expect_exit 0 "$SOPCTL" store create "$MNT/plain"
# Changed: while empty, and later what is no shape.
expect_exit 0 "$SOPCTL" store set "$MNT/plain" --key string --session close
assert_eq "$(attr "$MNT/plain" sop.key)" string "store set"
: >"$MNT/plain/item"
expect_exit 1 "$SOPCTL" store set "$MNT/plain" --key int64
expect_says 'must be empty'
expect_exit 1 "$SOPCTL" store set "$MNT/plain" --balance
expect_says 'must be empty'
expect_exit 0 "$SOPCTL" store set "$MNT/plain" --note later --cache cold
assert_eq "$(attr "$MNT/plain" sop.cache)" cold "the cache class of a store with items"
assert_eq "$(attr "$MNT/plain" sop.note)" later "a note of a store with items"
expect_exit 2 "$SOPCTL" store set "$MNT/plain"
expect_exit 2 "$SOPCTL" store info "$MNT/plain" --note x
expect_exit 2 "$SOPCTL" store drop "$MNT/plain"
expect_exit 4 "$SOPCTL" store set "$WORK" --note x

# ---- txn ----
assert_eq "$(ids)" '' "nothing is prepared"
expect_exit 1 "$SOPCTL" txn commit "$NAME" 12345
expect_says "$NAME" 'no prepared transaction 12345' 'txn list'
expect_exit 2 "$SOPCTL" txn commit "$NAME" first
expect_exit 2 "$SOPCTL" txn commit "$NAME"
expect_exit 2 "$SOPCTL" txn list "$NAME" 1
expect_exit 4 "$SOPCTL" txn forget "$NAME" 1 # a mount, and a command
expect_exit 4 "$SOPCTL" txn list no-such-volume

# prepare STORE VALUE KEY...: each by a program of its own that ends without an answer; IDS.
prepare() {
	local store=$1 value=$2
	shift 2
	unmount_volume
	IDS=()
	for key; do
		IDS+=("$("$BUILD/examples/prepare" "$store" "$key" "$value" "${DISKS[@]}")") || fail "prepare $key"
	done
	mount_volume
}

prepare bank 42 giro new other
assert_eq "$(ids | paste -sd,)" "$(IFS=, && echo "${IDS[*]}")" "those that are prepared"
assert_eq "$("$SOPCTL" txn list --json "$NAME" | jq -r '"\(.items > 0) \(.note)"' | sort -u)" \
	'true half of a transfer' "what they are"
"$SOPCTL" txn list "$NAME" >"$WORK/out"
grep -qE "^ *${IDS[0]}  [0-9-]+T[0-9:.]+Z +[0-9]+  half of a transfer$" "$WORK/out" || fail "txn list: $(cat "$WORK/out")"

# The kernel caches what there was, and what there was not; a reader goes on with what he opened.
assert_eq "$(cat "$MNT/bank/giro") $(cat "$MNT/bank/other")" '100 5' "before"
[ ! -e "$MNT/bank/new" ] || fail "it is there before the commit"
assert_eq "$(names "$MNT/bank")" giro,other "the list before"
# What it holds nobody else may write.
expect_exit 1 dd if=/dev/zero of="$MNT/bank/giro" bs=1 count=1 conv=notrunc,fsync status=none
grep -q 'resource busy' "$WORK/err" || fail "no EBUSY: $(cat "$WORK/err")"
assert_eq "$(cat "$MNT/bank/giro")" 100 "after a write that was refused"
exec 7<"$MNT/bank/giro"
expect_exit 0 "$SOPCTL" txn commit "$NAME" "${IDS[0]}"
expect_exit 0 "$SOPCTL" txn commit "$NAME" "${IDS[1]}" --json
expect_exit 0 "$SOPCTL" txn rollback "$NAME" "${IDS[2]}"
assert_eq "$(cat "$MNT/bank/giro")" 42 "committed: a value"
assert_eq "$(cat "$MNT/bank/new")" 42 "committed: a new item"
assert_eq "$(cat "$MNT/bank/other")" 5 "rolled back"
assert_eq "$(names "$MNT/bank")" giro,new,other "the list afterwards"
assert_eq "$(cat <&7)" 100 "one who had it open"
exec 7<&-
assert_eq "$(ids)" '' "all are ended"
expect_exit 1 "$SOPCTL" txn rollback "$NAME" "${IDS[0]}"
# Typed keys: names are not what the tree has.
"$SOPCTL" store create "$MNT/ints" --key int64
echo old >"$MNT/ints/-7"
echo old >"$MNT/ints/8"
prepare ints new -7 10
CHANGED=("${IDS[@]}")
unmount_volume
CHANGED+=("$("$BUILD/examples/prepare" ints 8 '' "${DISKS[@]}")")
mount_volume
assert_eq "$(cat "$MNT/ints/-7" "$MNT/ints/8" | paste -sd,)" old,old "before"
[ ! -e "$MNT/ints/10" ] || fail "it is there before the commit"
names "$MNT/ints" >"$WORK/out"
for id in "${CHANGED[@]}"; do
	expect_exit 0 "$SOPCTL" txn commit "$NAME" "$id"
done
assert_eq "$(cat "$MNT/ints/-7") $(cat "$MNT/ints/10")" 'new new' "typed keys"
[ ! -e "$MNT/ints/8" ] || fail "what was removed is still there"
assert_eq "$(names "$MNT/ints")" -7,10 "typed names"

# More items than what commits tell of themselves is kept for: the kernel forgets what it has of all.
many() {
	find "$MNT/many" -type f -exec cat {} + | sort | uniq -c | tr -s ' '
}
"$SOPCTL" store create "$MNT/many"
for value in one two; do
	unmount_volume
	IDS=("$("$BUILD/examples/prepare" -n 9000 many item "$value" "${DISKS[@]}")")
	mount_volume
	many >"$WORK/before"
	expect_exit 0 "$SOPCTL" txn commit "$NAME" "${IDS[0]}"
	assert_eq "$(many)" " 9000 $value" "after the commit of many items"
done
assert_eq "$(cat "$WORK/before")" ' 9000 one' "before the second commit"

# A name that is no text, in JSON: in hexadecimal.
ODD=$MNT/odd/$'s\n"\xfe'
mkdir -p "$ODD"
echo 12345 >"$ODD/f"
assert_eq "$("$SOPCTL" store list --json "$MNT/odd" | jq -r .path_hex)" \
	"$(printf %s "$ODD" | od -An -v -tx1 | tr -d ' \n')" "store list of a name that is no text"
assert_eq "$("$SOPCTL" info --json "$ODD/f" | jq -rc '[.size, .path_hex]')" \
	"[6,\"$(printf %s "$ODD/f" | od -An -v -tx1 | tr -d ' \n')\"]" "info of a name that is no text"
"$SOPCTL" info "$ODD/f" | grep -q ', 6 bytes' || fail "info of a name that is no text"
expect_exit 1 "$SOPCTL" info "$ODD/none"
expect_says 'No such file'

# Nothing holds others off any more; and it is so after a crash.
echo 43 >"$MNT/bank/giro"
echo 6 >"$MNT/bank/other"
sync "$MNT/bank/giro" "$MNT/bank/other"
kill_daemon
mount_volume
assert_eq "$(tail -qn+1 "$MNT"/bank/{giro,new,other} | tr '\n' ,)" 43,426, "after a crash"
assert_eq "$("$SOPCTL" ec list --json "$NAME" | jq -r .name | paste -sd,)" default,films,wide "profiles after a crash"
unmount_volume
check_volume
