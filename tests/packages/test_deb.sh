#!/bin/bash
# The Debian packages: built twice to the same bytes, clean for lintian, and used in fresh systems, Debian 12
# (libfuse 3.14) and Debian 13 (libfuse 3.17, built there). Needs Debian's archive; takes minutes.
#     SUITES=bookworm tests/packages/test_deb.sh      one of them
. "$(dirname "$0")/../namespace.sh"
. "$(dirname "$0")/../fs/functions.sh"
requires_root
requires debootstrap lintian dpkg-buildpackage dh

mirror=${MIRROR:-http://deb.debian.org/debian}
here=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
base_packages=fuse3,mount,ca-certificates
build_packages='build-essential debhelper pkgconf libfuse3-dev libhiredis-dev libisal-dev
	libjansson-dev liburing-dev'

# ---- built twice, in folders of different names ----
"$TOP/packaging/build-deb" "$WORK/one" >"$WORK/build.log" 2>&1 || {
	tail -30 "$WORK/build.log"
	fail "dpkg-buildpackage"
}
"$TOP/packaging/build-deb" "$WORK/another" >"$WORK/build2.log" 2>&1 || fail "dpkg-buildpackage, again"
for deb in "$WORK"/one/*.deb; do
	cmp "$deb" "$WORK/another/${deb##*/}" || fail "${deb##*/} comes out different when built again"
done
echo "reproducible:"
sha256sum "$WORK"/one/*.deb

# The project has no mailbox and no bug tracker of Debian's to name.
lintian --fail-on error,warning --suppress-tags \
	bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs \
	"$WORK"/one/*.changes >"$WORK/lintian" 2>&1 || {
	cat "$WORK/lintian"
	fail "lintian"
}

in_root() { # ROOT COMMANDS: there, with nothing of this test's environment
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot "$1" sh -eu -c "$2"
}

use() { # ROOT: what somebody does who has just installed it
	mount --bind /dev "$1/dev"
	mount -t proc proc "$1/proc"
	mount -t tmpfs tmpfs "$1/tmp"
	mkdir "$1/tmp/debs"
	cp "$2"/sopfs_*.deb "$2"/libsop0_*.deb "$2"/libsop-dev_*.deb "$1/tmp/debs/"
	mkdir -p "$1/tmp/tree/debian" "$1/tmp/tree/tests"
	cp -R "$TOP/packaging/debian/tests" "$1/tmp/tree/debian/"
	cp -R "$TOP/tests/examples" "$1/tmp/tree/tests/"
	# shellcheck disable=SC2016
	in_root "$1" '
		export DEBIAN_FRONTEND=noninteractive
		dpkg --unpack /tmp/debs/*.deb
		apt-get -q -f install -y --no-install-recommends
		dpkg-query -W -f "uses \${Package} \${Version}\n" "libfuse3-[0-9]*"
		mkdir -p /srv/d1 /srv/d2 /srv/d3 /srv/d4 /pool
		mkfs.sopfs -f -L tank --ec 2+2 /srv/d1 /srv/d2 /srv/d3 /srv/d4
		mount -t sopfs /srv/d1 /pool
		echo kept >/pool/file
		cp -a /usr/share/doc /pool/
		umount /pool
		test ! -e /pool/file
		mkdir /srv/away
		mv /srv/d1 /srv/away/
		printf "/srv/d2 /pool sopfs defaults 0 0\n" >/etc/fstab
		mount /pool
		test "$(cat /pool/file)" = kept
		diff -r --no-dereference /usr/share/doc /pool/doc
		# An upgrade leaves alone what is mounted.
		echo open >/pool/before
		dpkg -i /tmp/debs/*.deb
		test "$(cat /pool/before)" = open
		umount /pool
		# What autopkgtest runs, and where.
		cd /tmp/tree
		debian/tests/mount
		apt-get -q install -y --no-install-recommends gcc libc6-dev pkgconf
		debian/tests/libsop
		cd /
		man=$(dpkg -L sopfs | grep -c /man/man8/)
		test "$man" -ge 3
		apt-get -q purge -y sopfs libsop-dev libsop0
		test -z "$(find / -xdev -name "*sopfs*" -not -path "/srv/*" -not -path "/tmp/*" -not -path "/run/*" -not -path "/var/log/*" \
			-not -path "/var/lib/apt/*" -not -path "/var/cache/*")"
	' >"$1.log" 2>&1 || {
		tail -40 "$1.log"
		fail "in $1"
	}
	umount "$1/tmp" "$1/proc" "$1/dev"
}

build_in() { # ROOT: the packages, made there
	mkdir -p "$1/src"
	(cd "$TOP" && git ls-files -z | xargs -0 -r tar -cf - --) | tar -xf - -C "$1/src"
	in_root "$1" '
		export DEBIAN_FRONTEND=noninteractive
		apt-get -q update
		apt-get -q install -y --no-install-recommends '"$(tr -s '\n\t' ' ' <<<"$build_packages")"'
		/src/packaging/build-deb /out' >"$1.log" 2>&1 || {
		tail -40 "$1.log"
		fail "building in $1"
	}
}

for suite in ${SUITES:-bookworm trixie}; do
	root=$WORK/$suite
	debootstrap --variant=minbase --include="$base_packages" "$suite" "$root" "$mirror" >"$WORK/bootstrap.log" 2>&1 || {
		tail -3 "$WORK/bootstrap.log"
		[ -e "$root/etc/debian_version" ] || skip "cannot reach $mirror"
		fail "debootstrap $suite"
	}
	debs=$WORK/one
	if [ "$suite" != "$here" ]; then
		cp -a "$root" "$root-build"
		build_in "$root-build"
		debs=$root-build/out
	fi
	use "$root" "$debs"
	echo "$suite: $(grep '^uses ' "$root.log"): installed, mounted, read with a disk away, purged"
done
