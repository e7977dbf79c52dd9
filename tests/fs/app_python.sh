#!/bin/bash
# Python's own tests of files, run on the mount. Left out in the default mode: those in which a process
# writes by one descriptor and, before it closes it, reads by another name or open what it has written;
# there a second open shows what is committed, in the same process too.
. "$(dirname "$0")/functions.sh"
python=
for p in /usr/bin/python3.*; do
	if [ -x "$p" ] && "$p" -c 'import test.test_shutil' 2>/dev/null; then
		python=$p
	fi
done
[ -n "$python" ] || skip "needs libpython3-testsuite"

tests="test_os test_shutil test_tempfile test_mailbox test_mmap test_fileio test_posix test_fcntl
	test_pathlib test_glob test_dbm test_shelve"
[ -z "$LONG" ] || tests="$tests test_io test_largefile test_zipfile test_tarfile test_gzip test_lzma test_file"
by_contract="-i test_copy_file_range -i test_copy_file_range_offset -i test_splice_offset_out
	-i test_message_separator -i test.test_mmap.MmapTests.test_basic -i test.test_mmap.MmapTests.test_offset"

new_volume 2 1+1
for session in close write; do
	mount_volume "session=$session,commit=100ms"
	mkdir "$MNT/$session"
	cd "$MNT/$session"
	ignore=
	[ "$session" = write ] || ignore=$by_contract
	# shellcheck disable=SC2086
	TMPDIR=$PWD timeout 580 "$python" -m test --tempdir "$PWD" $ignore $tests >"$WORK/out" 2>&1 </dev/null || {
		tail -n 60 "$WORK/out"
		fail "session=$session: see above"
	}
	cd /
	unmount_volume
done
check_volume
