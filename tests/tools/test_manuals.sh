#!/bin/bash
# The manuals say what --help says, no more and no less; every program and every mount option has its place
# in them; mandoc finds nothing to say about their form.
. "$(dirname "$0")/../fs/functions.sh"
requires mandoc python3

man=$TOP/mount-helpers/man

# Manuals of other packages need not be here.
if mandoc -T lint "$man"/*.[1-9] 2>&1 | grep -v -e 'referenced manual not found' -e 'outdated mandoc.db'; then
	fail "mandoc -T lint"
fi

# "-f", "--foreground": of --help, and of the lines ".It Fl f , -foreground" of a manual.
flags_of_help() {
	"$@" --help | grep -oE '(^| |,|\[)--?[a-zA-Z][a-zA-Z-]*' | tr -d ' ,[' | grep -E '^(--[a-z-]+|-[a-zA-Z])$' | sort -u
}
flags_of_manual() {
	sed -n 's/^\.It Fl //p' "$1" | tr ' ' '\n' |
		sed -n -e 's/^\(-[a-z][a-z-]*\)$/-\1/p' -e 's/^\([a-zA-Z]\)$/-\1/p' | sort -u
}

programs=(sopfs)
for f in "$BUILD"/*.sopfs "$BUILD/sopctl"; do
	[ ! -x "$f" ] || programs+=("${f##*/}")
done
for p in "${programs[@]}"; do
	[ -e "$man/$p.8" ] || fail "$p has no manual"
	flags_of_manual "$man/$p.8" >"$WORK/manual"
	[ "$p" != sopctl ] || continue
	flags_of_help "$BUILD/$p" >"$WORK/help"
	[ -s "$WORK/help" ] || fail "$p --help names no flag"
	if [ "$p" = sopfs ]; then
		# Those of mount.sopfs are told in a sentence.
		grep -vxE -e '-[snNtu]' "$WORK/help" >"$WORK/help.own"
		mv "$WORK/help.own" "$WORK/help"
	fi
	grep -vxF -f "$WORK/manual" "$WORK/help" && fail "$p.8 says nothing of these"
	grep -vxF -f "$WORK/help" "$WORK/manual" | grep -vx -e '-[stunN]' && fail "$p --help says nothing of these"
done

# sopctl: each verb of --help has its line in the manual, with the flags that its own --help tells; and the
# other way about.
"$BUILD/sopctl" --help | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p' | sort >"$WORK/verbs"
sed -n 's/^\.It Cm \([a-z-]*\).*/\1/p' "$man/sopctl.8" | sort -u | diff "$WORK/verbs" - ||
	fail "verbs of sopctl --help (<) and sopctl(8) (>) differ"
while read -r verb; do
	# -j of "--json" is no letter of its own; -h is everybody's.
	"$BUILD/sopctl" "$verb" --help | grep -oE '^ +(-[a-z], )?--[a-z-]+' | grep -oE -- '--[a-z-]+' |
		grep -v -e --help >"$WORK/help" || true
	line=$(grep "^\.It Cm $verb " "$man/sopctl.8")
	while read -r flag; do
		short=$("$BUILD/sopctl" "$verb" --help | sed -n "s/^ *-\([a-z]\), $flag .*/\1/p")
		grep -qE -- "Fl -(${flag#--})( |$)|Fl -?[a-z]*${short:-@}[a-z]* " <<<"$line" ||
			fail "sopctl(8) says nothing of $verb $flag"
	done <"$WORK/help"
done <"$WORK/verbs"

# Mount options: the table behind --help, the manual, and what the parser takes.
"$SOPFS" --help | sed -n '/^Options of -o/,$ s/^  \([a-z_]*=\{0,1\}[a-z]*\).*/\1/p' >"$WORK/options"
[ "$(wc -l <"$WORK/options")" -gt 15 ] || fail "--help lists no options"
sed -n 's/^\.It Cm //p' "$man/sopfs.8" | sed -e 's/ Ns = Ns \(Ar\|Cm\) /=/g' -e 's/ , /\n/g' \
	-e 's/=[A-Z]*$/=/' >"$WORK/documented"
diff <(sort "$WORK/options") <(sort "$WORK/documented") || fail "sopfs --help (<) and sopfs(8) (>) differ"
new_volume 2 1+1
while read -r option; do
	case $option in
	cache= | journal=) option+=64M ;;
	log=) option+=$WORK/log ;;
	redis* | lease= | ondown=*) continue ;; # of shared volumes
	*=) option+=5 ;;
	esac
	# -f of the helper: everything is checked, nothing is mounted.
	ln -sf "$SOPFS" "$WORK/mount.sopfs"
	expect_exit 0 "$WORK/mount.sopfs" -f "$SOURCE" "$MNT" -o "$option"
done <"$WORK/options"

# sopfs.conf(5): --dump-config prints keys the parser takes.
mkdir "$WORK/conf"
"$SOPFS" --dump-config "$SOURCE" "$MNT" -o "log=$WORK/log" >"$WORK/conf/name.conf"
export SOPFS_CONFIG_DIR=$WORK/conf
diff <("$SOPFS" --dump-config name) "$WORK/conf/name.conf" || fail "--dump-config does not come out the same"
# ... from anywhere.
mkdir "$WORK/c:1"
(cd "$WORK" && "$SOPFS" --dump-config "d1:$WORK/d2:c\\:1" mnt) >"$WORK/conf/name.conf"
grep -qxF "source = $WORK/d1:$WORK/d2:$WORK/c\\:1" "$WORK/conf/name.conf" || fail "source: $(cat "$WORK/conf/name.conf")"
grep -qxF "mountpoint = $MNT" "$WORK/conf/name.conf" || fail "mountpoint: $(cat "$WORK/conf/name.conf")"
diff <("$SOPFS" --dump-config name) "$WORK/conf/name.conf" || fail "--dump-config does not come out the same again"

# Every installed file of systemd is one that systemd understands.
if command -v systemd-analyze >/dev/null; then
	mkdir -p "$WORK/units"
	for u in "$TOP"/mount-helpers/systemd/*; do
		name=${u##*/}
		sed -e "s|@[S]*BINDIR@/[a-z.]*|/bin/true|" "$u" >"$WORK/units/${name/@/@tank}"
	done
	systemd-analyze verify --man=no "$WORK/units"/*.service "$WORK/units"/*.timer 2>"$WORK/verify" ||
		fail "$(cat "$WORK/verify")"
	! grep "$WORK/units" "$WORK/verify" || fail "systemd-analyze verify complains"
fi

# A volume's NAME may have a dash, of which %I makes a slash.
if command -v systemd-escape >/dev/null; then
	for u in "$TOP"/mount-helpers/systemd/*; do
		sed -e "s|%i|my-tank|g" -e "s|%I|$(systemd-escape -u my-tank)|g" "$u" >"$WORK/unit"
		! grep 'my/tank' "$WORK/unit" || fail "${u##*/} takes my-tank for another name"
		grep -q 'my-tank' "$WORK/unit" || fail "${u##*/} says nothing of my-tank: this tests nothing"
	done
fi

# What systemd makes of our lines of fstab.
generator=/usr/lib/systemd/system-generators/systemd-fstab-generator
if [ -x "$generator" ]; then
	cat >"$WORK/fstab" <<END
/data/d1:/data/d2:/data/d3:/data/d4 /pool sopfs nofail,x-systemd.mount-timeout=5min 0 0
tank /late sopfs noauto,nofail,x-systemd.automount,x-systemd.idle-timeout=10min 0 0
tank /net sopfs nofail,_netdev,x-systemd.wants=redis-server.service,x-systemd.after=redis-server.service 0 0
END
	mkdir "$WORK/generated"
	SYSTEMD_FSTAB=$WORK/fstab "$generator" "$WORK/generated" "$WORK/generated" "$WORK/generated"
	unit=$WORK/generated/pool.mount
	grep -qx 'What=/data/d1:/data/d2:/data/d3:/data/d4' "$unit" || fail "What= of pool.mount"
	grep -qx 'Type=sopfs' "$unit" || fail "Type= of pool.mount"
	grep -q 'TimeoutSec=5min' "$unit" || fail "TimeoutSec= of pool.mount"
	[ -e "$WORK/generated/local-fs.target.wants/pool.mount" ] || fail "pool.mount is wanted by nobody"
	grep -q 'TimeoutIdleSec=10min' "$WORK/generated/late.automount" || fail "late.automount"
	grep -q '^After=.*redis-server.service' "$WORK/generated/net.mount" || fail "After= of net.mount"
	[ -e "$WORK/generated/remote-fs.target.wants/net.mount" ] || fail "_netdev"
	# A list of folders must not become a device to wait for.
	! grep -rl 'BindsTo=.*device' "$WORK/generated" || fail "a folder is taken for a device"
	systemd-analyze verify --man=no "$WORK/generated"/*.mount "$WORK/generated"/*.automount 2>"$WORK/verify" || true
	! grep -E 'generated/.*(Unknown|Failed to parse|Invalid)' "$WORK/verify" || fail "the generator's units"
fi

# What CONTRIBUTING.md and README.md point at is there.
for page in CONTRIBUTING.md README.md; do
	{ grep -oE '\b(core|fs|tests|packaging|mount-helpers)/[a-zA-Z0-9_/-]+\.[a-zA-Z]+' "$TOP/$page" || true; } | sort -u |
		while read -r file; do
			[ -e "$TOP/$file" ] || fail "$page points at $file, which is not there"
		done
done
# shellcheck disable=SC2016
grep -oE '`sop[a-z_]+\(\)`' "$TOP/CONTRIBUTING.md" | tr -d '`()' | sort -u | while read -r name; do
	grep -rqE "\b$name\(" "$TOP/core" "$TOP/fs" || fail "CONTRIBUTING.md names $name(), which is not there"
done
python3 "$TOP/packaging/pictures/layout.py" | cmp - "$TOP/packaging/pictures/layout.svg" ||
	fail "layout.svg is not what layout.py draws"

# The example of libsop(3) is the one that tests/tools/test_libsop.sh builds and runs; its calls are there.
sed -n '/^\.Bd -literal/,/^\.Ed/p' "$man/libsop.3" | sed -e '1d' -e '$d' -e 's/\\e/\\/g' |
	diff - <(sed -n '/^#include <stdio.h>/,$p' "$TOP/tests/examples/barstore.c") ||
	fail "the example of libsop(3) is not tests/examples/barstore.c"
grep -oE 'Fn sop_[a-z_]+' "$man/libsop.3" | cut -d ' ' -f 2 | sort -u | while read -r name; do
	grep -qE "\b$name\(" "$TOP"/core/*.h || fail "libsop(3) names $name(), which is not there"
done
