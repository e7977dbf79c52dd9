#!/bin/bash
# Includes go one way: fs -> core, mount-helpers -> core, tests -> all; core never includes FUSE; fs and
# mount-helpers name the engine by its public face alone; within core no cycles, lower tiers only.
set -u
cd "$(dirname "$0")/../.." || exit 2
bad=0

say() {
	echo "$*" >&2
	bad=1
}

# What sop.h itself offers, and six that hold no engine: the frame of the control socket, for both of its
# ends, figures as people read them, a count of what was written, where a volume is
# as users say it, hexadecimal digits, and mount points.
face='sop|mounters|err|log|id|clock|range|key|base|format_volume|admin|peek|events|ctlsock|human|written|source|hex|mountpoint|stdfds'

while IFS=: read -r file line text; do
	inc=$(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]\([^">]*\)[">].*/\1/p' <<<"$text")
	case $file in
	core/*)
		case $inc in
		fuse*) say "$file:$line: core includes FUSE ($inc)" ;;
		fs/* | mount-helpers/* | tests/*) say "$file:$line: core includes an upper layer ($inc)" ;;
		esac
		;;
	fs/* | mount-helpers/*)
		case $inc in
		core/*)
			[[ $inc =~ ^core/($face)\.h$ ]] ||
				say "$file:$line: only core/sop.h and what it includes: not $inc"
			;;
		tests/*) say "$file:$line: includes a test's header ($inc)" ;;
		esac
		;;
	esac
	# Our own headers are named from the root.
	if grep -q 'include[[:space:]]*"' <<<"$text" && [[ $inc != */* ]]; then
		say "$file:$line: include \"$inc\" from the root of the tree"
	fi
done < <(grep -nE '^[[:space:]]*#[[:space:]]*include' -r core fs mount-helpers --include='*.[ch]')

# Cycles among headers: tsort says which.
cycles=$(grep -oE '^#include "[^"]+"' -r core fs --include='*.h' | sed 's/:#include "/ /; s/"$//' |
	tsort 2>&1 >/dev/null | grep -v 'input contains a loop' | sed 's/^tsort: -: *//; s/^tsort: *//')
if [ -n "$cycles" ]; then
	say "headers include each other in a circle: $(tr '\n' ' ' <<<"$cycles")"
fi

if [ "$bad" = 0 ]; then
	echo "layers: ok"
fi
exit $bad
