#!/bin/bash
# clang-format, shellcheck, codespell, and the compiler that is not the default one. A tool that is
# missing is named and passed over; CI installs them all (make deps-lint).
set -u
cd "$(dirname "$0")/../.." || exit 2
bad=0

have() {
	command -v "$1" >/dev/null 2>&1 && return 0
	echo "$1: not installed, passed over"
	return 1
}

mapfile -t sources < <(find core fs mount-helpers tests -name '*.c' | sort)
mapfile -t scripts < <(grep -rlE '^#!/bin/(ba)?sh' tests packaging .ci | sort)

# Releases of clang-format differ in their results; the tree follows 14.
format=$(command -v clang-format-14 || command -v clang-format)
if [ -n "$format" ] && "$format" --version | grep -q 'version 14'; then
	if "$format" --dry-run -Werror "${sources[@]}"; then
		echo "clang-format: ok"
	else
		bad=1
	fi
else
	echo "clang-format 14: not installed, passed over"
fi

if have shellcheck; then
	if shellcheck -x -P SCRIPTDIR -e SC2119 "${scripts[@]}" tests/mounts.sh tests/fs/{functions,disks,redis}.sh; then
		echo "shellcheck: ok"
	else
		bad=1
	fi
fi

if have codespell; then
	if codespell -L te,fo,ba,sop,inout,nd,statics core fs mount-helpers tests packaging Makefile README.md .ci; then
		echo "codespell: ok"
	else
		bad=1
	fi
fi

if have clang; then
	if out=$(make -k -s -j"$(nproc)" CC=clang WERROR=1 BUILD="${BUILD:-build}/clang" all tests 2>&1); then
		echo "clang, warnings as errors: ok"
	else
		grep -vE '^  [A-Z]+ ' <<<"$out" | head -60
		bad=1
	fi
fi

exit $bad
