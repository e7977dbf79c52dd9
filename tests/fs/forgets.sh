#!/bin/bash
# The kernel is asked to forget files and directories when it knows more than the daemon's memory is meant for;
# what is in use stays as it is.
# shellcheck source=tests/fs/functions.sh
. "$(dirname "$0")/functions.sh"
requires jq python3
kernel_prunes || skip "needs Linux 6.18"

known() {
	"$SOPCTL" status --json "$MNT" | jq .mount.known
}

new_volume 1 1+0
# Of 9.5 MiB, at 512 bytes each.
mount_volume cache=8M
limit=19456
mkdir -p "$MNT/old/here/below" "$MNT/old/bound" "$WORK/outside" "$MNT/t"
echo read >"$MNT/old/read"
echo before >"$MNT/old/write"
bound=
if mount --bind "$WORK/outside" "$MNT/old/bound" 2>/dev/null; then
	bound=yes
	LOOPS+=("$MNT/old/bound")
fi
cat >"$WORK/uses.py" <<'PY'
import os, subprocess, sys
mnt, drive = sys.argv[1:]
here = mnt + '/old/here/below'
os.chdir(here)
reads = open(mnt + '/old/read')
path = os.open(mnt + '/old/read', os.O_PATH)
writes = os.open(mnt + '/old/write', os.O_WRONLY | os.O_TRUNC)
os.write(writes, b'after\n')
subprocess.check_call([drive, 'dirs', mnt + '/t', '40000'])
assert os.getcwd() == here, os.getcwd()
open('made', 'w').close()
assert os.path.exists(here + '/made')
assert reads.read() == 'read\n'
assert os.fstat(path).st_ino == os.stat(mnt + '/old/read').st_ino
assert open(mnt + '/old/write').read() == 'before\n'
os.write(writes, b'more\n')
os.close(writes)
assert open(mnt + '/old/write').read() == 'after\nmore\n'
PY
python3 "$WORK/uses.py" "$MNT" "$BUILD/bench/drive"
# It forgets in its own time; some more are let through until it is asked.
few() {
	[ "$(known)" -le $((limit + limit / 4)) ]
}
wait_until 120 few || fail "the kernel knows $(known)"
echo "made 40040, the kernel knows $(known)"
[ "$(find "$MNT/t" | wc -l)" = 40041 ] || fail "not all are found"
wait_until 120 few || fail "the kernel knows $(known) after find"
if [ -n "$bound" ]; then
	mountpoint -q "$MNT/old/bound" || fail "what was mounted there is not any more"
	umount "$MNT/old/bound"
	LOOPS=()
fi
within_bounds 8 "find"
unmount_volume
check_volume
