#!/bin/bash
# What the documents call by name is there: files and folders, functions, the files of the map in CONTRIBUTING.md,
# the targets of make, the tests.
# shellcheck disable=SC2016 # backticks are of the text
set -u
cd "$(dirname "$0")/../.." || exit 2
bad=0

say() {
	echo "$*" >&2
	bad=1
}

documents=(README.md CONTRIBUTING.md CHANGELOG.md core/DISK-FORMAT.md core/SHARED.md fs/SEMANTICS.md tests/SCENARIOS.md)
sources=$(mktemp)
trap 'rm -f "$sources"' EXIT
cat core/*.[ch] fs/*.[ch] mount-helpers/*.[ch] tests/lib/*.[ch] >"$sources"

# `sop_x()` and `sopfs_y()` are functions; followed by (`file`), that is where they are defined.
while IFS=: read -r document name file; do
	grep -qE "\b$name\(" "$sources" || say "$document: there is no function $name()"
	[ -z "$file" ] || grep -qE "^([a-z].*[ *])?$name\(" "$file" 2>/dev/null || say "$document: $name() is not in $file"
done < <(for d in "${documents[@]}"; do
	tr '\n' ' ' <"$d" | grep -oE '`[a-z0-9_]+\(\)`( \(`[^`]+`)?' |
		sed -E "s|^\`([a-z0-9_]+)\(\)\`( \(\`([^\`]+)\`)?|$d:\1:\3|"
done)

# `core/file.c`: as it is, or as a pattern.
while IFS=: read -r document path; do
	compgen -G "$path" >/dev/null || say "$document: there is no $path"
done < <(grep -oHE '`(core|fs|mount-helpers|tests|packaging)/[A-Za-z0-9_.*/-]+`' "${documents[@]}" | tr -d '`')

# The map: words before five blanks name files, with or without their end.
folder=
while IFS= read -r line; do
	case $line in
	'    core/ '*) folder=core ;;
	'    fs/ '*) folder=fs ;;
	'    mount-helpers/ '*) break ;;
	esac
	[ -n "$folder" ] || continue
	read -ra words < <(sed -nE 's/^ {6}.{14}(([a-z_0-9*]+ ?)+)(     .*)?$/\1/p' <<<"$line")
	for word in "${words[@]}"; do
		compgen -G "$folder/$word.[ch]" >/dev/null || say "CONTRIBUTING.md: the map has $folder/$word, the tree has not"
	done
done < <(sed -n '/^## The map/,/^## /p' CONTRIBUTING.md)
[ "$folder" = fs ] || say "CONTRIBUTING.md: the map is not to be found"

# make TARGET, at the beginning of an indented line or between backticks.
while IFS=: read -r document target; do
	grep -qE "^([a-z-]+ )*$target( [a-z-]+)*:" Makefile || say "$document: there is no make $target"
done < <(grep -oHE '(^    |`|; |\| )make [a-z][a-z-]*' README.md CONTRIBUTING.md | sed -E 's/:.*make /:/' | sort -u)

[ "$bad" = 0 ] && echo "documents: ok"
exit $bad
