#!/bin/bash
# The daemon is told to end at once while files are open: what was not closed never happened, what has no name
# is gone. Then the volume is mounted read-only.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
mount_volume
echo old >"$MNT/f"
python3 - "$MNT" "$WORK/ready" <<'PY' &
import os, sys, time
os.chdir(sys.argv[1])
f = os.open('f', os.O_WRONLY | os.O_TRUNC)
os.write(f, b'new')
n = os.open('n', os.O_CREAT | os.O_WRONLY)
os.write(n, b'n')
r = os.open('f', os.O_RDONLY)
u = os.open('u', os.O_CREAT | os.O_RDWR)
os.write(u, b'u' * 5000)
os.unlink('u')
os.close(os.open(sys.argv[2], os.O_CREAT))
time.sleep(60)
PY
writer=$!
wait_until 10 test -e "$WORK/ready" || fail "the writer does not come up"
# The second signal is the one; two that come before the first is looked at are one.
told_again() {
	! kill -TERM "$PID" 2>/dev/null
}
wait_until 60 told_again || fail "the daemon stays"
kill -9 $writer
wait $writer 2>/dev/null || true
check_volume
mount_volume ro
assert_eq "$(ls "$MNT")" f "what is there"
assert_eq "$(cat "$MNT/f")" old "what was committed"
expect_exit 1 touch "$MNT/x"
expect_says 'read-only'
unmount_volume
check_volume
