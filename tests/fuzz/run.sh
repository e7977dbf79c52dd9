#!/bin/bash
# tests/fuzz/run.sh TARGET...: each for FUZZ_SECONDS (60), JOBS at a time, from the corpus in the tree. What is
# found is kept in the build folder, and the command to see it again is printed.
set -eu
cd "$(dirname "$0")/../.."
export FUZZ_SECONDS=${FUZZ_SECONDS:-60} ROOT=${BUILD:-build/fuzz}/fuzz-runs
export UBSAN_OPTIONS=print_stacktrace=1 ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1}
mkdir -p "$ROOT"

one() {
	local target=$1 name dir log
	name=$(basename "$target")
	dir=$ROOT/$name
	log=$ROOT/$name.log
	mkdir -p "$dir/corpus"
	[ -n "$(ls "tests/fuzz/corpus/$name")" ] || {
		echo "FAIL  fuzz/$name has no corpus: make fuzz-seeds"
		return 1
	}
	if "$target" -max_total_time="$FUZZ_SECONDS" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
		-artifact_prefix="$dir/" -max_len=16384 "$dir/corpus" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
		echo "ok    fuzz/$name: $(sed -n 's/stat::number_of_executed_units: *//p' "$log") inputs"
		return 0
	fi
	tail -n 40 "$log"
	echo "FAIL  fuzz/$name; again: $target $(find "$dir" -maxdepth 1 -type f | head -1)"
	return 1
}
export -f one

# shellcheck disable=SC2016
printf '%s\0' "$@" | xargs -0 -n 1 -P "${JOBS:-2}" bash -c 'one "$0"'
