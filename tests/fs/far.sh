#!/bin/bash
# Offsets up to 2^63-2 and sizes up to 2^63-1; blocks are counted exactly, in a session too.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
cat >"$WORK/far.py" <<'PY'
import os, sys, errno, mmap, ctypes
os.chdir(sys.argv[1])
M=(1<<63)-1
def check(c, what):
    if not c: raise SystemExit('FAILED: '+what)
def err(f,*a):
    try: f(*a); return 0
    except OSError as e: return e.errno
libc=ctypes.CDLL(None,use_errno=True)
def fallocate(fd,mode,off,ln):
    r=libc.fallocate64(fd,mode,ctypes.c_int64(off),ctypes.c_int64(ln))
    return ctypes.get_errno() if r else 0
f=os.open('far',os.O_CREAT|os.O_RDWR)
os.ftruncate(f,M); check(os.fstat(f).st_size==M,'size')
check(os.pwrite(f,b'e',M-1)==1,'last byte')
check(os.pread(f,1,M-1)==b'e','last')
check(err(os.pwrite,f,b'x',M) in (errno.EFBIG,errno.EINVAL),'past the end %d'%err(os.pwrite,f,b'xx',M))
check(os.pwrite(f,b'y',M-1)==1,'again')
check(os.lseek(f,0,os.SEEK_DATA)==M-1,'seek data'); check(os.lseek(f,0,os.SEEK_HOLE)==0,'hole')
check(os.lseek(f,M-1,os.SEEK_HOLE)==M,'hole at end')
os.pwrite(f,b'middle',1<<62); check(os.lseek(f,0,os.SEEK_DATA)==1<<62,'middle')
os.fsync(f)
check(os.pread(f,6,1<<62)==b'middle','m')
check(fallocate(f,0,M-10,20)==errno.EFBIG,'fallocate past')
check(fallocate(f,0,0,1<<60)==errno.ENOSPC,'more than there is')
check(fallocate(f,3,1<<62,4096)==0,'punch'); check(os.pread(f,6,1<<62)==b'\0'*6,'punched')
check(fallocate(f,3,M-4096,4096)==0,'punch end'); check(os.lseek(f,M-1,os.SEEK_HOLE)==M-1,'punched end')
os.ftruncate(f,100); check(os.fstat(f).st_size==100,'down'); os.ftruncate(f,M)
check(os.pread(f,5,M-5)==b'\0'*5,'zeros')
check(os.fstat(f).st_blocks==0,'blocks %d'%os.fstat(f).st_blocks)
g=os.open('g',os.O_CREAT|os.O_RDWR); os.pwrite(g,b'0123456789'*100,0)
check(err(os.copy_file_range,g,f,1000,0,M)==errno.EFBIG,'cfr past')
check(os.copy_file_range(g,f,1000,0,M-500)==500,'copy cut at the end')
check(os.pread(f,5,M-5)==b'56789','copied')
os.close(f)
f=os.open('far',os.O_RDWR)
check(os.pread(f,5,M-5)==(b'0123456789'*50)[-5:], 'end %r'%os.pread(f,5,M-5))
m=mmap.mmap(f,4096,offset=(M//4096)*4096-4096); m[0:3]=b'abc'; m.flush(); check(os.pread(f,3,(M//4096)*4096-4096)==b'abc','mmap far'); m.close()
check(err(os.ftruncate,f,-1)==errno.EINVAL,'neg')
check(err(os.lseek,f,M,os.SEEK_DATA)==errno.ENXIO,'enxio'); check(err(os.lseek,f,-1,os.SEEK_DATA)==errno.ENXIO,'enxio2')
check(err(os.lseek,f,-1,os.SEEK_SET)==errno.EINVAL,'einval')
os.close(f)
# st_blocks of a session, before and after its commit.
f = os.open('blocks', os.O_CREAT | os.O_RDWR)
def blocks(want, what):
    got = os.fstat(f).st_blocks * 512
    check(got == want, '%s: %d bytes, not %d' % (what, got, want))
for commit in False, True:
    os.ftruncate(f, 0)
    blocks(0, 'empty')
    for i in range(40):
        os.pwrite(f, b'x' * 65536, i * 131072)
        if commit:
            os.fsync(f)
    blocks(40 * 65536, 'every other piece')
    os.pwrite(f, b'y' * 65536, 0)
    blocks(40 * 65536, 'overwritten')
    os.pwrite(f, b'y' * 65536, 65536)
    blocks(41 * 65536, 'a hole filled')
    check(fallocate(f, 3, 32768, 65536) == 0, 'punch')
    blocks(40 * 65536, 'punched')
    check(fallocate(f, 3, 32768, 65536) == 0, 'punch')
    blocks(40 * 65536, 'punched twice')
    check(fallocate(f, 0x10, 131072, 4096) == 0, 'zero')
    blocks(40 * 65536 - 4096, 'zeroed')
    os.fsync(f)
    blocks(40 * 65536 - 4096, 'committed')
    os.ftruncate(f, 131072 + 65536)
    os.fsync(f)
    blocks(2 * 65536 - 4096, 'cut')
    os.ftruncate(f, 1 << 30)
    blocks(2 * 65536 - 4096, 'grown')
print('OK')
PY
for session in close write; do
	mount_volume "session=$session"
	mkdir "$MNT/$session"
	python3 "$WORK/far.py" "$MNT/$session" >"$WORK/out" 2>&1 || {
		cat "$WORK/out"
		fail "session=$session: see above"
	}
	grep -q '^OK$' "$WORK/out" || fail "it did not come to its end"
	unmount_volume
done
check_volume
