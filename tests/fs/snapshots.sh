#!/bin/bash
# Readers keep the version they opened: by read, pread, mmap and fstat, at every size, whatever becomes of the
# file; any number of versions at once; and space returns when the last reader goes.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 4 2+2
mount_volume commit=100ms,checkpoint=500ms
cat >"$WORK/snapshots.py" <<'PY'
import mmap, os, random, resource, sys
mnt, big, versions, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
os.chdir(mnt)
random.seed(seed)
resource.setrlimit(resource.RLIMIT_NOFILE, (versions + 100, versions + 100))
def content(size, n):
    return (b'%d.' % n * (size // 2 + 1))[:size]
def put(name, data, flags=os.O_TRUNC):
    f = os.open(name, os.O_WRONLY | os.O_CREAT | flags)
    view = memoryview(data)
    while view:
        view = view[os.write(f, view[:1 << 20]):]
    os.close(f)
class Reader:
    def __init__(self, name, data):
        self.data, self.f = data, os.open(name, os.O_RDONLY)
        self.map = mmap.mmap(self.f, len(data), prot=mmap.PROT_READ) if data else None
    def check(self, what):
        size, data = len(self.data), self.data
        assert os.fstat(self.f).st_size == size, (what, 'fstat', os.fstat(self.f).st_size, size)
        assert os.lseek(self.f, 0, os.SEEK_END) == size, (what, 'SEEK_END')
        assert os.pread(self.f, 100, size) == b'', (what, 'beyond the end')
        os.lseek(self.f, 0, os.SEEK_SET)
        got = b''
        while part := os.read(self.f, 1 << 18):
            got += part
        assert got == data, (what, 'read')
        for _ in range(5):
            at = random.randrange(size + 1)
            assert os.pread(self.f, 5000, at) == data[at:at + 5000], (what, 'pread')
        assert not self.map or self.map[:] == data, (what, 'mmap')
    def close(self):
        if self.map:
            self.map.close()
        os.close(self.f)
def patch(name, data):
    f = os.open(name, os.O_WRONLY)
    os.pwrite(f, data, 0)
    os.close(f)
changes = {
    'rewritten': lambda n: put(n, content(7000, 2)),
    'emptied': lambda n: put(n, b''),
    'written to': lambda n: patch(n, b'other'),
    'appended to': lambda n: put(n, b'more' * 3000, os.O_APPEND),
    'cut': lambda n: os.truncate(n, 1),
    'made longer': lambda n: os.truncate(n, 5000000),
    'replaced': lambda n: (put('tmp', b'replacement'), os.rename('tmp', n)),
    'exchanged': lambda n: (put('tmp', b'replacement'), os.rename(n, 'aside'), os.rename('tmp', n)),
    'unlinked': lambda n: os.unlink(n),
}
for size in 0, 1, 4095, 4096, 70000, (1 << 20) + 1:
    for what, change in changes.items():
        data = content(size, 1)
        put('f', data)
        readers = [Reader('f', data)]
        readers[0].check(what + ', before')  # so that the kernel has it
        readers.append(Reader('f', data))    # and one that has read nothing yet
        for _ in range(2):
            if os.path.exists('f'):
                change('f')
            for r in readers:
                r.check('%d bytes, %s' % (size, what))
        for r in readers:
            r.close()
print('every size', flush=True)

# A large file overwritten in places, cut, written on: its reader compares block by block.
BLOCK = 1 << 20
def block(i):
    return (b'block %d ' % i * (BLOCK // 8))[:BLOCK]
f = os.open('big', os.O_WRONLY | os.O_CREAT)
for i in range(big):
    os.write(f, block(i))
os.close(f)
r = os.open('big', os.O_RDONLY)
m = mmap.mmap(r, big * BLOCK, prot=mmap.PROT_READ)
seen = random.sample(range(big), big // 4)
def same(where):
    for i in where:
        assert m[i * BLOCK:(i + 1) * BLOCK] == block(i), ('mmap of the large file', i)
        assert os.pread(r, BLOCK, i * BLOCK) == block(i), ('pread of the large file', i)
same(seen)
for _ in range(10):
    w = os.open('big', os.O_WRONLY)
    for _ in range(30):
        n = random.choice([1, 100, 4096, 5000, 200000])
        os.pwrite(w, b'!' * n, random.randrange(big * BLOCK))
    os.close(w)
same(range(0, big, 2))
os.truncate('big', BLOCK // 2)
same(range(1, big, 2))
put('big', b'short')
assert os.fstat(r).st_size == big * BLOCK and os.stat('big').st_size == 5
same(range(big))
os.unlink('big')
same(range(0, big, 3))
print('large', flush=True)
m.close()
os.close(r)

# Many versions at once, each with its reader.
readers = []
for n in range(versions):
    data = content(random.choice([10, 3000, 9000]), n)
    put('many', data)
    readers.append((os.open('many', os.O_RDONLY), data))
random.shuffle(readers)
for f, data in readers:
    assert os.fstat(f).st_size == len(data) and os.pread(f, 10000, 0) == data
for f, data in readers:
    os.close(f)
os.unlink('many')
print('versions', flush=True)
PY
metric() {
	awk -v n="sopfs_$1" '$1 == n || index($1, n "{") == 1 { print int($2) }' "$MNT/.sop/metrics"
}
python3 "$WORK/snapshots.py" "$MNT" "$([ -z "$LONG" ] && echo 48 || echo 1024)" \
	"$([ -z "$LONG" ] && echo 1000 || echo 4000)" "$SEED" || fail "see above"
rm -f "$MNT"/*
# Nothing is left: what was pinned is given back.
less_than() {
	[ "$(metric "$1")" -lt "$2" ]
}
wait_until 30 less_than pinned_bytes 1000000 || fail "pinned still: $(metric pinned_bytes)"
wait_until 30 less_than live_bytes 4000000 || fail "live still: $(metric live_bytes)"
unmount_volume
check_volume
