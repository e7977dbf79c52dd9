#!/bin/bash
# A file made as mkstemp does is handed on by name while it is open: its process and those that it starts
# read what has been written so far; strangers see nothing of it, and of other files nobody does.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
mount_volume
cat >"$WORK/stranger.py" <<'PY'
import sys
for line in sys.stdin:
    with open(line.rstrip('\n'), 'rb') as f:
        print(len(f.read()), flush=True)
PY
cat >"$WORK/temporary.py" <<'PY'
import os, subprocess, sys, tempfile
top, stranger = sys.argv[1:3]
os.chdir(top)
def check(c, what):
    if not c:
        raise SystemExit('FAILED: ' + what)
def rd(p):
    with open(p, 'rb') as f:
        return f.read()
# Started by the shell, not by us.
ask, answer = open(os.environ['ASK'], 'w'), open(os.environ['ANSWER'])
def size_for_a_stranger(p):
    ask.write(os.path.abspath(p) + '\n')
    ask.flush()
    return int(answer.readline())
fd, name = tempfile.mkstemp(dir='.')
os.write(fd, b'one')
check(size_for_a_stranger(name) == 0, 'a stranger sees nothing')
check(rd(name) == b'one', 'its process')
os.write(fd, b'two')
check(subprocess.run(['cat', name], stdout=subprocess.PIPE).stdout == b'onetwo', 'a child')
check(subprocess.run(['sh', '-c', 'sh -c "cat %s; true"; true' % name], stdout=subprocess.PIPE).stdout == b'onetwo', 'a grandchild')
r = os.open(name, os.O_RDONLY)
os.write(fd, b'three')
check(os.pread(r, 99, 0) == b'onetwo', 'a reader keeps its version')
check(rd(name) == b'onetwothree', 'the next open sees more')
check(os.pread(fd, 99, 0) == b'onetwothree', 'and the session goes on')
os.close(r)
os.rename(name, 'renamed')
os.write(fd, b'!')
check(rd('renamed') == b'onetwothree!', 'renamed')
os.unlink('renamed')
os.write(fd, b'?')
check(os.pread(fd, 99, 0) == b'onetwothree!?', 'unlinked')
os.close(fd)
for flags in os.O_RDWR, os.O_WRONLY | os.O_EXCL:
    fd = os.open('other', os.O_CREAT | flags)
    os.write(fd, b'x')
    check(rd('other') == b'', 'other files show what is committed')
    os.close(fd)
    check(rd('other') == b'x', 'closed')
    os.unlink('other')
print('OK')
PY
mkfifo "$WORK/ask" "$WORK/answer"
python3 "$WORK/stranger.py" <"$WORK/ask" >"$WORK/answer" &
ASK=$WORK/ask ANSWER=$WORK/answer timeout 60 python3 "$WORK/temporary.py" "$MNT" "$WORK/stranger.py" >"$WORK/out" 2>&1 || {
	cat "$WORK/out"
	fail "see above"
}
wait
grep -q '^OK$' "$WORK/out" || fail "it did not come to its end"
unmount_volume
check_volume
