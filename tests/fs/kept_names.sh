#!/bin/bash
# What the kernel keeps of a file that is written by short sessions, again and again: whoever looks at it in
# between finds what is committed, by name or by a descriptor, and never what a writer has not closed yet.
# Random looks and writes against a model of one line; SEED= to repeat one.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 4 2+2
mount_volume

cat >"$WORK/kept_names.py" <<'PY'
import os, random, sys

where, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
names = ['log', 'list', 'other']
path = lambda n: os.path.join(where, n)
committed = {}   # what everybody sees
writing = {}     # name: [descriptor, its content]
reading = []     # (descriptor, the content it was opened on)

# By another process: the writer is the one whom it shows what it has not closed yet.
def looker():
    ask_r, ask_w = os.pipe()
    told_r, told_w = os.pipe()
    if os.fork() == 0:
        os.close(ask_w)
        os.close(told_r)
        with os.fdopen(ask_r) as ask, os.fdopen(told_w, 'w') as told:
            for line in ask:
                name = path(line.strip())
                size = os.stat(name).st_size
                with open(name) as f:
                    print(size, os.fstat(f.fileno()).st_size, f.read(), file=told, flush=True)
        os._exit(0)
    os.close(ask_r)
    os.close(told_w)
    return os.fdopen(ask_w, 'w'), os.fdopen(told_r)

ask, told = looker()

def look(name):
    print(name, file=ask, flush=True)
    size, length, data = told.readline().rstrip('\n').split(' ')
    return int(size), int(length), data.encode()

def seen(name):
    want = committed[name]
    size, length, data = look(name)
    assert (size, length, data) == (len(want), len(want), want), \
        '%s: %d and %d bytes %r, committed are %d %r' % (name, size, length, data[-40:], len(want), want[-40:])

def begin(name):
    kind = random.randrange(3)
    flags = os.O_CREAT | [os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY][kind]
    fd = os.open(path(name), flags, 0o644)
    before = b'' if kind == 1 else committed.get(name, b'')
    text = b'%d,' % random.randrange(10 ** random.randrange(1, 9))
    os.write(fd, text)
    after = before + text if kind == 0 else text + before[len(text):]
    writing[name] = [fd, after]

def end(name):
    fd, after = writing.pop(name)
    os.close(fd)
    committed[name] = after

for name in names:
    begin(name)
    end(name)
try:
    for step in range(steps):
        name = random.choice(names)
        # Mostly one thing many times over, as programs do.
        what = random.choice(['write'] * 6 + ['open', 'open'] + ['look'] * 2 + ['stat', 'read', 'rename'])
        if name in writing:
            seen(name)
            if random.randrange(2):
                end(name)
        elif what == 'write':
            for _ in range(random.choice([1, 1, 2, 5])):
                begin(name)
                end(name)
        elif what == 'open':
            begin(name)
        elif what == 'look':
            seen(name)
        elif what == 'stat':
            for _ in range(random.choice([1, 2, 3])):
                assert os.stat(path(name)).st_size == len(committed[name])
        elif what == 'read':
            reading.append((os.open(path(name), os.O_RDONLY), committed[name]))
        else:
            os.rename(path(name), path('moved'))
            os.rename(path('moved'), path(name))
        if len(reading) > 4:
            fd, content = reading.pop(random.randrange(len(reading)))
            assert os.pread(fd, 1 << 20, 0) == content, '%s by an older descriptor' % name
            os.close(fd)
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
