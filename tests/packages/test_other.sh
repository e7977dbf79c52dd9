#!/bin/bash
# The RPM spec and the PKGBUILD build and install every file they name. What they are built against is this
# machine's; their names of dependencies are not looked up.
. "$(dirname "$0")/../fs/functions.sh"

version=$(sed -n 's/^VERSION *:= *//p' "$TOP/Makefile")
unset BUILD CC CFLAGS LDFLAGS MAKEFLAGS SAN WERROR
mkdir -p "$WORK/SOURCES" "$WORK/sopfs-$version"
(cd "$TOP" && git ls-files -z | xargs -0 -r tar -cf - --) | tar -xf - -C "$WORK/sopfs-$version"
tar -czf "$WORK/SOURCES/sopfs-$version.tar.gz" -C "$WORK" "sopfs-$version"
grep -qx "Version: *$version" "$TOP/packaging/sopfs.spec" || fail "the spec has another version"
grep -qx "pkgver=$version" "$TOP/packaging/PKGBUILD" || fail "the PKGBUILD has another version"
grep -q "^sopfs ($version-" "$TOP/packaging/debian/changelog" || fail "debian/changelog has another version"

if command -v rpmbuild >/dev/null; then
	rpmbuild -bb --nodeps --define "_topdir $WORK" --define "_unitdir /usr/lib/systemd/system" \
		--define "debug_package %{nil}" "$TOP/packaging/sopfs.spec" >"$WORK/rpm.log" 2>&1 || {
		tail -5 "$WORK/rpm.log" | cut -c1-500
		fail "rpmbuild"
	}
	rpm -qlp "$WORK"/RPMS/*/sopfs-*.rpm | grep -qx /usr/sbin/mount.sopfs || fail "the rpm has no mount.sopfs"
fi
# What makepkg does with it.
(
	cd "$WORK"
	# shellcheck source=packaging/PKGBUILD
	. "$TOP/packaging/PKGBUILD"
	# shellcheck disable=SC2034
	pkgdir=$WORK/pkg CFLAGS="-O1" LDFLAGS=""
	build
	cd "$WORK"
	package
) >"$WORK/arch.log" 2>&1 || {
	tail -5 "$WORK/arch.log"
	fail "the PKGBUILD"
}
[ -L "$WORK/pkg/usr/bin/mount.sopfs" ] || fail "the PKGBUILD installs no mount.sopfs"
