#!/bin/bash
# session=write: every write is a transaction of its own and every open sees the newest state, as on an
# ordinary file system; a kill takes nothing back.
. "$(dirname "$0")/functions.sh"
. "$(dirname "$0")/disks.sh"
requires python3
new_volume 2 1+1
mount_volume session=write
cat >"$WORK/write.py" <<'PY'
import os,sys,subprocess,errno
os.chdir(sys.argv[1])
def rd(p):
    with open(p,'rb') as f: return f.read()
def check(c, what):
    if not c: raise SystemExit("FAILED: "+what)
w=os.open('a',os.O_CREAT|os.O_RDWR); os.write(w,b'abc')
check(rd('a')==b'abc','visible at once'); check(os.stat('a').st_size==3,'size')
r=os.open('a',os.O_RDONLY); check(os.read(r,9)==b'abc','r')
os.write(w,b'def'); check(os.pread(r,9,0)==b'abcdef','reader sees newest'); check(os.fstat(r).st_size==6,'fstat')
os.ftruncate(w,2); check(os.pread(r,9,0)==b'ab','truncated'); check(os.stat('a').st_size==2,'size2')
t=os.open('a',os.O_WRONLY|os.O_TRUNC); check(os.pread(r,9,0)==b'','O_TRUNC at once'); os.write(t,b'T'); check(os.pread(r,9,0)==b'T','T'); os.close(t)
p=os.open('a',os.O_WRONLY|os.O_APPEND); os.write(p,b'+'); os.pwrite(w,b'w',0); os.write(p,b'-'); check(rd('a')==b'w+-','append')
os.truncate('a',1); check(rd('a')==b'w','path truncate')
os.unlink('a'); check(not os.path.exists('a'),'gone'); os.pwrite(w,b'unlinked',0); check(os.pread(r,20,0)==b'unlinked','still shared %r %r'%(os.pread(r,20,0),os.pread(w,20,0))); check(os.fstat(w).st_nlink==0,'nl')
check(os.fstat(w).st_size==8,'size after unlink %d'%os.fstat(w).st_size)
os.fsync(w); os.close(w); os.close(r); os.close(p)
k=subprocess.Popen([sys.executable,'-c','import os,time\nf=os.open("k",os.O_CREAT|os.O_WRONLY); os.write(f,b"kept"); print("x",flush=True); time.sleep(60)'],stdout=subprocess.PIPE); k.stdout.readline(); k.kill(); k.wait()
check(rd('k')==b'kept','a kill takes nothing back')
w=os.open('h',os.O_CREAT|os.O_RDWR); os.truncate('h',1<<20); os.pwrite(w,b'x'*4096,65536)
check(os.lseek(w,0,os.SEEK_DATA)==65536,'data %d'%os.lseek(w,0,os.SEEK_DATA)); check(os.lseek(w,65536,os.SEEK_HOLE)<=69632+4096,'hole')
os.rename('h','i'); os.pwrite(w,b'y',0); check(rd('i')[:1]==b'y','after rename'); os.link('i','j'); os.pwrite(w,b'z',0); check(rd('j')[:1]==b'z','after link')
os.close(w)
import mmap
f=os.open('m',os.O_CREAT|os.O_RDWR); os.ftruncate(f,8192); m=mmap.mmap(f,8192); m[0:3]=b'map'; m.flush(); check(rd('m')[:3]==b'map','mmap'); m.close(); os.close(f)
print('OK')
PY
python3 "$WORK/write.py" "$MNT" >"$WORK/out" || { cat "$WORK/out"; fail "see above"; }
grep -q '^OK$' "$WORK/out" || fail "it did not come to its end"
unmount_volume
check_volume

[ "$(id -u)" = 0 ] || exit 0

# -o sync: when the wait for the media fails, behind the commit, the change is there all the same, and whoever
# looks sees it, as soon as the kernel has been told.
mkdir "$WORK/back" "$WORK/f"
faulty_disk "$WORK/back" "$WORK/mode" "$WORK/f"
"$MKFS" -q -f --ec 1+0 "$WORK/f"
SOURCE=$WORK/f
cat >"$WORK/failing.py" <<'PY'
import errno, os, sys, time
os.chdir(sys.argv[1])
mode, how = sys.argv[2:]
def rd(p):
    with open(p, 'rb') as f: return f.read()
def check(c, what):
    if not c: raise SystemExit("FAILED: %s: %s" % (how, what))
def shows(look, want, what):
    for i in range(400):
        got = look()
        if got == want: return
        time.sleep(.05)
    check(False, '%s: %r' % (what, got))
def opened(flags, then):
    f = os.open('a', flags)
    try: then(f)
    finally: os.close(f)
change, after = {
    'write': (lambda: opened(os.O_WRONLY, lambda f: os.pwrite(f, b'XYZ', 8)), b'01234567XYZ'),
    'empty': (lambda: opened(os.O_WRONLY | os.O_TRUNC, lambda f: None), b''),
    'truncate': (lambda: os.truncate('a', 3), b'012'),
    'alone': (lambda: os.truncate('a', 3), b'012')}[how]
with open('a', 'wb') as f: f.write(b'0123456789')
check(rd('a') == b'0123456789', 'before')
if how != 'alone':
    r = os.open('a', os.O_RDONLY)
with open(mode, 'w') as f: f.write('eio-fsync')
try: change(); failed = 0
except OSError as e: failed = e.errno
os.unlink(mode)
check(failed == errno.EIO, 'not told: %d' % failed)
if how != 'alone':
    shows(lambda: os.pread(r, 99, 0), after, 'read by who has it open')
    shows(lambda: os.fstat(r).st_size, len(after), 'size for who has it open')
    shows(lambda: rd('a'), after, 'read while it is open')
    os.close(r)
shows(lambda: rd('a'), after, 'read')
shows(lambda: os.stat('a').st_size, len(after), 'size')
PY
for how in write empty truncate alone; do
	for session in write close; do
		case $how-$session in write-close | empty-close | truncate-close) continue ;; esac
		mount_volume "sync,session=$session"
		python3 "$WORK/failing.py" "$MNT" "$WORK/mode" "$how" || fail "session=$session, see above"
		unmount_volume
	done
done
