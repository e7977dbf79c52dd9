#!/bin/bash
# The daemon is told to end while files are open: what was written is committed as by a close, what has no name
# is gone; then the volume mounted read-only.
. "$(dirname "$0")/functions.sh"
new_volume 2 1+1
mount_volume
echo old > $MNT/f; echo r > $MNT/r
python3 -c 'import os,sys,time,signal
os.chdir(sys.argv[1]); f=os.open("f",os.O_WRONLY|os.O_TRUNC); os.write(f,b"new"); g=os.open("n",os.O_CREAT|os.O_WRONLY); os.write(g,b"n"); r=os.open("r",os.O_RDONLY)
u=os.open("u",os.O_CREAT|os.O_RDWR); os.write(u,b"u"*5000); os.unlink("u")
open(sys.argv[2]+"/ready","w"); time.sleep(30)' $MNT $WORK & W=$!
wait_until 5 test -e $WORK/ready
kill -TERM $PID; sleep 1; kill -TERM $PID
wait_gone $PID 20 || fail "daemon stays"
kill -9 $W; wait $W 2>/dev/null || true
mount_volume ro
ls -l $MNT; cat $MNT/f $MNT/n
touch $MNT/x 2>&1 | grep -q Read-only || fail ro
echo x 2>/dev/null >> $MNT/f && fail ro2
unmount_volume
check_volume
