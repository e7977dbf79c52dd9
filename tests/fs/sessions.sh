#!/bin/bash
# The contract of open..close: snapshots for readers, private views for writers, commit at close, rollback
# of the killed, provisional names, conflicts, and what rename, link, unlink and fsync do to a session.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 4 2+2
mount_volume
cat >"$WORK/sessions.py" <<'PY'
import os, sys, time, signal, errno, subprocess
os.chdir(sys.argv[1])
def rd(p):
    with open(p,'rb') as f: return f.read()
def check(c, what):
    if not c: raise SystemExit("FAILED: "+what)
# snapshot reader
open('a','w').write('one')
r = os.open('a', os.O_RDONLY)
w = os.open('a', os.O_WRONLY|os.O_TRUNC)
check(os.fstat(r).st_size==3,'reader size')
check(os.stat('a').st_size==3,'stat by path')
os.write(w,b'twotwo')
check(os.fstat(w).st_size==6,'session size %d'%os.fstat(w).st_size)
check(os.stat('a').st_size==3,'stat by path 2')
check(rd('a')==b'one','others')
os.close(w)
check(os.stat('a').st_size==6,'stat, of what nobody has opened since')
check(rd('a')==b'twotwo','after commit')
check(os.stat('a').st_size==6,'stat after commit')
check(os.pread(r,10,0)==b'one','snapshot')
check(os.fstat(r).st_size==3,'snapshot size')
os.close(r)
# private
w = os.open('a', os.O_RDWR)
os.pwrite(w,b'X',0)
check(os.pread(w,10,0)==b'Xwotwo','own view')
check(rd('a')==b'twotwo','private')
w2 = os.open('a', os.O_RDWR)
check(os.pread(w2,10,0)==b'twotwo','second session')
os.pwrite(w2,b'Y',5)
os.close(w)
check(rd('a')==b'Xwotwo','first committed')
try:
    os.close(w2); check(False,'conflict expected')
except OSError as e:
    check(e.errno==errno.EBUSY,'EBUSY %d'%e.errno)
check(rd('a')==b'Xwotwo','winner stands')
# blind range overwrites merge
w = os.open('a', os.O_WRONLY); w2=os.open('a',os.O_WRONLY)
os.pwrite(w,b'1',0); os.pwrite(w2,b'2',5)
os.close(w); os.close(w2)
check(rd('a')==b'1wotw2','merge %r'%rd('a'))
# appends
w = os.open('a', os.O_WRONLY|os.O_APPEND); w2=os.open('a',os.O_WRONLY|os.O_APPEND)
os.write(w,b'AAA'); os.write(w2,b'BBB'); os.close(w2); os.close(w)
check(rd('a')==b'1wotw2BBBAAA','append %r'%rd('a'))
# create visible, excl
c = os.open('new', os.O_CREAT|os.O_EXCL|os.O_WRONLY)
os.write(c,b'data')
check(os.stat('new').st_size==0,'prov size')
check('new' in os.listdir('.'),'listed')
check(rd('new')==b'','prov read')
try:
    os.open('new', os.O_CREAT|os.O_EXCL|os.O_WRONLY); check(False,'excl')
except FileExistsError: pass
os.chmod('new',0o600)
check(os.fstat(c).st_mode&0o777==0o600,'fchmod seen')
os.close(c)
check(rd('new')==b'data','committed')
check(os.stat('new').st_mode&0o777==0o600,'mode kept')
# killed
p = subprocess.Popen([sys.executable,'-c','''
import os,time,sys
f=os.open("k",os.O_CREAT|os.O_WRONLY); os.write(f,b"x"*10000)
g=os.open("a",os.O_WRONLY|os.O_TRUNC); os.write(g,b"zzz")
print("ready",flush=True); time.sleep(100)'''],stdout=subprocess.PIPE)
p.stdout.readline()
check('k' in os.listdir('.'),'k there')
p.kill(); p.wait()
check(not os.path.exists('k'),'k gone')
check('k' not in os.listdir('.'),'k gone from list')
check(rd('a')==b'1wotw2BBBAAA','a stands')
# exit normally
subprocess.run([sys.executable,'-c','''
import os
f=os.open("k",os.O_CREAT|os.O_WRONLY); os.write(f,b"x"*10000); os._exit(3)'''])
check(rd('k')==b'x'*10000,'exit commits')
# fsync goes on
w=os.open('s',os.O_CREAT|os.O_RDWR); os.write(w,b'abc'); os.fsync(w)
check(rd('s')==b'abc','fsync'); os.write(w,b'def'); check(rd('s')==b'abc','goes on');
check(os.pread(w,10,0)==b'abcdef','own'); os.close(w); check(rd('s')==b'abcdef','end')
# after fsync it goes on from what it committed: what others commit then is a conflict for one who reads
w=os.open('s',os.O_RDWR); os.pread(w,9,0); os.pwrite(w,b'1',0); os.fsync(w)
open('s','w').write('others')
check(os.pread(w,9,0)==b'1bcdef','its own version %r'%os.pread(w,9,0)); check(os.fstat(w).st_size==6,'its own size')
os.pwrite(w,b'2',1)
try:
    os.close(w); check(False,'conflict after fsync')
except OSError as e:
    check(e.errno==errno.EBUSY,'EBUSY after fsync')
check(rd('s')==b'others','the winner after fsync')
# rename with commit
w=os.open('tmp',os.O_CREAT|os.O_WRONLY); os.write(w,b'final'); os.rename('tmp','target')
check(rd('target')==b'final','rename commits %r'%rd('target')); os.write(w,b'more');
check(rd('target')==b'final','private'); os.close(w); check(rd('target')==b'finalmore','x')
check(not os.path.exists('tmp'),'tmp gone')
# of however many
w=os.open('tmp',os.O_CREAT|os.O_WRONLY); os.write(w,b'of many'); many=[os.open('tmp',os.O_WRONLY|os.O_APPEND) for i in range(40)]
os.rename('tmp','target'); check(rd('target')==b'of many','rename commits one of many %r'%rd('target'))
for m in many+[w]: os.close(m)
# foreign rename of provisional
w=os.open('tmp2',os.O_CREAT|os.O_WRONLY); os.write(w,b'final2')
subprocess.run(['mv','-T','tmp2','t2'],check=True)
check(rd('t2')==b'','foreign rename: empty %r' % rd('t2')); os.write(w,b'+'); os.close(w); check(rd('t2')==b'final2+','t2 %r'%rd('t2'))
# link of dirty
w=os.open('l1',os.O_CREAT|os.O_WRONLY); os.write(w,b'L'); os.link('l1','l2')
check(rd('l2')==b'L' and rd('l1')==b'L','link commits'); os.write(w,b'M'); os.close(w); check(rd('l2')==b'LM' and os.stat('l1').st_nlink==2,'lm')
# second writer of provisional
w=os.open('p1',os.O_CREAT|os.O_WRONLY); os.write(w,b'first');
v=os.open('p1',os.O_WRONLY|os.O_APPEND); os.write(v,b'second'); os.close(v)
check(rd('p1')==b'second','p1a %r'%rd('p1')); os.close(w); check(rd('p1')==b'firstd','p1b %r'%rd('p1'))
w=os.open('p2',os.O_CREAT|os.O_TRUNC|os.O_WRONLY); os.write(w,b'first');
v=os.open('p2',os.O_WRONLY|os.O_APPEND); os.write(v,b'second'); os.close(v)
check(rd('p2')==b'second','p2a %r'%rd('p2')); os.close(w); check(rd('p2')==b'first','p2b %r'%rd('p2'))
w=os.open('p3',os.O_CREAT|os.O_WRONLY|os.O_APPEND); os.write(w,b'first');
v=os.open('p3',os.O_CREAT|os.O_WRONLY|os.O_APPEND); os.write(v,b'second'); os.close(v)
check(rd('p3')==b'second','p3a %r'%rd('p3')); os.write(w,b'!'); os.close(w); check(rd('p3')==b'secondfirst!','two appenders of a new file: %r'%rd('p3'))
# unlink while open
# What the creator has not written stays as another has committed it meanwhile: gaps, at all sizes; and what he
# has cut off, or made a hole of, goes.
for unit in 8,1000,5000,300000:
    g='gap%d'%unit
    w=os.open(g,os.O_CREAT|os.O_WRONLY)
    for at in 3,8: os.pwrite(w,b'w'*unit,at*unit)
    v=os.open(g,os.O_WRONLY); os.write(v,b'v'*(12*unit)); os.close(v)
    os.pwrite(w,b'x'*unit,10*unit); os.close(w)
    check(rd(g)==b'v'*(3*unit)+b'w'*unit+b'v'*(4*unit)+b'w'*unit+b'v'*unit+b'x'*unit+b'v'*unit,'gaps of a creator')
    g='cut%d'%unit
    w=os.open(g,os.O_CREAT|os.O_WRONLY); os.pwrite(w,b'w'*(9*unit),0)
    os.ftruncate(w,5*unit); os.pwrite(w,b'y'*unit,7*unit)
    v=os.open(g,os.O_WRONLY); os.write(v,b'v'*(12*unit)); os.close(v)
    os.close(w)
    check(rd(g)==b'w'*(5*unit)+bytes(2*unit)+b'y'*unit,'cut by a creator: %d'%len(rd(g)))
# He has seen that it was empty: what he writes for that is refused.
w=os.open('seen',os.O_CREAT|os.O_RDWR); check(os.read(w,10)==b'','empty'); os.write(w,b'first')
v=os.open('seen',os.O_WRONLY); os.write(v,b'second'); os.close(v)
try: os.close(w); check(False,'a creator who has read, and is late')
except OSError as e: check(e.errno==errno.EBUSY,'late creator')
check(rd('seen')==b'second','the first to commit')
w=os.open('u',os.O_CREAT|os.O_RDWR); os.write(w,b'U'*5000); os.unlink('u')
check(not os.path.exists('u'),'u'); os.write(w,b'V'); check(os.pread(w,9999,4998)==b'UUV','nameless'); os.fsync(w); check(os.fstat(w).st_nlink==0,'nl'); check(os.fstat(w).st_size==5001,'sz'); os.close(w)
w=os.open('t2',os.O_RDWR); os.unlink('t2'); check(os.read(w,100)==b'final2+','nameless2'); os.write(w,b'Q'); check(os.pread(w,100,0)==b'final2+Q','q'); os.close(w)
check(not os.path.exists('t2'),'t2')
r=os.open('l1',os.O_RDONLY); os.unlink('l1'); os.unlink('l2'); check(os.read(r,10)==b'LM','rd unlinked'); check(os.fstat(r).st_nlink==0,'nlink0'); os.close(r)
# shell forms
subprocess.run('echo x > e; cat e; : > e; test -s e && exit 1; sh -c "echo a; sleep 0.05; echo b" > e; cat e; { echo 1; echo 2; } > e2; cat e2; echo 3 >> e2; cat e2; cp e2 e3; cmp e2 e3; cat < e2 > e4; touch e5; test -e e5',shell=True,check=True)
check(rd('e')==b'a\nb\n','e'); check(rd('e2')==b'1\n2\n3\n','e2')
print('OK')
PY
python3 "$WORK/sessions.py" "$MNT" >"$WORK/out" || { cat "$WORK/out"; fail "see above"; }
grep -q '^OK$' "$WORK/out" || fail "it did not come to its end"
grep -q '3 conflicts' "$MNT/.sop/status" || fail "status does not count the conflicts"
grep -q ' 5 rolled back' "$MNT/.sop/status" || fail "status does not count what was rolled back"
[ -z "$(find "$MNT" -maxdepth 1 -name .sop)" ] || fail ".sop is listed"
# shellcheck disable=SC2012 # the order of the listing itself is looked at
assert_eq "$(ls "$MNT/.sop" | tr '\n' ' ')" "commit events metrics range status status.json txn " "ls .sop"

# Who truncates a file by an open descriptor's entry in /proc comes by the nodeid of a session, and of that only
# a mapping may be left, or less: what that has written is committed at its RELEASE, which nobody waits for.
cat >"$WORK/ending.py" <<'PY'
import ctypes, mmap, os, sys
os.chdir(sys.argv[1])
libc=ctypes.CDLL(None,use_errno=True); libc.mmap.restype=ctypes.c_void_p
def check(c, what):
    if not c: raise SystemExit("FAILED: "+what)
for i in range(int(sys.argv[2])):
    f=os.open('ending',os.O_CREAT|os.O_RDWR|os.O_TRUNC); os.write(f,b'0123456789')
    p=os.open('/proc/self/fd/%d'%f,os.O_PATH)
    m=ctypes.c_void_p(libc.mmap(None,4096,3,mmap.MAP_SHARED,f,ctypes.c_long(0)))
    os.close(f)
    ctypes.memmove(m,b'late',4); libc.munmap(m,4096)
    os.truncate('/proc/self/fd/%d'%p,3); os.close(p)
    with open('ending','rb') as f: got=f.read()
    check(got==b'lat','round %d: %r'%(i,got))
f=os.open('mapped',os.O_CREAT|os.O_RDWR|os.O_TRUNC); os.write(f,b'0123456789')
p=os.open('/proc/self/fd/%d'%f,os.O_PATH)
m=ctypes.c_void_p(libc.mmap(None,4096,3,mmap.MAP_SHARED,f,ctypes.c_long(0)))
os.truncate('/proc/self/fd/%d'%f,9)
with open('mapped','rb') as r: got=r.read()
check(got==b'','part of a session that is open: %r'%got)
os.close(f)
with open('mapped','rb') as r: got=r.read()
check(got==b'012345678','committed with the session: %r'%got)
os.truncate('/proc/self/fd/%d'%p,3)
with open('mapped','rb') as r: got=r.read()
check(got==b'012','only a mapping is left: %r'%got)
libc.munmap(m,4096); os.close(p); os.unlink('mapped')
PY
python3 "$WORK/ending.py" "$MNT" 1000 || fail "see above"
unmount_volume
mount_volume sync
python3 "$WORK/ending.py" "$MNT" 300 || fail "see above, with sync"
unmount_volume
mount_volume

# A path is walked, and before the truncation comes the file is somebody else's session: it is not for that.
cat >"$WORK/stranger.py" <<'PY'
import errno, os, subprocess, sys, time
os.chdir(sys.argv[1])
open('strange','wb').close()
opens=subprocess.Popen([sys.executable,'-c','''
import os, select
while not select.select([0],[],[],0)[0]:
    try:
        f=os.open("strange",os.O_WRONLY)
        select.select([0],[],[],.0005)
        os.close(f)
    except OSError as e:
        if e.errno!=116: raise
'''],stdin=subprocess.PIPE)
for i in range(1,int(sys.argv[2])):
    while True:
        try: os.truncate('strange',i); break
        except OSError as e:
            if e.errno!=errno.ESTALE: raise
    # The kernel may show what it has kept until it has been told.
    for again in range(100):
        n=os.stat('strange').st_size
        if n==i: break
        time.sleep(.01)
    if n!=i: break
opens.stdin.close()
if opens.wait(): raise SystemExit("FAILED: who opens the file")
if n!=i: raise SystemExit('FAILED: %d bytes, not %d'%(n,i))
PY
python3 "$WORK/stranger.py" "$MNT" 5000 || fail "see above"

# Times set by hand are there at once, but for who writes the file by that descriptor; and every commit of what
# was written before keeps them.
cat >"$WORK/times.py" <<'PY'
import ctypes, mmap, os, subprocess, sys, time
os.chdir(sys.argv[1])
libc=ctypes.CDLL(None,use_errno=True); libc.mmap.restype=ctypes.c_void_p
def check(what, got, want):
    if got!=want: raise SystemExit("FAILED: %s: %r, want %r"%(what,got,want))
def mtime(p): return os.stat(p).st_mtime
for p in 'fd','path','writers': open(p,'w').write('x')
w=os.open('fd',os.O_WRONLY); os.write(w,b'y'); before=mtime('fd'); os.utime(w,(1,1))
check('by the descriptor, while it is open',(mtime('fd'),os.fstat(w).st_mtime),(before,1)); os.close(w)
check('by the descriptor',mtime('fd'),1)
w=os.open('path',os.O_WRONLY); os.write(w,b'y'); os.utime('path',(2,2)); check('by path, at once',mtime('path'),2)
os.close(w); check('by path, with the commit',mtime('path'),2)
w=os.open('path',os.O_WRONLY); os.write(w,b'y'); os.utime('path',(2,2)); os.write(w,b'z'); os.close(w)
check('written later',mtime('path')>2,True)
# By who has nothing open of the file, and comes by the nodeid that is a session's by now: as a path does that was
# walked before. Here it is a descriptor of a third one's.
third=subprocess.Popen([sys.executable,'-c','''
import os, sys
print(os.open("writers",os.O_PATH),flush=True)
sys.stdin.read()'''],stdin=subprocess.PIPE,stdout=subprocess.PIPE)
path='/proc/%d/fd/%d'%(third.pid,int(third.stdout.readline()))
w=os.open('writers',os.O_WRONLY); os.write(w,b'y')
subprocess.run([sys.executable,'-c','import os,sys; os.utime(sys.argv[1],(3,3))',path],check=True)
check("by another's nodeid, at once",mtime('writers'),3)
os.close(w); check("by another's nodeid, with the commit",mtime('writers'),3)
third.stdin.close(); third.wait()
# Only a mapping is left of the session, with something written that is not committed.
f=os.open('mapped',os.O_CREAT|os.O_RDWR); os.write(f,b'0123456789')
p=os.open('/proc/self/fd/%d'%f,os.O_PATH); d=os.open('.',os.O_RDONLY)
m=ctypes.c_void_p(libc.mmap(None,4096,3,mmap.MAP_SHARED,f,ctypes.c_long(0))); os.close(f)
ctypes.memmove(m,b'late',4); libc.syncfs(d)
os.utime('/proc/self/fd/%d'%p,(4,4)); check('of a mapping, at once',mtime('mapped'),4)
libc.munmap(m,4096); os.close(p)
for again in range(100): # nobody waits for its RELEASE
    if open('mapped').read()=='late456789': break
    time.sleep(.01)
check('of a mapping, at its end',(mtime('mapped'),open('mapped').read()),(4,'late456789'))
PY
python3 "$WORK/times.py" "$MNT" || fail "see above"

# An open that is refused leaves nothing behind: a session that was rolled back ends with its own handle.
cat >"$WORK/refused.py" <<'PY'
import errno, os, sys
os.chdir(sys.argv[1])
def refused(what, fn):
    try: fn()
    except OSError as e:
        if e.errno==errno.EBUSY: return
        raise
    raise SystemExit("FAILED: "+what+" is not refused")
with open('late','wb') as f: f.write(b'1234')
f=os.open('late',os.O_RDWR); os.read(f,9); os.write(f,b'x')
with open('late','r+b') as g: g.write(b'y')
refused('a commit that is late',lambda: os.fsync(f))
refused('an open of what was rolled back',lambda: os.open('/proc/self/fd/%d'%f,os.O_WRONLY|os.O_TRUNC))
os.close(f)
PY
python3 "$WORK/refused.py" "$MNT" || fail "see above"
none_open() {
	grep -q ' 0 open' "$MNT/.sop/status"
}
wait_until 20 none_open || fail "a session stays open: $(cat "$MNT/.sop/status")"
unmount_volume
check_volume
