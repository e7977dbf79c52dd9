#!/bin/bash
# sopctl import: lines of keys and values become a store as SOP has one; what is wrong in a line is named, and
# what went in before it stays, in whole transactions.
. "$(dirname "$0")/../fs/functions.sh"
# shellcheck source=tests/fs/disks.sh
. "$(dirname "$0")/../fs/disks.sh"
requires jq getfattr cc

import() { # CODE STORE [ARG...]: from standard input
	local code=$1 store=$2
	shift 2
	expect_exit "$code" "$SOPCTL" import "$SOURCE" "$store" "$@"
}
attr() {
	getfattr --absolute-names --only-values -n "sop.$2" "$MNT/$1"
}

new_volume 4 2+2 -L "$NAME"
seq 2500 | jq -c '{key: (. - 1000), value: "v\(.)"}' >"$WORK/numbers"
import 0 shop/orders --key int64 --slot-length 100 --value small --balance --note 'from SOP' <"$WORK/numbers"
assert_eq "$(cat "$WORK/out")" "shop/orders: 2500 items" "what import says"
# Once more, some with other values: into the store as it is.
head -n 3 "$WORK/numbers" | jq -c '.value = {new: .key}' >"$WORK/again"
expect_exit 0 "$SOPCTL" import "$SOURCE" shop/orders "$WORK/again" --json
assert_eq "$(jq -c . "$WORK/out")" '{"version":1,"items":3}' "--json"
jq -nc '{key: "a/b", value: "slash"}, {key: ("k" * 400), value: "long"}, {key: "n", value_hex: "00ff"},
	{key: "b", value_base64: "AP8="}, {key: "null", value: null}, {key: "", value: ""}' |
	import 0 words --key string
jq -nc '{key: {b: 1, a: "x"}, value: 1.5}, {key: {a: "y", b: 2}, value: [1, 2]}' | import 0 maps --key json:b:desc
jq -nc '{key: 1.5, value: "x"}, {key: 2, value: "y"}' | import 0 floats --key float64
jq -nc '{key: 7, value: "one"}, {key: 7, value: "two"}' | import 0 many --key int64 --duplicates
jq -nc '{key_hex: "6162", value: "bytes"}' | import 0 plain

mount_volume
assert_eq "$(attr shop/orders count) $(attr shop/orders key) $(attr shop/orders slot_length) $(attr shop/orders value) $(attr shop/orders balance) $(attr shop/orders note)" \
	"2500 int64 100 small 1 from SOP" "the store"
assert_eq "$(cat "$MNT/shop/orders/-999") $(cat "$MNT/shop/orders/1500")" '{"new":-999} v2500' "items"
assert_eq "$(cat "$MNT"/words/{n,b} | od -An -tx1 | xargs)" "00 ff 00 ff" "bytes"
assert_eq "$(cat "$MNT/words/null")" null "a null"
assert_eq "$(attr words count)" 6 "keys that are no file names are items too"
assert_eq "$(find "$MNT/maps" -mindepth 1 -printf '%f\n' | paste -sd' ')" '{"a":"y","b":2} {"a":"x","b":1}' "maps, by their index"
assert_eq "$(cat "$MNT/maps/{\"a\":\"x\",\"b\":1}" "$MNT/floats/2" "$MNT/plain/ab")" "1.5ybytes" "items"
assert_eq "$(cat "$MNT/many/7" "$MNT/many/7#2")" "onetwo" "a key twice"

# ---- refused ----
import 5 plain </dev/null
expect_says 'in use|mounted'
unmount_volume
sed '1500s/.*/{"key":"no number","value":1}/' "$WORK/numbers" >"$WORK/bad"
expect_exit 1 "$SOPCTL" import "$SOURCE" broken "$WORK/bad" --key int64
grep -q "bad:1500: .*no int64" "$WORK/err" || fail "the line is not named: $(cat "$WORK/err")"
grep -q "^sopctl: 1000 items are in the store" "$WORK/err" || fail "what is in: $(cat "$WORK/err")"
for line in '' 'no json' '[]' '{"key":1}' '{"value":1}' '{"key":1,"value_hex":"0"}' '{"key":1,"value_base64":"?"}' \
	'{"key":1,"key":2,"value":3}' '{"key":99999999999999999999,"value":1}'; do
	import 1 broken <<<"$line"
done
import 1 shop/orders --key string </dev/null
expect_says 'keys of type int64, not string'
import 2 x --key integer </dev/null
import 2 x --value huge </dev/null
import 2 x --slot-length=x </dev/null
import 1 x --ec nowhere </dev/null
expect_exit 4 "$SOPCTL" import "$WORK/mnt" x </dev/null

echo "no memory for a line is not the end of the lines"
cat >"$WORK/getline.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>

/* What getline() is, inline. */
ssize_t __getdelim(char **line, size_t *size, int end, FILE *f)
{
	static int calls;
	ssize_t (*real)(char **, size_t *, int, FILE *) =
		(ssize_t (*)(char **, size_t *, int, FILE *))dlsym(RTLD_NEXT, "__getdelim");

	if (f == stdin && ++calls == 1500) {
		errno = ENOMEM;
		return -1;
	}
	return real(line, size, end, f);
}

ssize_t getline(char **line, size_t *size, FILE *f)
{
	return __getdelim(line, size, '\n', f);
}
C
cc -shared -fPIC -O1 -o "$WORK/getline.so" "$WORK/getline.c" -ldl
expect_exit 1 env ASAN_OPTIONS="verify_asan_link_order=0:${ASAN_OPTIONS:-}" LD_PRELOAD="$WORK/getline.so" \
	"$SOPCTL" import "$SOURCE" short --key int64 <"$WORK/numbers"
expect_says 'memory' '1000 items are in the store'
mount_volume
assert_eq "$(attr broken count)" 1000 "items before the line that is wrong"
assert_eq "$(attr short count)" 1000 "items before there was no memory"
unmount_volume
check_volume

echo "what has not reached the disks is not said to be in the store"
mkdir "$WORK/back" "$WORK/faulty"
faulty_disk "$WORK/back" "$WORK/mode" "$WORK/faulty"
"$MKFS" -q --ec 1+0 "$WORK/faulty"
# More than a pipe holds: the volume is open when all is written.
seq 10000 | jq -c '{key: ., value: "the value of \(.)"}' >"$WORK/more"
{
	cat "$WORK/more"
	echo eio-fsync >"$WORK/mode"
} | expect_exit 1 "$SOPCTL" import "$WORK/faulty" numbers --key int64
expect_says 'items were put in.* is not known'
