#!/bin/bash
# What one process has written into a database whose NAME-wal is open, another sees by its next read, though it
# opened the database before there was one, and takes no lock: SQLite's wal-index, in shared memory, sends it
# there.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
mount_volume
cat >"$WORK/companion.py" <<'PY'
import fcntl, os, sys
os.chdir(sys.argv[1])
rounds, page, pages = int(sys.argv[2]), 4096, 8
with open('db', 'wb') as f:
    f.write(b'-' * page * pages)
# Three that have it open as sessions, each by its own nodeid, and then share it; and one that comes after.
fds = [os.open('db', os.O_RDWR) for _ in range(3)]
wal = os.open('db-wal', os.O_RDWR | os.O_CREAT)
fds.append(os.open('db', os.O_RDWR))
def child(fd, there, back):
    while os.read(there, 1):
        os.write(back, os.pread(fd, page * pages, 0))
    os._exit(0)
readers = []
for fd in fds:
    there, back = os.pipe(), os.pipe()
    if not os.fork():
        os.close(there[1])
        for r in readers:
            os.close(r[0])
        child(fd, there[0], back[1])
    os.close(there[0])
    readers.append((there[1], back[0]))
def read_all(i):
    os.write(readers[i][0], b'.')
    got = b''
    while len(got) < page * pages:
        got += os.read(readers[i][1], page * pages)
    return got
want = bytearray(b'-' * page * pages)
for i in range(rounds):
    w, n, at, length = i % len(fds), 48 + i % 70, i // 3 % pages * page, page
    if i % 5 == 4: # not whole pages
        at, length = at + 100, 1000
    os.pwrite(fds[w], bytes([n]) * length, at)
    want[at:at + length] = bytes([n]) * length
    for r in range(len(fds)):
        got = read_all((w + 1 + r) % len(fds))
        if got != want:
            p = next(k for k in range(len(got)) if got[k] != want[k])
            sys.exit('round %d: written by %d, read by %d: byte %d is %r' % (i, w, (w + 1 + r) % len(fds), p, got[p:p + 1]))
# One makes the file longer, page by page, and goes on while another reads what it has been told of: all of it is
# there, though the kernel hears of the next change while it asks where the file ends.
told = os.pipe()
pid = os.fork()
if not pid:
    for i in range(pages, pages + rounds):
        os.pwrite(fds[0], bytes([48 + i % 70]) * page, i * page)
        os.write(told[1], b'.')
    os._exit(0)
os.close(told[1])
for i in range(pages, pages + rounds):
    if os.read(told[0], 1) != b'.':
        sys.exit('the writer failed')
    got = os.pread(fds[1], page, i * page)
    if got != bytes([48 + i % 70]) * page:
        sys.exit('page %d: %d bytes' % (i, len(got)))
os.waitpid(pid, 0)
# All at once, each its own part of each page: whoever waits holds up nobody whom it waits for. Who has a lock
# sees it all.
part = page // len(fds)
writers = []
for k, fd in enumerate(fds):
    pid = os.fork()
    if not pid:
        for i in range(rounds):
            os.pwrite(fd, bytes([48 + i % 70]) * part, i % pages * page + k * part)
            if i % 3 == k % 3:
                os.pread(fd, page, i * 5 % pages * page)
        os._exit(0)
    writers.append(pid)
for pid in writers:
    if os.waitpid(pid, 0)[1]:
        sys.exit('a writer failed')
fcntl.lockf(wal, fcntl.LOCK_EX)
for i in range(rounds - pages, rounds):
    for fd in fds:
        if os.pread(fd, page, i % pages * page) != bytes([48 + i % 70]) * page:
            sys.exit('page %d is not what was written last' % (i % pages))
PY
rounds=1000
[ -z "$LONG" ] || rounds=20000
timeout 600 python3 "$WORK/companion.py" "$MNT" $rounds || fail "a page that was written is not seen"
unmount_volume
check_volume
