#!/bin/bash
# libsop as programs meet it: the examples do what they say; installed, it is found by pkg-config, and an
# example is built against it, shared and static; the header is C++ as well; the shared library shows what
# the headers declare, under a version, and nothing else.
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$top" && realpath -m "${BUILD:-build}")
work=$(mktemp -d "${TMPDIR:-/tmp}/sopfs-test.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# says PROGRAM ARGS... with what is on stdin.
says() {
	local want got
	want=$(cat)
	got=$("$@") || fail "$*: exit code $?"
	[ "$got" = "$want" ] || fail "$*: says
$got
and not
$want"
}

mkdir d1 d2 d3 d4
"$build/mkfs.sopfs" -q -f --ec 2+2 --ec films=1+1@"$work/d3,$work/d4" d1 d2 d3 d4 2>/dev/null
disks=("$work"/d?)

for _ in 1 2; do
	says "$build/examples/barstore" "${disks[@]}" <<<'barstoreec: 1 item, 1 = foo'
done
says "$build/examples/people" "${disks[@]}" <<'END'
the first two:
{"age":19,"country":"at","name":"Franz"}: skis
{"age":72,"country":"de","name":"Pauline"}: paints
from Germany:
{"age":72,"country":"de","name":"Pauline"}
{"age":45.5,"country":"de","name":"Ottilie"}
{"age":30,"country":"de","name":"Emil"}
END
says "$build/examples/film" 12 "${disks[@]}" <<'END'
metropolis: 12582912 bytes, in the middle: fCUTg
the cut stored less than 64 KiB: yes
END
says "$build/examples/transfer" "${disks[@]}" <<<'400 transfers, 400000 cents in all'
"$build/examples/check_volume" "${disks[@]}" >check 2>&1 || fail "check: $(cat check)"

# The profile that bears the store's name holds its values: of d3 and d4 either alone is enough for them.
mv d4 gone
"$build/examples/check_volume" "$work/d1" >check 2>&1 || true
grep -q 'does not open\|is lost' check && fail "one of two mirrors is gone: $(cat check)"
mv gone d4

# ---- installed ----

make -s -C "$top" BUILD="$build" PREFIX=/usr DESTDIR="$work/root" install >install.log 2>&1 ||
	fail "install: $(tail -5 install.log)"
export PKG_CONFIG_PATH=$work/root/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$work/root
cflags=$(pkg-config --cflags libsop) || fail "pkg-config"
libs=$(pkg-config --libs libsop)
sanitize=
case $build in
*/asan) sanitize=-fsanitize=address,undefined ;;
*/tsan) sanitize=-fsanitize=thread ;;
esac
# shellcheck disable=SC2086
gcc -std=gnu17 -Wall -Wextra -Werror $sanitize $cflags -o shared "$top/tests/examples/barstore.c" $libs
LD_LIBRARY_PATH=$work/root/usr/lib says ./shared "${disks[@]}" <<<'barstoreec: 1 item, 1 = foo'
# shellcheck disable=SC2086
if static=$(pkg-config --static --libs libsop 2>/dev/null); then
	gcc -std=gnu17 $sanitize $cflags -o static "$top/tests/examples/barstore.c" \
		-Wl,-Bstatic -lsop -Wl,-Bdynamic ${static//-lsop/} -L"$work/root/usr/lib"
	says ./static "${disks[@]}" <<<'barstoreec: 1 item, 1 = foo'
fi
if command -v g++ >/dev/null; then
	# shellcheck disable=SC2086
	g++ -Wall -Wextra -Werror $sanitize $cflags -o lines "$top/tests/examples/lines.cc" $libs
	got=$(printf 'one\ntwo\nthree\n' | LD_LIBRARY_PATH=$work/root/usr/lib ./lines text/lines "${disks[@]}") ||
		fail "the C++ program"
	[ "$got" = $'2: three\n1: two\n0: one' ] || fail "the C++ program says $got"
	rc=0
	LD_LIBRARY_PATH=$work/root/usr/lib ./lines barstoreec/1 "${disks[@]}" </dev/null 2>err || rc=$?
	[ "$rc" = 1 ] || fail "a store below an item: exit code $rc: $(cat err)"
else
	echo "no g++: the header was not tried in C++"
fi

nm -D --defined-only "$work/root/usr/lib/libsop.so.0" >symbols
grep -qE ' sop_kv_add@@SOP_0$' symbols || fail "sop_kv_add has no version"
if grep -vE ' (A SOP_0|[TRDBV] sop_[a-z0-9_]+@@SOP_0)$' symbols | grep .; then
	fail "symbols that no header declares"
fi
grep -q ' sop_stores_view' symbols && fail "the inside shows"
echo "libsop: ok"
