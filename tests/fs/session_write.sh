#!/bin/bash
# session=write: every write is a transaction of its own and every open sees the newest state, as on an
# ordinary file system; a kill takes nothing back.
. "$(dirname "$0")/functions.sh"
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
