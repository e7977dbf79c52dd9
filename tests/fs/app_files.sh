#!/bin/bash
# Tools that carry files about: cp -a, tar with everything, rsync -aHAX and its second run, cpio, sed -i,
# vim, dpkg-deb, patch by ed-style rewriting, and a C project built on the mount.
. "$(dirname "$0")/functions.sh"
requires rsync vim dpkg-deb tar setfattr setfacl sed
requires_root

# A tree with all kinds of things.
make_tree() {
	local i
	mkdir -p "$1/d/e/f" "$1/empty"
	for ((i = 0; i < 60; i++)); do
		head -c $((RANDOM * RANDOM % 60000)) /dev/urandom >"$1/d/file$i"
	done
	head -c 3M /dev/urandom >"$1/big"
	truncate -s 40M "$1/sparse"
	echo middle | dd of="$1/sparse" bs=1 seek=20000000 conv=notrunc status=none
	: >"$1/zero"
	ln "$1/big" "$1/d/hard"
	ln "$1/big" "$1/d/e/hard"
	ln -s ../big "$1/d/soft"
	ln -s nowhere "$1/d/dangling"
	mkfifo "$1/d/fifo"
	echo "a name" >"$1/d/a name with  spaces
and a newline"
	printf 'x' >"$1/d/$(printf 'caf\303\251')"
	setfattr -n user.one -v value "$1/big"
	setfattr -n user.two -v "$(head -c 300 /dev/zero | tr '\0' v)" "$1/d/file1"
	setfacl -m u:1234:rw,g:55:r "$1/d/file2"
	setfacl -d -m u:1234:rwx "$1/d/e"
	chmod 4755 "$1/d/file3"
	chmod 1777 "$1/d/e/f"
	chown 1234:55 "$1/d/file4"
	# What a tool made in the same second it takes for right: everything has a time of its own in the past.
	local t=1000000000
	find "$1" -depth -print0 | while IFS= read -r -d '' i; do
		t=$((t + 86413))
		touch -h -d "@$t.$((RANDOM + 100000000))" "$i"
	done
	touch -d '1999-01-02 03:04:05.678901234' "$1/d/file5"
	touch -d '2038-01-20' "$1/d/file6"
	touch -d '1950-06-07 08:09:10' "$1/empty"
}

lists() {
	(cd "$1" && find . ! -type l -print0 | LC_ALL=C sort -z | xargs -0 getfattr -h -d &&
		find . ! -type l -print0 | LC_ALL=C sort -z | xargs -0 getfacl)
}

same_all() { # with attributes, lists, links and holes
	diff -r --no-dereference --exclude=fifo "$1" "$2" >"$WORK/diff" 2>&1 || {
		head -40 "$WORK/diff"
		fail "$1 and $2 differ"
	}
	diff <(tree_list "$1") <(tree_list "$2") >"$WORK/diff" || {
		head -40 "$WORK/diff"
		fail "$1 and $2 differ in names, modes, owners or times"
	}
	diff <(lists "$1") <(lists "$2") >"$WORK/diff" || {
		head -40 "$WORK/diff"
		fail "attributes or access lists differ"
	}
	assert_eq "$(stat -c %h "$2/big")" "$(stat -c %h "$1/big")" "links"
	[ "$(stat -c %b "$2/sparse")" -le $(($(stat -c %b "$1/sparse") + 64)) ] || fail "$2/sparse is not sparse"
}

make_tree "$WORK/tree"
new_volume 2 1+1
for session in close write; do
	mount_volume "session=$session,commit=100ms,suid"
	t=$MNT/$session
	mkdir "$t"
	cp -a "$WORK/tree" "$t/cp"
	same_all "$WORK/tree" "$t/cp"
	cp -a --reflink=auto --sparse=always "$t/cp" "$t/cp2"
	same_all "$WORK/tree" "$t/cp2"
	tar -C "$WORK/tree" --xattrs --acls --sparse -cf "$t/x.tar" .
	mkdir "$t/tar"
	tar -C "$t/tar" --xattrs --acls -xf "$t/x.tar"
	touch -r "$WORK/tree" "$t/tar"
	same_all "$WORK/tree" "$t/tar"
	rsync -aHAXS "$WORK/tree/" "$t/rsync"
	same_all "$WORK/tree" "$t/rsync"
	# Nothing to do the second time, by time or by checksum; and back again.
	[ -z "$(rsync -aHAXi --delete "$WORK/tree/" "$t/rsync")" ] || fail "rsync finds changes where there are none"
	[ -z "$(rsync -aHAXic --delete "$WORK/tree/" "$t/rsync")" ] || fail "rsync -c finds changes"
	rsync -aHAXS "$t/rsync/" "$WORK/back"
	same_all "$t/rsync" "$WORK/back"
	rm -rf "$WORK/back"
	head -c 100000 /dev/urandom | dd of="$t/rsync/big" bs=1000 seek=1500 conv=notrunc status=none
	rsync -aHAX --inplace "$WORK/tree/" "$t/rsync"
	rsync -aHAX --append-verify --checksum "$WORK/tree/" "$t/rsync"
	same_all "$WORK/tree" "$t/rsync"
	mv "$t/tar" "$t/moved"
	same_all "$WORK/tree" "$t/moved"

	# Editors and other rewriters.
	seq 1 3000 >"$t/text"
	sed -i 's/7/seven/g' "$t/text"
	assert_eq "$(md5sum <"$t/text")" "$(seq 1 3000 | sed 's/7/seven/g' | md5sum)" "sed -i"
	vim -u NONE -es -c '%s/seven/7/g' -c wq "$t/text" </dev/null
	assert_eq "$(md5sum <"$t/text")" "$(seq 1 3000 | md5sum)" "vim"
	seq 1 3000 | sed 's/$/!/' >"$WORK/want"
	vim -N -u NONE -i NONE -es -c 'set backupcopy=yes writebackup' -c '%s/$/!/' -c wq "$t/text" </dev/null
	cmp "$WORK/want" "$t/text" || fail "vim, in place"
	sort -o "$t/text" "$t/text"
	sort -c "$t/text" || fail "sort -o"
	truncate -s -5 "$t/text"
	split -b 1000 "$t/text" "$t/part."
	cat "$t"/part.* | cmp - "$t/text" || fail "split and cat"
	install -m 640 -o 1234 "$t/text" "$t/installed"
	assert_eq "$(stat -c '%a %u' "$t/installed")" "640 1234" "install"

	# A package, and a program.
	mkdir -p "$t/pkg/DEBIAN" "$t/pkg/usr/share/x"
	printf 'Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@y>\nDescription: x\n' \
		>"$t/pkg/DEBIAN/control"
	cp -r "$TOP/core" "$t/pkg/usr/share/x"
	dpkg-deb -b "$t/pkg" "$t/x.deb" >/dev/null
	dpkg-deb -x "$t/x.deb" "$t/unpacked"
	same_tree "$t/pkg/usr" "$t/unpacked/usr"
	mkdir "$t/src"
	cp -r "$TOP/core" "$TOP/Makefile" "$t/src"
	make -s -C "$t/src" CORE="err le ec item base log id clock lock" CFLAGS=-O0 BUILD=b b/obj/core/err.o b/obj/core/log.o \
		b/obj/core/ec.o b/obj/core/clock.o b/obj/core/lock.o b/obj/core/imap.o >/dev/null
	[ -z "$(make -s -C "$t/src" CFLAGS=-O0 BUILD=b b/obj/core/err.o b/obj/core/imap.o)" ] || fail "make builds again what is new"
	printf 'int main(void) { return 42; }\n' >"$t/p.c"
	gcc -o "$t/p" "$t/p.c"
	expect_exit 42 "$t/p"
	ar rc "$t/lib.a" "$t"/src/b/obj/core/*.o
	ar t "$t/lib.a" >/dev/null
	unmount_volume
done
check_volume
mount_volume suid
for session in close write; do
	same_all "$WORK/tree" "$MNT/$session/rsync"
	same_all "$WORK/tree" "$MNT/$session/moved"
done
