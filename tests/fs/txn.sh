#!/bin/bash
# Transactions over many files: sopctl txn, and by hand below .sop/txn. Nobody sees anything of one before its
# commit, everybody all of it after; those who have files open keep what they have; what fails, is killed or
# loses leaves nothing behind; also when several mount the volume.
. "$(dirname "$0")/functions.sh"
requires_root
requires python3 setfattr setfacl jq
new_volume 2 1+1
mount_volume
chmod 777 "$MNT"
T=$MNT/.sop/txn

txn() { # OPTION... -- COMMAND...
	"$SOPCTL" txn "$MNT" "$@"
}

begin() {
	mkdir "$T/$1"
}

commit() {
	mv "$T/$1" "$MNT/.sop/commit"
}

loses() {
	mv "$T/$1" "$MNT/.sop/commit" 2>"$WORK/err" && fail "$2: committed"
	grep -q 'resource busy' "$WORK/err" || fail "$2: $(cat "$WORK/err")"
	rmdir "$T/$1"
}

# ---- by hand: all that can be done to names and files, and nothing of it seen before the end ----
mkdir -p "$MNT/dir/sub" "$MNT/empty"
for f in keep rewrite append unlinked renamed replaced linked; do echo "old $f" >"$MNT/$f"; done
echo below >"$MNT/dir/sub/file"
tree_list "$MNT" >"$WORK/before"
begin t
assert_eq "$(ls "$T")" t "listed"
assert_eq "$(jq .sessions.transactions "$MNT/.sop/status.json")" 1 "in status"
for f in keep rewrite dir/sub/file; do cmp "$MNT/$f" "$T/t/$f"; done
(
	cd "$T/t" || exit
	echo new >rewrite
	echo more >>append
	printf two >>append
	rm unlinked
	mv renamed moved
	echo replacement >new
	mv new replaced
	ln linked second
	ln -s rewrite symlink
	mkdir -p made/deep
	echo inner >made/deep/file
	mv dir/sub made/
	rmdir dir empty
	mkfifo pipe
	chmod 640 keep
	setfattr -n user.a -v b keep
	setfacl -m u:1234:r keep
	head -c 3000000 /dev/urandom >big
	cp big made/copy
	truncate -s 1000000 big
	fallocate -p -o 0 -l 4096 big
)
tree_list "$T/t" >"$WORK/inside"
assert_eq "$(cat "$T/t/append")" "$(printf 'old append\nmore\ntwo')" "appends inside"
cmp -s "$WORK/before" "$WORK/inside" && fail "nothing has changed inside"
tree_list "$MNT" | cmp - "$WORK/before" || fail "it is seen before the commit"
cmp <(getfattr -d "$MNT/keep" 2>&1) /dev/null || fail "an attribute is seen before the commit"
sha256sum "$T/t/big" "$T/t/made/copy" | awk '{print $1}' >"$WORK/sums"
commit t
[ ! -e "$T/t" ] || fail "it is there still"
sha256sum "$MNT/big" "$MNT/made/copy" | awk '{print $1}' | cmp - "$WORK/sums" || fail "values after the commit"
# Times of directories are those of the commit.
tree_list "$MNT" | sed '/ d[0-9rwx]* \| d /s/ [^ ]* [^ ]*$//' >"$WORK/after"
sed '/ d[0-9rwx]* \| d /s/ [^ ]* [^ ]*$//' "$WORK/inside" | cmp - "$WORK/after" ||
	fail "after the commit it is not what it was inside"
assert_eq "$(cat "$MNT/made/sub/file" "$MNT/moved" "$MNT/second")" "$(printf 'below\nold renamed\nold linked')" contents
assert_eq "$(getfattr --only-values -n user.a "$MNT/keep")" b "an attribute"
assert_eq "$(stat -c %h "$MNT/second" "$MNT/linked" "$MNT/made" | xargs)" "2 2 4" "link counts"
getfacl -cn "$MNT/keep" | grep -q '^user:1234:r--' || fail "an access control list"

# ---- rolled back ----
tree_list "$MNT" >"$WORK/before"
begin t
rm -rf "$T/t"/*
echo x >"$T/t/x"
assert_eq "$(ls "$T/t")" x "all removed inside"
rmdir "$T/t"
tree_list "$MNT" | cmp - "$WORK/before" || fail "a rollback leaves something"
expect_exit 3 txn -- sh -c "rm -rf '$MNT'/*; exit 3"
expect_exit 137 txn -- sh -c "rm -rf '$MNT'/made; kill -9 \$\$"
expect_exit 127 txn -- no-such-command
tree_list "$MNT" | cmp - "$WORK/before" || fail "a command that failed leaves something"

# ---- the command: the same path, its own working directory, its children ----
cd "$MNT/made" || exit
txn -- sh -c 'echo here >here; (echo child >child); cat ../rewrite' >"$WORK/out"
cd "$TOP" || exit
assert_eq "$(cat "$WORK/out" "$MNT/made/here" "$MNT/made/child" | xargs)" "new here child" "a command"
expect_exit 2 txn -- "$SOPCTL" txn "$MNT" -- true
expect_says nest
expect_exit 4 "$SOPCTL" txn "$WORK" -- true
expect_exit 2 txn --retry=many -- true
expect_exit 2 "$SOPCTL" txn "$MNT"
expect_exit 1 txn -- mkdir "$MNT/.sop"
expect_exit 1 txn -- touch "$MNT/.sop"
[ -d "$MNT/.sop/txn" ] || fail ".sop was replaced"

# Who holds it is killed: so is the command, and nothing of it stays.
"$SOPCTL" txn "$MNT" -- sh -c "echo bad >'$MNT/rewrite'; echo >'$WORK/ready'; exec sleep 1000" &
holder=$!
wait_until 20 test -e "$WORK/ready" || fail "the command does not begin"
command=$(pgrep -P "$holder")
assert_eq "$(find "$T" -mindepth 1 -maxdepth 1 | wc -l)" 1 "one is under way"
kill -9 "$holder"
wait "$holder" 2>/dev/null || true
wait_gone "$command" 20 || fail "the command lives on"
wait_until 20 sh -c "[ -z \"\$(ls '$T')\" ]" || fail "it is not rolled back"
assert_eq "$(cat "$MNT/rewrite")" new "after who held it was killed"
# A signal to it alone reaches the command.
rm "$WORK/ready"
"$SOPCTL" txn "$MNT" -- sh -c "trap 'exit 9' TERM; echo bad >'$MNT/rewrite'; echo >'$WORK/ready'; while :; do sleep 0.05; done" &
holder=$!
wait_until 20 test -e "$WORK/ready" || fail "the command does not begin"
kill -TERM "$holder"
rc=0
wait "$holder" || rc=$?
assert_eq "$rc $(cat "$MNT/rewrite")" "9 new" "SIGTERM"
# What it finds ignored stays so for the command; and an ignored SIGCHLD does not hide its end.
expect_exit 5 env --ignore-signal=HUP "$SOPCTL" txn "$MNT" -- sh -c 'kill -HUP $$; exit 5'
expect_exit 6 env --ignore-signal=CHLD "$SOPCTL" txn "$MNT" -- sh -c 'exit 6'
# While one is under way the volume cannot be unmounted by accident.
rm "$WORK/ready"
"$SOPCTL" txn "$MNT" -- sh -c "echo late >'$MNT/late'; echo >'$WORK/ready'; until [ -e '$WORK/go' ]; do sleep 0.05; done" &
holder=$!
wait_until 20 test -e "$WORK/ready" || fail "the command does not begin"
! umount -i "$MNT" 2>/dev/null || fail "unmounted under a transaction"
touch "$WORK/go"
wait "$holder"
assert_eq "$(cat "$MNT/late")" late "after that"

# ---- who is first, wins ----
echo 1 >"$MNT/a"
echo 1 >"$MNT/b"
begin t; cat "$T/t/a" >"$WORK/out"; echo x >"$T/t/b"; echo 2 >"$MNT/a"
loses t "what was read has changed"
begin t; echo x >"$T/t/b"; echo 3 >"$MNT/b"
loses t "what was written has changed"
assert_eq "$(cat "$MNT/a" "$MNT/b" | xargs)" "2 3" "the winners"
mkdir "$MNT/box"
begin t; ls "$T/t/box" >"$WORK/out"; echo x >"$T/t/b"; echo 1 >"$MNT/box/1"
loses t "a directory that was listed has changed"
begin t; rm -r "$T/t/box"; mkdir "$MNT/box/2"
loses t "a directory that was removed is not empty"
begin t; echo x >"$T/t/name"; echo y >"$MNT/name"
loses t "a name that was made is taken"
begin t; begin u
echo t >"$T/t/a"; echo u >"$T/u/b"; echo u >"$T/u/box/u"; echo t >"$T/t/box/t"
commit t; commit u
assert_eq "$(cat "$MNT/a" "$MNT/b" "$MNT/box/t" "$MNT/box/u" | xargs)" "t u t u" "two about different things"
begin t; begin u
cat "$T/t/a" "$T/u/b" >"$WORK/out"; echo t >"$T/t/b"; echo u >"$T/u/a"
commit t
loses u "each read what the other wrote"
# A name that somebody has made and not closed yet is his.
exec 7>"$MNT/making"
begin t; echo x >"$T/t/making"
loses t "a name that is just being made"
mkdir "$MNT/ints"
setfattr -n sop.key -v int64 "$MNT/ints"
exec 8>"$MNT/ints/5"
begin t; echo x >"$T/t/ints/5"
loses t "a number that is just being made"
exec 8>&-
begin t; rm -r "$T/t/box"
exec 8>"$MNT/box/making"
loses t "a file is just being made in a directory that was removed"
echo mine >&7
exec 7>&- 8>&-
assert_eq "$(cat "$MNT/making")" mine "who made it"
# And the other way: a session that depends on what a transaction has changed.
expect_exit 0 python3 - "$MNT" "$T" <<'PY'
import errno, os, sys
mnt, t = sys.argv[1:]
f = os.open(mnt + '/a', os.O_RDWR)
os.pread(f, 10, 0)
os.pwrite(f, b'session', 0)
os.mkdir(t + '/t')
open(t + '/t/a', 'w').write('transaction')
os.rename(t + '/t', mnt + '/.sop/commit/t')
try:
    os.close(f)
    sys.exit('the session committed over it')
except OSError as e:
    assert e.errno == errno.EBUSY, e
assert open(mnt + '/a').read() == 'transaction'
PY
expect_exit 75 txn -- sh -c "cat '$MNT/a'; echo x >'$MNT/b'; nsenter -t $$ -m sh -c \"echo other >'$MNT/a'\""
expect_says 'nothing was changed'

# ---- those who have files open ----
expect_exit 0 python3 - "$MNT" "$T" <<'PY'
import os, sys
mnt, t = sys.argv[1:]
for n in 'gone', 'there', 'changed', 'blind':
    open(f'{mnt}/{n}', 'w').write('old ' + n)
os.mkdir(mnt + '/home')
open(mnt + '/home/file', 'w').write('file')
readers = {n: os.open(f'{mnt}/{n}', os.O_RDONLY) for n in ('gone', 'there', 'changed')}
gone = os.open(mnt + '/gone', os.O_RDWR)
blind = os.open(mnt + '/blind', os.O_WRONLY)
home = os.open(mnt + '/home', os.O_RDONLY)
os.mkdir(t + '/t')
os.unlink(t + '/t/gone')
os.rename(t + '/t/there', t + '/t/elsewhere')
os.rename(t + '/t/blind', t + '/t/blinder')
os.rename(t + '/t/home', t + '/t/house')
open(t + '/t/changed', 'w').write('NEW')
# Inside, what is unlinked goes on for who has it open.
inner = os.open(t + '/t/inner', os.O_CREAT | os.O_RDWR)
os.write(inner, b'inner')
os.unlink(t + '/t/inner')
os.pwrite(inner, b'I', 0)
assert os.pread(inner, 10, 0) == b'Inner'
assert os.fstat(inner).st_nlink == 0
os.rename(t + '/t', mnt + '/.sop/commit/t')
try:
    os.write(inner, b'x')
    sys.exit('a mirror that has ended is written to')
except OSError as e:
    pass
for n, f in readers.items():
    assert os.pread(f, 100, 0) == b'old ' + n.encode(), n
assert os.fstat(readers['gone']).st_nlink == 0
assert os.fstat(readers['there']).st_nlink == 1
os.pwrite(gone, b'still', 0)
assert os.pread(gone, 100, 0) == b'still' + b'old gone'[5:]
os.close(gone)
os.pwrite(blind, b'BLIND', 0)
os.close(blind)
assert open(mnt + '/blinder').read()[:5] == 'BLIND'
for n in 'gone', 'there', 'blind', 'home':
    assert not os.path.exists(f'{mnt}/{n}'), n
assert open(mnt + '/changed').read() == 'NEW'
assert open(mnt + '/elsewhere').read() == 'old there'
assert os.listdir(home) == ['file'] and os.listdir(mnt + '/house') == ['file']
os.chmod(mnt + '/elsewhere', 0o600)
assert os.fstat(readers['there']).st_mode & 0o777 == 0o600
PY

# In a store of maps two names may be one key: the other one is there, and who has the file open has it still.
mkdir "$MNT/people"
setfattr -n sop.key -v json:age "$MNT/people"
echo twin >"$MNT/people/{\"age\":7,\"name\":\"a\"}"
exec 7<"$MNT/people/{\"age\":7,\"name\":\"a\"}"
[ ! -e "$MNT/people/{\"age\":7,\"name\":\"b\"}" ] || fail "a twin is there"
begin t
mv -T "$T/t/people/{\"age\":7,\"name\":\"a\"}" "$T/t/people/{\"age\":7,\"name\":\"b\"}"
commit t
[ ! -e "$MNT/people/{\"age\":7,\"name\":\"a\"}" ] || fail "a twin's name before"
assert_eq "$(cat "$MNT/people/{\"age\":7,\"name\":\"b\"}")" twin "a twin's name"
assert_eq "$(stat -Lc %h "/proc/$$/fd/7")" 1 "a twin that is open"
exec 7<&-

# What is mounted in a directory, and who works there, stay when the directory itself is changed.
mkdir "$MNT/home" "$MNT/home/mounted"
mount -t tmpfs none "$MNT/home/mounted"
cd "$MNT/home/mounted/.."
begin t
chmod 711 "$T/t/home"
setfattr -n user.a -v b "$T/t/home"
echo x >"$T/t/home/new"
commit t
assert_eq "$(stat -c %a "$MNT/home") $(python3 -c 'import os; print(os.getcwd())')" "711 $MNT/home" "a directory somebody is in"
mountpoint -q "$MNT/home/mounted" || fail "what was mounted in a directory is gone"
cd "$TOP"
umount "$MNT/home/mounted"

# Where a file lies is told of itself, not of who has its name outside.
head -c 300000 /dev/urandom >"$MNT/large"
begin t
mv "$T/t/large" "$T/t/was"
echo x >"$T/t/large"
! getfattr --only-values -n sop.layout "$T/t/large" 2>/dev/null || fail "the layout of another file"
rmdir "$T/t"
getfattr --only-values -n sop.layout "$MNT/large" >"$WORK/out"

# Nothing leads from one into another, or out of it.
begin t; begin u
! ln "$T/t/a" "$T/u/link" 2>/dev/null || fail "a link between two"
! ln "$MNT/a" "$T/u/link" 2>/dev/null || fail "a link into one"
mv "$T/t/a" "$T/u/moved-a"
rmdir "$T/t" "$T/u"
[ -e "$MNT/a" ] || fail "what was moved out of one that is rolled back is gone"

# ---- not everybody's ----
begin t
as_user() {
	setpriv --reuid 12345 --regid 12345 --clear-groups "$@"
}
assert_eq "$(as_user ls "$T")" "" "another user lists it"
! as_user ls "$T/t" 2>/dev/null || fail "another user finds it"
! as_user rmdir "$T/t" 2>/dev/null || fail "another user ends it"
ls "$T/t" >"$WORK/out"
rmdir "$T/t"
as_user sh -c "for i in \$(seq 16); do mkdir '$T/'\$i || exit 1; done"
! as_user mkdir "$T/17" 2>/dev/null || fail "one user has any number"
begin root
rmdir "$T"/*
# Listed while others begin and end: those that are there all the time come once. (Names so long that an answer
# holds few.)
expect_exit 0 python3 - "$T" <<'PY'
import os, sys
os.chdir(sys.argv[1])
names = ['%03d' % i + 'x' * 250 for i in range(30)]
for n in names:
    os.mkdir(n)
got = []
for e in os.scandir('.'):
    if not got:
        os.rmdir(names[0])
        os.rmdir(names[29])
    if len(got) in (5, 20):
        os.mkdir('new-%d' % len(got))
    got.append(e.name)
for n in names[1:29]:
    assert got.count(n) == 1, '%s... is listed %d times' % (n[:3], got.count(n))
for n in os.listdir('.'):
    os.rmdir(n)
PY
# Where users may not mount in a namespace of their own, they cannot.
if as_user unshare -Urm mount --bind /tmp /tmp 2>/dev/null; then
	chmod 755 "$WORK"
	as_user "$SOPCTL" txn "$MNT" -- sh -c "id -u >'$MNT/by-user'"
	assert_eq "$(cat "$MNT/by-user") $(stat -c %u "$MNT/by-user")" "12345 12345" "by an ordinary user"
fi

# ---- many at once: none is lost, and none is seen in part ----
echo 0 >"$MNT/a"
echo 0 >"$MNT/b"
rm -f "$WORK/stop"
cat >"$WORK/reader.py" <<'PY'
import os, random, sys
mnt, stop, seed = sys.argv[1:]
random.seed(int(seed))
def get(n):
    with open(f'{mnt}/{n}') as f:
        return int(f.read())
def size(n):
    return os.stat(f'{mnt}/{n}').st_size
many = [f'many/{i}' for i in range(200)]
for n in many:
    size(n)
while not os.path.exists(stop):
    # What is read later is as new, or newer: in the kernel's memory too.
    for names in [('a', 'b')] + [random.sample(many, 2) for _ in range(20)]:
        one, other = [(size if n in many else get)(n) for n in names]
        if other < one:
            sys.exit(f'a part of a transaction was seen: {names}: {one}, {other}')
    n = [x for x in os.listdir(mnt) if x.startswith('turn-')]
    if len(n) != 1:
        sys.exit(f'a part of a rename was seen: {n}')
PY
mkdir "$MNT/many"
for ((i = 0; i < 200; i++)); do : >"$MNT/many/$i"; done
: >"$MNT/turn-0"
python3 "$WORK/reader.py" "$MNT" "$WORK/stop" "$SEED" >"$WORK/reader.out" 2>&1 &
reader=$!
workers=()
for _ in 1 2 3; do
	for ((i = 0; i < 8; i++)); do
		# shellcheck disable=SC2016
		txn --retry 1000 -- sh -ec 'cd "$1"; n=$(($(cat a) + 1)); echo $n >b; echo $n >a
			mv turn-* turn-$n' sh "$MNT" 2>>"$WORK/lost"
	done &
	workers+=($!)
done
for ((i = 1; i <= 10; i++)); do
	txn -- sh -c "cd '$MNT/many' && for f in *; do printf %${i}s x >\$f; done"
done
wait "${workers[@]}" || fail "a transaction was not done: $(tail -3 "$WORK/lost")"
touch "$WORK/stop"
wait "$reader" || fail "$(cat "$WORK/reader.out")"
assert_eq "$(cat "$MNT/a" "$MNT/b" | xargs) $(cd "$MNT" && echo turn-*)" "24 24 turn-24" "all of them, one after the other"

# ---- its end while many are still at work in it, and others where it changes things: none waits for the other ----
mkdir "$MNT/busy"
cat >"$WORK/busy.py" <<'PY'
import errno, os, sys
mnt, t = sys.argv[1:]
def look(path, n):
    for i in range(10**9):
        try:
            os.stat(f'{path}/none-{n}-{i}')
        except OSError as e:
            if e.errno != errno.ENOENT or not os.path.exists(path):
                return
def make(path, n):
    while os.path.exists(f'{mnt}/making'):
        os.mkdir(f'{path}/{n}')
        os.rmdir(f'{path}/{n}')
def start(fn, *args):
    pid = os.fork()
    if not pid:
        fn(*args)
        os._exit(0)
open(mnt + '/making', 'w').close()
for i in range(6):
    start(make, mnt + '/busy', f'made-{i}')
for i in range(10):
    os.mkdir(f'{t}/t')
    for n in range(30):
        start(look, f'{t}/t', n)
    for n in range(20):
        open(f'{t}/t/busy/file-{i}-{n}', 'w').close()
    os.rename(t + '/t', mnt + '/.sop/commit/t')
os.unlink(mnt + '/making')
for i in range(6 + 10 * 30):
    assert os.wait()[1] == 0
assert len(os.listdir(mnt + '/busy')) == 200
PY
timeout -s KILL 100 python3 "$WORK/busy.py" "$MNT" "$T" || fail "many at work in one that is committed"

# ---- programs that are hard to please ----
if command -v git >/dev/null; then
	# shellcheck disable=SC2016
	txn -- sh -ec 'cd "$1"; git init -q repo; cd repo; cp "$2"/fs/*.c .; git add .
		git -c user.name=a -c user.email=b commit -qm one; git gc -q; git fsck
		cd ..; git clone -q repo clone' sh "$MNT" "$TOP" >"$WORK/out" 2>&1 || fail "git: $(tail -3 "$WORK/out")"
	diff -r -x .git "$MNT/repo" "$MNT/clone" || fail "git"
	(cd "$MNT/clone" && git fsck) >"$WORK/out" 2>&1 || fail "git fsck: $(tail -3 "$WORK/out")"
fi
expect_exit 0 txn -- python3 - "$MNT" <<'PY'
import fcntl, mmap, os, sqlite3, sys
os.chdir(sys.argv[1])
db = sqlite3.connect('db')
db.execute('pragma journal_mode=wal')
db.execute('create table t(a)')
other = sqlite3.connect('db')
with db:
    db.executemany('insert into t values (?)', [(i,) for i in range(100)])
assert other.execute('select count(*) from t').fetchone() == (100,)
db.close()
other.close()
f = os.open('mapped', os.O_RDWR | os.O_CREAT)
os.ftruncate(f, 8192)
m = mmap.mmap(f, 8192)
m[0:5] = b'first'
m.flush()
fcntl.flock(f, fcntl.LOCK_EX)
os.close(f)
m[5:9] = b'last'
m.close()
assert open('mapped', 'rb').read(9) == b'firstlast'
PY
assert_eq "$(head -c 9 "$MNT/mapped")" firstlast "a mapping"
assert_eq "$(python3 -c "import sqlite3; print(*sqlite3.connect('$MNT/db').execute('select sum(a) from t').fetchone())")" \
	4950 "a database"

# ---- crashes, and the end of the mount ----
# The first signal lets one under way come to its end.
rm -f "$WORK/ready" "$WORK/go"
"$SOPCTL" txn "$MNT" -- sh -c "echo later >'$MNT/late'; echo >'$WORK/ready'; until [ -e '$WORK/go' ]; do sleep 0.05; done" &
holder=$!
wait_until 20 test -e "$WORK/ready" || fail "the command does not begin"
kill -TERM "$PID"
detached() { ! mountpoint -q "$MNT"; }
wait_until 60 detached || fail "SIGTERM does not detach"
touch "$WORK/go"
wait "$holder" || fail "one that was under way at SIGTERM is not committed"
wait_gone "$PID" 60 || fail "the daemon stays"
mount_volume
assert_eq "$(cat "$MNT/late")" later "under way at SIGTERM"
# A file that is open, and has lost the one name by which the mount knew it, gets another.
echo x >"$MNT/known"
ln "$MNT/known" "$MNT/unknown"
unmount_volume
mount_volume
expect_exit 0 python3 - "$MNT" "$T" <<'PY'
import os, sys
mnt, t = sys.argv[1:]
f = os.open(mnt + '/known', os.O_RDONLY)
os.unlink(mnt + '/known')
assert os.fstat(f).st_nlink == 1
os.mkdir(t + '/t')
os.rename(t + '/t/unknown', t + '/t/found')
os.rename(t + '/t', mnt + '/.sop/commit/t')
os.mkdir(t + '/t')
os.link(t + '/t/found', t + '/t/twice')
os.chmod(t + '/t/found', 0o604)
os.rename(t + '/t', mnt + '/.sop/commit/t')
st = os.fstat(f)
assert st.st_nlink == 2 and st.st_mode & 0o777 == 0o604, st
PY
begin t
echo x >"$T/t/crash"
"$SOPCTL" txn "$MNT" -- sh -c "echo bad >'$MNT/rewrite'; : >'$WORK/running'; exec sleep 1000" 2>/dev/null &
holder=$!
wait_until 20 test -e "$WORK/running" || fail "the command does not begin"
txn -- sh -c "echo good >'$MNT/crash-after'"
kill_daemon
pkill -9 -P "$holder" || true
wait "$holder" 2>/dev/null || true
check_volume
mount_volume
assert_eq "$(cat "$MNT/rewrite") $(cat "$MNT/crash-after")" "new good" "after a crash"
[ ! -e "$MNT/crash" ] || fail "what was not committed is there after a crash"
begin t
echo x >"$T/t/left"
unmount_volume
mount_volume
[ ! -e "$MNT/left" ] || fail "what was not committed is there after an unmount"
unmount_volume
check_volume
mount_volume ro
! mkdir "$T/t" 2>/dev/null || fail "one begins on a read-only mount"
expect_exit 1 txn -- true
unmount_volume

# ---- a volume that several mount: another mounter sees it whole, and may be first ----
other=$WORK/other
mkdir "$other" "$WORK/shared"
MOUNTS+=("$other")
"$MKFS" -q -f --shared "$WORK/shared"
SOURCE=$WORK/shared
mount_volume
"$SOPFS" "$SOURCE" "$other" -o "log=$WORK/other.log"
echo 1 >"$MNT/a"
txn -- sh -ec "echo 2 >'$MNT/a'; mkdir '$MNT/d'; echo x >'$MNT/d/x'"
assert_eq "$(cat "$other/a" "$other/d/x" | xargs)" "2 x" "at another mounter"
expect_exit 75 txn -- sh -ec "cat '$MNT/a'; echo bad >'$MNT/b'; echo theirs >'$other/a'"
assert_eq "$(cat "$MNT/a") $(cd "$MNT" && echo *)" "theirs a d" "another mounter was first"
unmount_volume
unmount_and_wait "$other"
