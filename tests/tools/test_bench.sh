#!/bin/bash
# The benchmark runs, at a size that measures nothing: every case gives a figure, the JSON is one, a wrong
# content is noticed. How fast anything was is not looked at.
# shellcheck source=tests/fs/functions.sh
. "$(dirname "$0")/../fs/functions.sh"
requires jq sqlite3 git

drive=$BUILD/bench/drive
BENCH_DIR=$WORK SYSTEMS='sopfs bare floor' FILES=40 MIB=4 TREE=32 TOUCHES=40 ROUNDS=1 SCALE=1000 IMAGE_SIZE=1G \
	"$TOP/tests/bench/bench.sh" --json "$WORK/bench.json" >"$WORK/bench.text" 2>"$WORK/bench.log" ||
	fail "$(tail -5 "$WORK/bench.log")"
for s in sopfs bare floor; do
	for c in create create-4proc create-16proc create-fsync create-fsync-4proc create-fsync-16proc stat \
		read-warm overwrite append rename list-cold read-cold unlink untar cp-r grep-r-cold grep-r-warm rm-rf \
		git-clone git-status sqlite stream-write stream-read-cold stream-read-warm random-read-cold \
		random-write items-1000 names-1000 list-1000; do
		jq -e --arg c "$c" --arg s "$s" '.cases[] | select(.case == $c) | .values[$s] > 0' \
			"$WORK/bench.json" >"$WORK/true" || fail "no figure of $c on $s"
		grep -q "^$c " "$WORK/bench.text" || fail "$c is not in the table"
	done
done
for c in read-healthy read-degraded mount-after-crash mount; do
	jq -e --arg c "$c" '.cases[] | select(.case == $c) | .values.sopfs > 0' "$WORK/bench.json" \
		>"$WORK/true" || fail "no figure of $c"
done
[ -z "$(find "$WORK" -maxdepth 1 -name 'bench.??????')" ] || fail "it leaves something behind"

# The work checks what it reads.
mkdir "$WORK/w"
"$drive" create "$WORK/w" 3 4096 >/dev/null
"$drive" read "$WORK/w" 3 4096 >/dev/null
printf x | dd of="$WORK/w/f00000001" bs=1 seek=4000 conv=notrunc status=none
"$drive" read "$WORK/w" 3 4096 2>/dev/null && fail "a wrong byte is not noticed"
"$drive" write "$WORK/s" 1 >/dev/null
"$drive" rwrite "$WORK/s" 1 5 >/dev/null
"$drive" rcheck "$WORK/s" 1 5 >/dev/null
"$drive" sread "$WORK/s" 1 2>/dev/null && fail "what was written over is not noticed"
"$drive" append "$WORK/l" 3 >/dev/null
"$drive" appended "$WORK/l" 3 >/dev/null
"$drive" appended "$WORK/l" 2 2>/dev/null && fail "a line too many is not noticed"
exit 0
