#!/bin/bash
# -o sync, and the wait for the media fails, behind the commit: the call gives EIO, and what it did is there all
# the same, on the disks. Whoever looks sees it, as soon as the kernel has been told: not what it had kept, nor
# nothing at all. (Writes and truncations: session_write.sh.)
. "$(dirname "$0")/functions.sh"
# shellcheck source=tests/fs/disks.sh
. "$(dirname "$0")/disks.sh"
requires_root
requires python3 jq
mkdir "$WORK/back" "$WORK/f"
faulty_disk "$WORK/back" "$WORK/mode" "$WORK/f"
"$MKFS" -q -f --ec 1+0 "$WORK/f"
SOURCE=$WORK/f
cat >"$WORK/unsynced.py" <<'PY'
import ctypes, errno, os, stat, sys, time
mount, mode, how = sys.argv[1:]
os.chdir(mount); os.mkdir(how); os.chdir(how)
libc = ctypes.CDLL(None, use_errno=True)
def put(name, text):
    with open(name, 'w') as f: f.write(text)
def written(flags, then): # and not closed yet
    fd = os.open('new' if flags & os.O_CREAT else '.', flags, 0o644); os.write(fd, b'data')
    try: then(fd)
    finally: os.close(fd)
def linkat(fd):
    if libc.linkat(-100, b'/proc/self/fd/%d' % fd, -100, b'named', 0x400): raise OSError(ctypes.get_errno(), 'link')
def seen(): # all there is, by the listing and by each name that there has been
    out = {}
    for name in sorted(set(os.listdir('.')) | names):
        try: st = os.lstat(name)
        except FileNotFoundError:
            if name in os.listdir('.'): return '%s is listed and is not there' % name
            continue
        if name not in os.listdir('.'): return '%s is there and not listed' % name
        try: text = open(name).read() if stat.S_ISREG(st.st_mode) else stat.filemode(st.st_mode)
        except OSError as e: text = e.strerror
        out[name] = (text, st.st_nlink) if how in ('link', 'unlink') else text
    return out
create = os.O_CREAT | os.O_WRONLY
cases = { # what there is before, what is done, what there is then
    'create': ({}, lambda: written(create, lambda fd: None), {'new': 'data'}),
    'mkdir': ({}, lambda: os.mkdir('new'), {'new': 'drwxr-xr-x'}),
    'symlink': ({}, lambda: os.symlink('there', 'new'), {'new': 'lrwxrwxrwx'}),
    'rmdir': ({'a': None}, lambda: os.rmdir('a'), {}),
    'unlink': ({'a': 'A'}, lambda: os.unlink('b'), {'a': ('A', 1)}),
    'link': ({'a': 'A'}, lambda: os.link('a', 'new'), {'a': ('A', 2), 'new': ('A', 2)}),
    'rename': ({'a': 'A'}, lambda: os.rename('a', 'new'), {'new': 'A'}),
    'replace': ({'a': 'A', 'b': 'B'}, lambda: os.rename('a', 'b'), {'b': 'A'}),
    'movedir': ({'a': None}, lambda: os.rename('a', 'new'), {'new': 'drwxr-xr-x'}),
    'written': ({'b': 'B'}, lambda: written(create, lambda fd: os.rename('new', 'b')), {'b': 'data'}),
    'linked': ({}, lambda: written(create, lambda fd: os.link('new', 'b')), {'b': 'data', 'new': 'data'}),
    'tmpfile': ({}, lambda: written(os.O_TMPFILE | os.O_WRONLY, linkat), {'named': 'data'}),
    'chmod': ({'a': None}, lambda: os.chmod('a', 0o700), {'a': 'drwx------'}),
    'direct': ({}, lambda: os.close(os.open('new', create)), {'new': ''})}
before, change, after = cases[how]
if how == 'direct': os.setxattr('.', 'sop.session', b'write')
for name, text in before.items():
    if text is None: os.mkdir(name)
    else: put(name, text)
if how == 'unlink': os.link('a', 'b')
names = set(before) | set(after) | {'b', 'new'}
seen() # and kept by the kernel
with open(mode, 'w') as f: f.write('eio-fsync')
try: change(); failed = 0
except OSError as e: failed = e.errno
os.unlink(mode)
if failed != errno.EIO: raise SystemExit('FAILED: %s is not told: %d' % (how, failed))
for again in range(200):
    got = seen()
    if got == after: break
    time.sleep(.02)
else: raise SystemExit('FAILED: %s: %r, not %r' % (how, got, after))
PY
for how in create mkdir symlink rmdir unlink link rename replace movedir written linked tmpfile chmod direct; do
	mount_volume sync
	python3 "$WORK/unsynced.py" "$MNT" "$WORK/mode" "$how" || fail "see above"
	unmount_volume
done

# A transaction over many files, of which nobody is told that nothing was changed.
mount_volume
echo old >"$MNT/file"
# shellcheck disable=SC2016
expect_exit 1 "$SOPCTL" txn "$MNT" -- sh -c 'echo new >"$1/file"; echo eio-fsync >"$2"' sh "$MNT" "$WORK/mode"
rm "$WORK/mode"
expect_says 'committed, but not known to be on the media'
assert_eq "$(cat "$MNT/file")" new "what was committed"
assert_eq "$(jq .sessions.rolled_back "$MNT/.sop/status.json")" 0 "rolled back"
assert_eq "$(ls "$MNT/.sop/txn")" "" "transactions under way"
unmount_volume
