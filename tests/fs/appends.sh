#!/bin/bash
# Many appenders: no line lost, none torn or split, each one's in its order; a long-lived one's lines show
# within append_commit= and survive its SIGKILL; a session cut short by an appender's kill takes no whole line
# of others with it.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 4 2+2
mount_volume append_commit=300ms
cat >"$WORK/appends.py" <<'PY'
import os, random, signal, subprocess, sys, time
kind, log = sys.argv[1:3]
if kind == 'lines':
    # One descriptor for all, one for each, or a shell-like copy of one: by turns.
    who, lines = int(sys.argv[3]), int(sys.argv[4])
    random.seed(who)
    f = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for i in range(lines):
        line = b'%d %d %s\n' % (who, i, b'abcdefghij' * random.randrange(random.choice([2, 2, 2, 2000])))
        line = line[:-1] + b' %d\n' % len(line)
        assert os.write(f, line) == len(line)
        if random.randrange(20) == 0:
            os.close(f)
            f = os.open(log, os.O_WRONLY | os.O_APPEND)
        elif random.randrange(20) == 0:
            os.close(os.dup(f))
        elif random.randrange(100) == 0:
            os.fsync(f)
    os.close(f)
elif kind == 'check':
    writers, lines = int(sys.argv[3]), int(sys.argv[4])
    n = [0] * writers
    for line in open(log, 'rb'):
        words = line.split()
        who, i = int(words[0]), int(words[1])
        assert int(words[-1]) == len(line) - len(words[-1]) - 1, 'torn: %r' % line[:60]
        assert i == n[who], 'writer %d: line %d after %d' % (who, i, n[who] - 1)
        n[who] += 1
    assert n == [lines] * writers, n
elif kind == 'long':
    # A service: opens once, writes a line now and then, never closes.
    f = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    n = 0
    for line in sys.stdin:
        os.write(f, b'event %d\n' % n)
        n += 1
        print('written', flush=True)
else:
    p = subprocess.Popen([sys.executable, sys.argv[0], 'long', log], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    def write():
        p.stdin.write(b'\n')
        p.stdin.flush()
        p.stdout.readline()
    for n in range(3):
        write()
        end = time.monotonic() + 20 # a loaded machine; append_commit= is 0.3 s
        while open(log).read() != ''.join('event %d\n' % i for i in range(n + 1)):
            assert time.monotonic() < end, 'it does not show: %r' % open(log).read()
            time.sleep(.02)
    # Rotated: it goes on in the old file, as everywhere.
    os.rename(log, log + '.1')
    write()
    p.kill()
    p.wait()
    got = open(log + '.1').read()
    assert got.startswith('event 0\nevent 1\nevent 2\n') and got[24:] in ('', 'event 3\n'), got
PY
writers=16 lines=600
[ -z "$LONG" ] || lines=10000
pids=()
for ((w = 0; w < writers; w++)); do
	python3 "$WORK/appends.py" lines "$MNT/log" $w $lines &
	pids+=($!)
done
# Others append to the same file and are killed: what they wrote since their last commit goes, nothing else.
for ((i = 0; i < 20; i++)); do
	bash -c 'printf "%1000s" gone; kill -9 $$' >>"$MNT/log" 2>/dev/null || true
done
for p in "${pids[@]}"; do
	wait "$p" || fail "see above"
done
# Of a killed one the interval may have committed the line: it is whole then, and taken out.
python3 - "$MNT/log" <<'PY'
import sys
data = open(sys.argv[1], 'rb').read().replace(b' ' * 996 + b'gone', b'')
open(sys.argv[1], 'wb').write(data)
PY
python3 "$WORK/appends.py" check "$MNT/log" $writers $lines || fail "see above"
python3 "$WORK/appends.py" service "$MNT/events" || fail "see above"
grep -q ' 0 conflicts, 0 failed' "$MNT/.sop/status" || fail "appenders conflict: $(grep -A 5 sessions "$MNT/.sop/status")"
unmount_volume
check_volume
