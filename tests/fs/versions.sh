#!/bin/bash
# Many writers and readers of one file at once: every reader sees one whole version, every open works, the
# newest version is there when close() has returned, and no appended line is lost or torn.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 4 2+2
mount_volume
cat >"$WORK/versions.py" <<'PY'
import os, sys, time, random
mnt, kind, who, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
random.seed(4711 + who)
path = mnt + '/f'
def whole(data):
    return len(data) >= 9 and data == (data[:1] * (len(data)))
for n in range(rounds):
    if kind == 'writer':
        flags = random.choice([os.O_TRUNC, os.O_TRUNC | os.O_CREAT])
        c = bytes([random.randrange(97, 123)])
        f = os.open(path, os.O_WRONLY | flags)
        size = random.choice([9, 5000, 200000])
        done = 0
        while done < size:
            k = min(size - done, 70000)
            done += os.write(f, c * k)
        os.close(f)
    elif kind == 'reader':
        f = os.open(path, os.O_RDONLY)
        size = os.fstat(f).st_size
        data = b''
        while True:
            part = os.read(f, 65536)
            if not part:
                break
            data += part
        again = os.pread(f, len(data) + 1, 0)
        os.close(f)
        if not whole(data) or again != data or size != len(data):
            sys.exit('torn: %d bytes, fstat %d, again %d, %r' % (len(data), size, len(again), data[:20]))
    elif kind == 'stat':
        if os.stat(path).st_size not in (9, 5000, 200000):
            sys.exit('size of no version')
        os.chmod(path, 0o600 + n % 8)
    elif kind == 'append':
        with open(mnt + '/log', 'a') as f:
            f.write('%d %d %s\n' % (who, n, 'x' * random.randrange(300)))
    elif kind == 'alone':
        f = os.open(mnt + '/own%d' % who, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(f, b'%d' % n)
        os.close(f)
        if open(mnt + '/own%d' % who).read() != '%d' % n or os.stat(mnt + '/own%d' % who).st_size != len('%d' % n):
            sys.exit('stale after close')
PY
printf 'aaaaaaaaa' >"$MNT/f"
rounds=${LONG:+3000}
rounds=${rounds:-200}
pids=()
for i in 1 2 3; do
	for kind in writer reader append alone; do
		python3 "$WORK/versions.py" "$MNT" $kind $i "$rounds" &
		pids+=($!)
	done
done
python3 "$WORK/versions.py" "$MNT" stat 1 "$rounds" &
pids+=($!)
bad=0
for p in "${pids[@]}"; do
	wait "$p" || bad=1
done
[ $bad = 0 ] || fail "see above"
assert_eq "$(wc -l <"$MNT/log")" $((3 * rounds)) "lines appended"
awk '{ if ($2 != n[$1] + 0 || NF != 3 && $3 != "") exit 1; n[$1]++ }' "$MNT/log" || fail "a line is torn or out of order"
grep -qE ' 0 conflicts, 0 failed' "$MNT/.sop/status" || {
	cat "$MNT/.sop/status"
	fail "blind writers do not conflict"
}
unmount_volume
check_volume
