#!/bin/bash
# What a reader would stumble over, told from the text alone.
set -u
cd "$(dirname "$0")/../.." || exit 2
bad=0
dirs=()
for d in core fs mount-helpers tests packaging; do
	[ -d "$d" ] && dirs+=("$d")
done

# forbid PATTERN WHY [grep option...]
forbid() {
	local pattern=$1 why=$2 hits
	shift 2
	hits=$(grep -nE "$pattern" -r "${dirs[@]}" "$@" | grep -v '^tests/lint/')
	if [ -n "$hits" ]; then
		printf '%s\n' "$hits" | sed "s/\$/  <- $why/" >&2
		bad=1
	fi
}

c=(--include='*.c' --include='*.h')
forbid '^typedef struct' 'no typedef for structs' "${c[@]}"
all=("${dirs[@]}")
dirs=(core fs mount-helpers)
forbid '\b(strcat|sprintf|gets)\(' 'unbounded' "${c[@]}"
dirs=("${all[@]}")
forbid '(TODO|FIXME)' 'finish it, or put it in the issue tracker' "${c[@]}" --include='*.sh'
forbid '(^|[ (])#[0-9]+|(^|[^a-z])issue [0-9]+' 'no ticket numbers in comments' "${c[@]}"
forbid '[[:space:]]+$' 'blank at the end of a line' "${c[@]}" --include='*.sh' --include='*.md'
forbid '^ {8}' 'indent by tabs' --include='*.c'

for f in core/*.h fs/*.h tests/lib/*.h; do
	[ -e "$f" ] || continue
	grep -qE '^#ifndef [A-Z0-9_]+_H$' "$f" || {
		echo "$f: no include guard" >&2
		bad=1
	}
done

# The tests that the list of scenarios names: "test_x.c `name`, `name`".
# shellcheck disable=SC2016
while read -r file name; do
	grep -qF "$name" "tests/unit/$file" || {
		echo "tests/SCENARIOS.md: tests/unit/$file has no test '$name'" >&2
		bad=1
	}
done < <(grep '^|' tests/SCENARIOS.md | grep -oE 'test_[a-z_]+\.c|`[^`]+`' |
	awk '/^test_/ { file = $0; next } !/^`tests\// { gsub(/`/, ""); print file, $0 }')

# The tests and images that the page of the disk format names: names of tests are long, with underscores.
# shellcheck disable=SC2016
while read -r name; do
	grep -rqE "\b$name\b" tests core --include='*.[ch]' || {
		echo "core/DISK-FORMAT.md: there is no '$name'" >&2
		bad=1
	}
done < <(grep -oE '`[a-z0-9]+(_[a-z0-9]+){4,}`' core/DISK-FORMAT.md | tr -d '\`' | sort -u)
# shellcheck disable=SC2016
for n in $(grep -oE '^\|.*\| `?[0-9]{3}`.*\|$' core/DISK-FORMAT.md | grep -oE '`0[0-9]{2}`' | tr -d '\`' | sort -u); do
	[ -e "$(echo tests/images/"$n"-*/expected)" ] || {
		echo "core/DISK-FORMAT.md: there is no image $n" >&2
		bad=1
	}
done

# -march=native would make the packages of one machine useless on another.
if grep -nE 'march=native' Makefile; then
	echo "Makefile: never -march=native" >&2
	bad=1
fi

if [ "$bad" = 0 ]; then
	echo "sources: ok"
fi
exit $bad
