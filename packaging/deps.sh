#!/bin/sh
# Install what building and running need, and only what is missing; instant when nothing is. With "test":
# also the programs that tests run (a test whose program is missing is skipped, and says so); with
# "packages": what packages are made and tried with; with "lint": what the lint uses. Installs as root or
# by passwordless sudo, else prints the line.
set -eu

if ! command -v dpkg-query >/dev/null 2>&1; then
	if pkg-config --exists fuse3 libisal liburing cmocka 2>/dev/null; then
		exit 0
	fi
	echo "sopfs: not a Debian system: please install the development packages of" \
		"fuse3, isa-l, liburing, hiredis, jansson and cmocka, then run make again" >&2
	exit 1
fi

missing_of() { # PACKAGE...
	installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p')
	for p; do
		case "
$installed
" in
		*"
$p
"*) continue ;;
		esac
		# pkgconf stands in for pkg-config where that is a name for it alone.
		if [ "$p" = pkg-config ] && command -v pkg-config >/dev/null 2>&1; then
			continue
		fi
		printf ' %s' "$p"
	done
}

apt() {
	# shellcheck disable=SC2086
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@"
}

need() { # PACKAGE...
	missing=$(missing_of "$@")
	[ -n "$missing" ] || return 0
	if [ "$(id -u)" = 0 ]; then
		as_root=
	elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
		as_root='sudo -n'
	else
		echo "sopfs: packages are missing; as root, run:" >&2
		echo "    apt-get update && apt-get install -y$missing" >&2
		return 1
	fi
	echo "sopfs: installing$missing"
	if ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
		apt update
	fi
	# Lists that are there may be stale: then once more with fresh ones.
	# shellcheck disable=SC2086
	apt install -y --no-install-recommends $missing || {
		apt update
		apt install -y --no-install-recommends $missing
	}
}

need gcc make pkg-config libc6-dev libfuse3-dev fuse3 libisal-dev liburing-dev libhiredis-dev \
	libjansson-dev libcmocka-dev attr acl e2fsprogs mount util-linux
case ${1:-} in
lint) need clang clang-format shellcheck codespell ;;
packages) need python3 debootstrap debhelper dpkg-dev lintian rpm ;;
test)
	need g++ python3 rsync libcap2-bin jq mandoc tmux fish zsh git sqlite3 vim tar fio xfsprogs valgrind
	# Its name has the version in it.
	need "libpython$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-testsuite" ||
		echo "sopfs: Python's own tests are not to be had; theirs here will be skipped"
	# These start services when they are installed, which a machine that is somebody's has not asked for.
	if [ -n "${CI:-}" ]; then
		need redis-server redis-tools postgresql
		# Of this one only promtool is wanted: what its installation has started ends.
		had=$(missing_of prometheus)
		need prometheus
		if [ -n "$had" ] && command -v service >/dev/null 2>&1; then
			$as_root service prometheus stop >/dev/null 2>&1 || true
		fi
	fi
	;;
esac
