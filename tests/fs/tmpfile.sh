#!/bin/bash
# O_TMPFILE: a file without a name, which can get one, and else leaves nothing.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
mount_volume
chmod 755 "$WORK" "$MNT"
cat >"$WORK/tmpfile.py" <<'PY'
import os,sys,errno
os.chdir(sys.argv[1])
t=os.open('.',os.O_TMPFILE|os.O_RDWR,0o600); os.write(t,b'tmp'); assert os.fstat(t).st_nlink==0, os.fstat(t); assert os.listdir('.')==[]
os.fsync(t)
assert os.pread(t,9,0)==b'tmp'
os.link('/proc/self/fd/%d'%t,'linked',src_dir_fd=os.open('.',os.O_RDONLY),follow_symlinks=True); assert open('linked').read()=='tmp'; assert os.fstat(t).st_nlink==1
os.write(t,b'+'); assert open('linked').read()=='tmp'; os.close(t); assert open('linked').read()=='tmp+'
t=os.open('.',os.O_TMPFILE|os.O_RDWR); os.write(t,b'x'*100000); os.close(t); assert os.listdir('.')==['linked']
t=os.open('.',os.O_TMPFILE|os.O_RDWR|os.O_EXCL);
try: os.link('/proc/self/fd/%d'%t,'no',src_dir_fd=os.open('.',os.O_RDONLY),follow_symlinks=True); print('linked O_EXCL')
except OSError as e: print(e)
print('OK')
PY
python3 "$WORK/tmpfile.py" "$MNT" >"$WORK/out" || {
	cat "$WORK/out"
	fail "see above"
}
grep -q '^OK$' "$WORK/out" || fail "it did not come to its end"
unmount_volume
check_volume
