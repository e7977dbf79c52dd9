#!/bin/bash
# sopctl dump and load: what a dump says is what is there, as of one moment; a volume made from it says the
# same again; what is cut off, is no dump, or leads elsewhere is refused; and neither holds up an unmount.
. "$(dirname "$0")/../fs/functions.sh"
requires_root
requires jq setfattr getfattr setfacl setpriv

# What a dump says beside what load can give back.
essence() {
	jq -S 'select(.path or .path_hex) | del(.inode, .version, .ctime, .birth, .stored)' "$@"
}
dump() {
	"$SOPCTL" dump "$MNT" "$@"
}

# ---- a volume of all there is ----
new_volume 4 2+2 -L "$NAME"
mount_volume
"$SOPCTL" ec add "$NAME" films 1+1
cd "$MNT"
mkdir -p dir/sub empty "dir/a b"
echo content >dir/file
ln dir/file dir/sub/again
head -c 3000 /dev/urandom >binary
: >nothing
ln -s /nowhere/at/all link
ln -s ../dir dir/sub/loop
mkfifo fifo
mknod device c 1 7
printf x >$'name \xff\n'
for i in $(seq 135); do : >"empty/$i"; done
setfattr -n user.note -v 'words' dir/file
setfattr -n user.binary -v 0x00ff10 dir
setfattr -n trusted.root -v yes link -h
setfacl -m u:7:rwx dir/file
setfacl -d -m u:8:rx dir
chown 5:6 dir dir/file
chown -h 7:8 link
chmod 4755 binary
chmod 1777 empty
chmod 0 nothing
chmod 0500 dir
"$SOPCTL" store create typed --key json:name:desc --slot-length 100 --value medium --ec films --cache hot \
	--session write --note 'by name' --balance
echo 1 >'typed/{"name":"ann"}'
"$SOPCTL" store create many --key int64 --duplicates
echo 2 >many/-17
touch -d '2001-02-03 04:05:06.789012345' dir dir/file
touch -d '1960-01-01' empty
touch -h -d '2222-02-02' link
cd /
dump --contents=64k >"$WORK/first"
assert_eq "$(jq -r 'select(.end) | "\(.names) \(.errors)"' "$WORK/first")" \
	"$(($(find "$MNT" -printf . | wc -c))) 0" "names, and errors"
assert_eq "$(jq -r 'select(.path == "dir/file") | "\(.type) \(.mode) \(.uid):\(.gid) \(.mtime) \(.content)"' "$WORK/first")" \
	"file 0674 5:6 2001-02-03T04:05:06.789012345Z content" "a file in the dump"
dump | jq -e 'select(has("content"))' && fail "contents in a dump without --contents"
expect_exit 2 "$SOPCTL" dump "$MNT" --contents=2M
expect_exit 4 "$SOPCTL" dump no-such-volume

# ---- it is one moment ----
# More than pipe and sockets hold comes first, so that the rest is not read yet when it changes.
mkdir "$MNT/0"
for i in $(seq 40); do head -c 60000 /dev/zero | tr '\0' x >"$MNT/0/$i"; done
dump --contents=64k >"$WORK/first"
mkfifo "$WORK/pipe"
dump --contents=64k >"$WORK/pipe" &
reader=$!
exec 7<"$WORK/pipe"
read -r _ <&7
cp -a "$MNT/dir" "$WORK/dir.kept"
mv "$MNT/empty" "$MNT/renamed"
rm -r "$MNT/typed" "$MNT/dir/sub"
echo later >"$MNT/later"
cat <&7 >"$WORK/second"
exec 7<&-
wait "$reader"
diff <(essence "$WORK/first") <(essence "$WORK/second") ||
	fail "a dump is of one moment: < before, > while it changed"
unmount_volume

# ---- another volume from it ----
for d in "${DISKS[@]}"; do mv "$d" "$d.first"; done
new_volume 4 2+2
mount_volume
"$SOPCTL" ec add "$MNT" films 1+1
expect_exit 0 "$SOPCTL" load --json "$MNT" "$WORK/first" --dry-run
assert_eq "$(jq -c .names "$WORK/out")" "$(jq -s '.[-1].names' "$WORK/first")" "a dry run in JSON"
expect_exit 0 "$SOPCTL" load "$MNT" "$WORK/first" --dry-run
assert_eq "$(find "$MNT" -mindepth 1)" "" "after a dry run"
expect_exit 0 "$SOPCTL" load "$MNT" "$WORK/first"
dump --contents=64k >"$WORK/third"
diff <(essence "$WORK/first") <(essence "$WORK/third") || fail "< what was dumped, > what was loaded"
[ "$(stat -c %i "$MNT/dir/file")" = "$(stat -c %i "$MNT/dir/sub/again")" ] || fail "a link became a copy"
# Once more changes nothing; from a pipe; what has another owner, more attributes or times gets its own again.
setfattr -n user.more -v x "$MNT/dir/file"
setfacl -b "$MNT/dir/file"
chown 9:9 "$MNT/binary"
touch "$MNT/empty"
"$SOPCTL" load "$MNT" --json <"$WORK/first" >"$WORK/out"
assert_eq "$(jq -c . "$WORK/out")" \
	'{"version":1,"made":0,"set":'"$(find "$MNT" -printf . | wc -c)"',"missing":0,"errors":0}' "the second load"
diff <(essence "$WORK/first") <(dump --contents=64k | essence) || fail "after the second load"

# ---- all of it or nothing ----
rm -r "$MNT/dir" "$MNT/typed" "$MNT/link"
before=$(dump | essence)
expect_exit 1 "$SOPCTL" txn "$MNT" -- sh -c "'$SOPCTL' load '$MNT' '$WORK/first' && false"
[ "$before" = "$(dump | essence)" ] || fail "a load that was rolled back has changed something"
expect_exit 0 "$SOPCTL" txn "$MNT" -- "$SOPCTL" load "$MNT" "$WORK/first"
diff <(essence "$WORK/first" | jq -S 'select(.type != "directory")') \
	<(dump --contents=64k | essence | jq -S 'select(.type != "directory")') || fail "loaded in one transaction"
expect_exit 0 "$SOPCTL" load "$MNT" "$WORK/first"

# ---- without the contents ----
cp -a "$MNT/binary" "$WORK/binary"
rm "$MNT/binary" "$MNT/dir/file" "$MNT/dir/sub/again"
jq -c 'del(.content, .content_hex)' "$WORK/first" >"$WORK/plain"
expect_exit 3 "$SOPCTL" load "$MNT" "$WORK/plain" -v
for wanted in 'binary: is not there' 'in 3 files .* put it back from a backup'; do
	grep -q "$wanted" "$WORK/err" || fail "what is missing: $(cat "$WORK/err")"
done
cat "$WORK/binary" >"$MNT/binary"
printf 'content\n' >"$MNT/dir/file"
printf 'content\n' >"$MNT/dir/sub/again"
expect_exit 0 "$SOPCTL" load "$MNT" "$WORK/plain"
assert_eq "$(stat -c '%a %u:%g' "$MNT/binary")" "4755 0:0" "attributes of what was put back"

# ---- refused ----
head -n -1 "$WORK/first" >"$WORK/cut"
before=$(dump | essence)
expect_exit 1 "$SOPCTL" load "$MNT" "$WORK/cut"
expect_says 'cut' 'cut off'
for bad in '' '{}' '{"sopfs_dump":2}' 'no json'; do
	printf '%s\n' "$bad" >"$WORK/bad"
	expect_exit 1 "$SOPCTL" load "$MNT" "$WORK/bad"
done
for path in /etc/x ../x dir/../../x dir//x dir/ ./x ''; do
	{
		head -n 1 "$WORK/first"
		jq -nc --arg p "$path" '{path: $p, type: "file", mode: "0644", size: 0}'
		tail -n 1 "$WORK/first"
	} >"$WORK/bad"
	expect_exit 1 "$SOPCTL" load "$MNT" "$WORK/bad"
done
[ "$before" = "$(dump | essence)" ] || fail "what is refused has changed something"
# Through a symbolic link to the outside, made by the dump itself or there already.
mkdir -p "$WORK/outside/deeper"
echo safe >"$WORK/outside/safe"
{
	head -n 1 "$WORK/first"
	jq -nc --arg t "$WORK/outside" '{path: "out", type: "symlink", mode: "0777", target: $t}'
	jq -nc '{path: "out/new", type: "file", mode: "0644", size: 0},
		{path: "out/deeper/new", type: "file", mode: "0644", size: 0},
		{path: "out/safe", type: "file", mode: "0777", uid: 9, size: 5},
		{path: "out", type: "directory", mode: "0777", uid: 9}'
	tail -n 1 "$WORK/first"
} >"$WORK/bad"
expect_exit 3 "$SOPCTL" load "$MNT" "$WORK/bad"
grep -q 'out: is there already, and something else' "$WORK/err" || fail "a link that is no directory: $(cat "$WORK/err")"
assert_eq "$(cd "$WORK/outside" && find . -type f -printf '%P %U %m\n')" "safe 0 644" "outside of the volume"
# A mode or an owner that says nothing is refused, and not taken for 0.
for bad in '{}' '{mode: 420}' '{mode: ""}' '{mode: "rw"}' '{mode: "10000"}' '{mode: "0644", uid: "9"}' '{mode: "0644", gid: -1}'; do
	{
		head -n 1 "$WORK/first"
		jq -nc "{path: \"modeless\", type: \"file\", size: 0} + $bad"
		tail -n 1 "$WORK/first"
	} >"$WORK/bad"
	expect_exit 1 "$SOPCTL" load "$MNT" "$WORK/bad"
	grep -q 'bad:2: is no line of a dump' "$WORK/err" || fail "$bad: $(cat "$WORK/err")"
	[ ! -e "$MNT/modeless" ] || fail "$bad: was made"
done
# A name that cannot be opened is told, as one that cannot be made is.
{
	head -n 1 "$WORK/first"
	jq -nc '{path: ("x" * 300), type: "file", mode: "0644", uid: 0, gid: 0, size: 0}'
	tail -n 1 "$WORK/first"
} >"$WORK/bad"
expect_exit 3 "$SOPCTL" load "$MNT" "$WORK/bad"
grep -q 'xxx: opening it: File name too long' "$WORK/err" || fail "a name that is too long: $(cat "$WORK/err")"
expect_exit 4 "$SOPCTL" load "$WORK" "$WORK/first"
expect_exit 1 "$SOPCTL" load "$MNT" "$WORK/no-such-file"
expect_exit 6 setpriv --reuid 65534 --regid 65534 --clear-groups "$SOPCTL" dump "$MNT"

# ---- what cannot be read is told, and the rest is there ----
unmount_volume
new_volume 1 1+0 -f
mount_volume
mkdir "$MNT/d"
head -c 100000 /dev/urandom >"$MNT/d/lost"
echo fine >"$MNT/d/well"
unmount_volume
# The blob of the file alone: the tree lies in other segments.
python3 - "$WORK/d1" <<'PY'
import os, sys
for folder, _, files in os.walk(sys.argv[1]):
    for name in files:
        path = os.path.join(folder, name)
        if os.path.getsize(path) < 100000 or 'seg' not in folder + name:
            continue
        print('spoils', path)
        with open(path, 'r+b') as f:
            f.seek(50000)
            f.write(b'\xa5' * 4096)
PY
mount_volume
if cat "$MNT/d/lost" >/dev/null 2>&1; then fail "the file is not spoilt: this tests nothing"; fi
expect_exit 3 "$SOPCTL" dump "$MNT" --contents=1M
assert_eq "$(jq -r 'select(.error) | "\(.path) \(.code)"' "$WORK/out")" "d/lost SOP_ELOST" "what could not be read"
assert_eq "$(jq -r 'select(.path == "d/well").content' "$WORK/out")" fine "the rest"
assert_eq "$(dump | jq -r 'select(.path == "d/lost").size')" 100000 "its attributes"

# ---- a reader who has stopped keeps nobody up ----
mkdir "$MNT/0"
for i in $(seq 40); do head -c 60000 /dev/zero | tr '\0' x >"$MNT/0/$i"; done
dump --contents=64k >"$WORK/pipe" &
reader=$!
exec 7<"$WORK/pipe"
read -r _ <&7
unmount_volume
cat <&7 >/dev/null
exec 7<&-
wait "$reader" || true # cut off, unless sockets hold more here than they usually do
