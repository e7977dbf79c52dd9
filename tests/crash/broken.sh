#!/bin/bash
# The crash enumeration notices broken programs: ones whose syncs are not done, or done too late, by the
# simulated disks. That it passes with the real one shows nothing otherwise.
set -eu
cd "$(dirname "$0")/../.."
engine=${BUILD:-build}/crash/crash_engine
rules=0

for rule in $("$engine" --broken list); do
	rules=$((rules + 1))
	if out=$("$engine" --broken "$rule" --points 10000 --per-sequence 20 2>&1); then
		echo "$out"
		echo "FAILED: a program with $rule passes"
		exit 1
	fi
	grep -q "again: " <<<"$out" || {
		echo "$out"
		echo "FAILED: $rule ended without a point to look at"
		exit 1
	}
	echo "$rule: caught after $(sed -n 's/^crash_engine: \([0-9]*\) crash points.*/\1/p' <<<"$out") points"
done
[ "$rules" -ge 12 ]
