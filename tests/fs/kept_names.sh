#!/bin/bash
# What the kernel keeps of a file that is written by short sessions, again and again: whoever looks at it in
# between finds what is committed, by name or by a descriptor, and never what a writer has not closed yet.
# Random looks and writes against a model, by names that come and go: links, renames, files made without a name,
# writers that are killed, readers and mappings of old versions. SEED= to repeat one.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 4 2+2
# What is appended is committed by its close alone.
mount_volume append_commit=600

cat >"$WORK/kept_names.py" <<'PY'
import mmap, os, random, signal, sys

where, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
NAMES = ['log', 'list', 'other', 'd/log', 'd/more']
path = lambda n: os.path.join(where, n)

class File:
    def __init__(self):
        self.committed = b''    # what everybody sees
        self.names = set()
        self.writers = []       # (descriptor, kind, what it has written)

named = {}       # name: its file
nameless = []    # files that writers or readers still have
reading = []     # (descriptor, its file, the content it was opened on, a mapping of that or None)

APPEND, REWRITE, PATCH = range(3)

def after(kind, before, text):
    if kind == APPEND:
        return before + text
    return text if kind == REWRITE else text + before[len(text):]

def open_to_write(name, kind):
    flags = os.O_CREAT | os.O_WRONLY | [os.O_APPEND, os.O_TRUNC, 0][kind]
    text = b'%d,' % random.randrange(10 ** random.randrange(1, 9))
    fd = os.open(path(name), flags, 0o644)
    assert os.write(fd, text) == len(text)
    return fd, text

# It opens, writes, and never closes.
def killed(name):
    pid = os.fork()
    if pid == 0:
        open_to_write(name, random.randrange(3))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)

# By another process: the writer is the one whom it shows what it has not closed yet, and a child of it would inherit
# what it has open.
def looker():
    ask_r, ask_w = os.pipe()
    told_r, told_w = os.pipe()
    if os.fork() == 0:
        os.close(ask_w)
        os.close(told_r)
        with os.fdopen(ask_r) as ask, os.fdopen(told_w, 'w') as told:
            for line in ask:
                what, name = line.split()
                if what == 'kill':
                    killed(name)
                    print('killed', file=told, flush=True)
                    continue
                name = path(name)
                try:
                    st = os.stat(name)
                    with open(name) as f:
                        length, data = os.fstat(f.fileno()).st_size, f.read()
                    print(st.st_size, length, st.st_nlink, data, file=told, flush=True)
                except FileNotFoundError:
                    print('gone', file=told, flush=True)
        os._exit(0)
    os.close(ask_r)
    os.close(told_w)
    return os.fdopen(ask_w, 'w'), os.fdopen(told_r)

ask, told = looker()

def tell(what, name):
    print(what, name, file=ask, flush=True)
    return told.readline().rstrip('\n')

def seen(name):
    answer = tell('look', name)
    if name not in named:
        assert answer == 'gone', '%s is not there, but %r' % (name, answer[-40:])
        return
    assert answer != 'gone', name + ' is gone'
    size, length, links, data = answer.split(' ')
    want = named[name].committed
    assert (int(size), int(length), data.encode()) == (len(want), len(want), want), \
        '%s: %s and %s bytes %r, committed are %d %r' % (name, size, length, data[-40:], len(want), want[-40:])
    assert int(links) == len(named[name].names), '%s: %s links of %r' % (name, links, named[name].names)

def begin(name):
    kind = random.randrange(3)
    fd, text = open_to_write(name, kind)
    f = named.setdefault(name, File())
    f.names.add(name)
    f.writers.append((fd, kind, text))
    return f

def end(f):
    fd, kind, text = f.writers.pop(random.randrange(len(f.writers)))
    os.close(fd)
    if f.names:
        f.committed = after(kind, f.committed, text)

def lose(name):
    f = named.pop(name)
    f.names.remove(name)
    if not f.names:
        nameless.append(f)

def rename(name, to):
    os.rename(path(name), path(to))
    if to in named and named[to] is named[name]:
        return
    # With the name goes what this process has written so far: of one of its sessions, and which is not said.
    if to in named:
        lose(to)
    named[to] = named[name]
    named[to].names.add(to)
    lose(name)

def link(name, to):
    os.link(path(name), path(to))
    named[to] = named[name]
    named[to].names.add(to)

def unnamed():
    fd = os.open(where, os.O_TMPFILE | os.O_WRONLY, 0o644)
    os.write(fd, b'1,')
    to = random.choice(NAMES)
    if to not in named:
        os.link('/proc/self/fd/%d' % fd, path(to), src_dir_fd=fd) # with AT_SYMLINK_FOLLOW
        named[to] = File()
        named[to].names.add(to)
        named[to].committed = b'1,'
    os.close(fd)

def read(name):
    f = named[name]
    fd = os.open(path(name), os.O_RDONLY)
    length = len(f.committed)
    m = mmap.mmap(fd, length, prot=mmap.PROT_READ) if length and random.randrange(2) else None
    reading.append((fd, f, f.committed, m))

def read_again():
    fd, f, content, m = reading.pop(random.randrange(len(reading)))
    assert os.fstat(fd).st_size == len(content), 'an older descriptor: %d bytes, not %d' % (
        os.fstat(fd).st_size, len(content))
    assert os.pread(fd, 1 << 20, 0) == content, 'an older descriptor'
    if m:
        assert m[:] == content, 'an older mapping'
        m.close()
    assert os.fstat(fd).st_nlink == len(f.names), 'links by an older descriptor'
    os.close(fd)

os.mkdir(path('d'))
try:
    for step in range(steps):
        name = random.choice(NAMES)
        to = random.choice(NAMES)
        f = named.get(name)
        # Mostly one thing many times over, as programs do.
        what = random.choice(['write'] * 6 + ['open', 'open', 'end', 'end'] + ['look'] * 3 +
                             ['stat', 'read', 'again', 'rename', 'link', 'unlink', 'kill', 'unnamed'])
        if what == 'write':
            for _ in range(random.choice([1, 1, 2, 5])):
                begin(name)
                end(named[name])
        elif what == 'open':
            begin(name)
        elif what == 'look':
            seen(name)
        elif what == 'unnamed':
            unnamed()
        elif what == 'again':
            if reading:
                read_again()
        elif what == 'end' and nameless:
            f = nameless.pop(0)
            while f.writers:
                end(f)
        elif not f:
            seen(name)
        elif what == 'end':
            while f.writers:
                end(f)
                seen(name)
        elif what == 'stat':
            for _ in range(random.choice([1, 2, 3])):
                assert os.stat(path(name)).st_size == len(f.committed)
        elif what == 'read':
            read(name)
        elif what == 'kill':
            tell('kill', name)
            seen(name)
        elif what == 'unlink':
            os.unlink(path(name))
            lose(name)
            seen(name)
        elif f.writers:
            seen(name)
        elif what == 'rename':
            rename(name, to)
            seen(to)
        elif to not in named:
            link(name, to)
            seen(to)
    for name in NAMES:
        seen(name)
except AssertionError as e:
    sys.exit('step %d: %s' % (step, e))
PY

seed=${SEED:-$RANDOM}
echo "SEED=$seed"
for ((i = 0; i < 4; i++)); do
	mkdir "$MNT/d$i"
	python3 "$WORK/kept_names.py" "$MNT/d$i" $((seed + i)) 400 || fail "SEED=$seed, run $i"
done
unmount_volume
