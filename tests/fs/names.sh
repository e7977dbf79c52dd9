#!/bin/bash
# Names and open files: links, renames over and of what is open, exchange, removed directories, special files,
# extended attributes, set-ID bits.
. "$(dirname "$0")/functions.sh"
requires python3 setfattr
new_volume 2 1+1
mount_volume
chmod 755 "$WORK" "$MNT"
cat >"$WORK/names.py" <<'PY'
import os,sys,errno,subprocess
os.chdir(sys.argv[1])
def rd(p):
    with open(p,'rb') as f: return f.read()
def check(c, what):
    if not c: raise SystemExit("FAILED: "+what)
open('a','w').write('one'); os.link('a','b')
w=os.open('a',os.O_RDWR); os.write(w,b'TWO'); os.unlink('a'); os.close(w)
check(rd('b')==b'TWO','session follows to the other name %r'%rd('b'))
check(os.stat('b').st_nlink==1,'nlink')
os.link('b','c'); w=os.open('b',os.O_WRONLY|os.O_TRUNC); os.write(w,b'x'); check(rd('c')==b'TWO','private by other name'); os.close(w); check(rd('c')==b'x','c'); check(os.stat('c').st_size==1,'size by the other name'); check(os.stat('b').st_size==1,'size b')
# a second name given by another process, while a session has written
open('ln','w').write('one'); w=os.open('ln',os.O_RDWR); os.pread(w,3,0); os.pwrite(w,b'ONE+',0)
subprocess.run(['ln','ln','ln2'],check=True); os.pwrite(w,b'x',4); os.close(w); check(rd('ln')==rd('ln2')==b'ONE+x','linked while written %r'%rd('ln'))
# rename over an open file with sessions
open('t','w').write('target'); open('n','w').write('new')
r=os.open('t',os.O_RDONLY); w=os.open('t',os.O_RDWR); os.write(w,b'ZZZ')
os.rename('n','t'); check(rd('t')==b'new','replaced'); check(os.read(r,9)==b'target','reader'); check(os.pread(w,9,0)==b'ZZZget','writer'); os.close(w); os.close(r); check(rd('t')==b'new','writer goes nowhere')
# rename a file with a session of another process
open('q','w').write('q'); w=os.open('q',os.O_WRONLY); os.pwrite(w,b'1',1)
subprocess.run(['mv','q','q2'],check=True); check(rd('q2')==b'q','not committed by others'); os.close(w); check(rd('q2')==b'q1','follows %r'%rd('q2'))
# by its own process commits
w=os.open('q2',os.O_WRONLY); os.pwrite(w,b'2',2); os.rename('q2','q3'); check(rd('q3')==b'q12','own rename commits %r'%rd('q3')); os.close(w)
# exchange
import ctypes; libc=ctypes.CDLL(None,use_errno=True)
open('e1','w').write('1'); os.mkdir('e2'); open('e2/in','w').write('in')
check(libc.renameat2(-100,b'e1',-100,b'e2',2)==0,'exchange'); check(rd('e2')==b'1' and rd('e1/in')==b'in','exchanged')
check(libc.renameat2(-100,b'e2',-100,b'e1',1)==-1 and ctypes.get_errno()==errno.EEXIST,'noreplace')
w=os.open('prov',os.O_CREAT|os.O_WRONLY); os.write(w,b'p')
check(libc.renameat2(-100,b'e2',-100,b'prov',1)==-1 and ctypes.get_errno()==errno.EEXIST,'noreplace prov')
os.rename('e2','prov'); check(rd('prov')==b'1','over a provisional name'); os.close(w); check(rd('prov')==b'1','it goes nowhere')
# dirs
os.mkdir('d'); os.mkdir('d/e'); open('d/e/f','w').write('deep'); os.rename('d','dd'); check(rd('dd/e/f')==b'deep','deep'); open('dd/e/g','w').write('g');
check(os.stat('dd').st_nlink==3,'nlink dir %d'%os.stat('dd').st_nlink)
try: os.rename('dd','dd/e/x'); check(False,'loop')
except OSError as e: check(e.errno==errno.EINVAL,'loop')
try: os.rmdir('dd/e'); check(False,'notempty')
except OSError as e: check(e.errno==errno.ENOTEMPTY,'notempty')
# removed directory in use
os.mkdir('rm'); fd=os.open('rm',os.O_RDONLY); os.rmdir('rm'); check(os.listdir(fd)==[],'empty'); check(os.fstat(fd).st_nlink==0,'nlink0')
try: os.open('x',os.O_CREAT|os.O_WRONLY,dir_fd=fd); check(False,'create in removed')
except OSError as e: check(e.errno==errno.ENOENT,'enoent %d'%e.errno)
os.close(fd)
# names
try: open('n'*256,'w'); check(False,'long')
except OSError as e: check(e.errno==errno.ENAMETOOLONG,'long')
n='é'*127; open(n,'w').write('n'); check(rd(n)==b'n','255 bytes')
os.mkfifo('fifo'); os.mknod('dev',0o600|0o20000,os.makedev(1,3)); check(os.stat('dev').st_rdev==os.makedev(1,3),'rdev')
import socket; s=socket.socket(socket.AF_UNIX); s.bind('sock')
# xattrs
os.setxattr('b','user.a',b'1'); check(os.getxattr('c','user.a')==b'1','xattr by the other name')
try: os.setxattr('b','user.a',b'2',os.XATTR_CREATE); check(False,'create')
except OSError as e: check(e.errno==errno.EEXIST,'create')
try: os.setxattr('b','user.z',b'2',os.XATTR_REPLACE); check(False,'replace')
except OSError as e: check(e.errno==errno.ENODATA,'replace')
w=os.open('px',os.O_CREAT|os.O_WRONLY); os.setxattr(w,'user.p',b'prov'); os.write(w,b'x'); check(os.getxattr('px','user.p')==b'prov','prov x'); os.close(w); check(os.getxattr('px','user.p')==b'prov','kept')
print(os.getxattr('.','sop.count'),os.getxattr('b','sop.version'),os.getxattr('b','sop.ec'))
open('large','wb').write(os.urandom(3<<20))
lay=[l.split() for l in os.getxattr('large','sop.layout').decode().splitlines()]
check(sum(int(l[0].split('+')[1]) for l in lay)==3<<20 and all(l[1]=='segment' and l[3]=='1+1' and sorted(l[4:])==['d1','d2'] for l in lay),'layout %s'%lay)
check(os.getxattr('b','sop.layout').split()[1]==b'inline','layout of a small file')
for bad,err in (('sop.nothing',errno.ENODATA),):
    try: os.getxattr('b',bad); check(False,bad)
    except OSError as e: check(e.errno==err,bad)
try: os.setxattr('b','sop.version',b'1'); check(False,'ro')
except OSError as e: check(e.errno==errno.EPERM,'ro')
check(all(not x.startswith('sop.') for x in os.listxattr('b')),'listed')
# suid
import shutil
if os.geteuid() == 0 and shutil.which('setpriv'):
    open('su','w').write('x'); os.chmod('su',0o6777)
    subprocess.run(['setpriv','--reuid=1000','--regid=1000','--clear-groups','sh','-c','echo y >> su'],check=True); check(os.stat('su').st_mode&0o7777==0o777,'suid %o'%os.stat('su').st_mode)
    os.chmod('su',0o6777); subprocess.run(['setpriv','--reuid=1000','--regid=1000','--clear-groups','sh','-c',': > su'],check=True); check(os.stat('su').st_mode&0o7777==0o777,'suid trunc %o'%os.stat('su').st_mode)
    os.mkdir('sg'); os.chown('sg',0,77); os.chmod('sg',0o2775); open('sg/f','w').close(); os.mkdir('sg/d'); check(os.stat('sg/f').st_gid==77 and os.stat('sg/d').st_gid==77 and os.stat('sg/d').st_mode&0o2000,'setgid dir')
    os.mkdir('st'); os.chmod('st',0o1777); open('st/mine','w').close()
    check(subprocess.run(['setpriv','--reuid=1000','--regid=1000','--clear-groups','rm','-f','st/mine'],stderr=subprocess.DEVNULL).returncode!=0,'sticky')
print('OK')
PY
python3 "$WORK/names.py" "$MNT" >"$WORK/out" || {
	cat "$WORK/out"
	fail "see above"
}
grep -q '^OK$' "$WORK/out" || fail "it did not come to its end"
# Of several names the daemon knows, after a new mount, the one that was looked up. That goes, the file does not.
mkdir "$MNT/links" "$MNT/links/w"
setfattr -n sop.session -v write "$MNT/links/w"
cat >"$WORK/links.py" <<'PY'
import os, sys
os.chdir(sys.argv[1])
files = ['links/' + n for n in ('append', 'patch', 'trunc', 'read', 'over', 'w/append')]
if sys.argv[2] == 'make':
    for n in files:
        with open(n + '.kept', 'w') as f:
            f.write('base,')
        os.link(n + '.kept', n)
    sys.exit()
def see(n, want):
    got = open(n + '.kept').read()
    assert got == want and os.stat(n + '.kept').st_size == len(want), (n, got, want)
fds = {}
for n, how, want in (('append', os.O_APPEND, 'base,new,'), ('patch', 0, 'new,,'), ('trunc', os.O_TRUNC, 'new,'),
                     ('over', os.O_APPEND, 'base,new,'), ('w/append', os.O_APPEND, 'base,new,')):
    n = 'links/' + n
    fds[n] = fd = os.open(n, os.O_RDWR if how == 0 else os.O_WRONLY | how)
    os.write(fd, b'new,')
    if n == 'links/over':
        open('links/above', 'w').close()
        os.rename('links/above', n)
    else:
        os.unlink(n)
    assert os.fstat(fd).st_nlink == 1, (n, os.fstat(fd).st_nlink)
    os.fsync(fd)
    os.write(fd, b'more,')
    os.fchmod(fd, 0o640)
    assert os.fstat(fd).st_size == len(want) + (4 if how == 0 else 5), (n, os.fstat(fd).st_size)
    os.close(fd)
    see(n, 'new,more,' if how == 0 else want + 'more,')
    assert os.stat(n + '.kept').st_mode & 0o777 == 0o640, n
fd = os.open('links/read', os.O_RDONLY)
os.unlink('links/read')
assert os.fstat(fd).st_nlink == 1 and os.read(fd, 9) == b'base,'
with open('links/read.kept', 'a') as f:
    f.write('new,')
assert os.pread(fd, 9, 0) == b'base,' and os.fstat(fd).st_size == 5, os.fstat(fd)
os.unlink('links/read.kept')
assert os.pread(fd, 9, 0) == b'base,' and os.fstat(fd).st_nlink == 0, os.fstat(fd)
PY
python3 "$WORK/links.py" "$MNT" make
unmount_volume
mount_volume
python3 "$WORK/links.py" "$MNT" use || fail "what is written by a name that goes stays by the other"
unmount_volume
check_volume
