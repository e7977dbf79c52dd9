#!/bin/bash
# Every way a writer can end: each signal that kills, with one thread and with several, in pipelines and
# redirections, orphans; each normal exit, from any thread. Killed: rolled back, else committed.
. "$(dirname "$0")/functions.sh"
requires python3
new_volume 2 1+1
mount_volume
cat >"$WORK/killed.py" <<'PY'
import ctypes, os, resource, signal, sys, threading, time
os.chdir(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
libc = ctypes.CDLL(None, use_errno=True)
def fail(what):
    raise SystemExit('FAILED: ' + what)
def write(old, new):
    for name, flags in (old, os.O_WRONLY | os.O_TRUNC), (new, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
        os.write(os.open(name, flags, 0o600), b'new\n' * 2000)
# A child that writes, in its first thread or another, and ends as `end` does in a thread of its own choice.
def child(end, threads):
    open('old', 'w').write('old\n')
    if os.path.exists('new'):
        os.unlink('new')
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        if threads:
            waiters = [threading.Thread(target=time.sleep, args=(60,), daemon=True) for _ in range(2)]
            for t in waiters:
                t.start()
            w = threading.Thread(target=write, args=('old', 'new'))
            w.start()
            w.join()
        else:
            write('old', 'new')
        end()
    finally:
        os._exit(99)
def check(what, status, killed):
    if os.WIFSIGNALED(status) != killed or os.WEXITSTATUS(status) == 99:
        fail('%s: it ended otherwise: %x' % (what, status))
    if (open('old').read(4) == 'old\n') != killed:
        fail('%s: the old file is %r' % (what, open('old').read(4)))
    if os.path.exists('new') == killed or ('new' in os.listdir('.')) == killed:
        fail('%s: a new file %s' % (what, 'is there' if killed else 'is not there'))
harmless = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGCHLD,
            signal.SIGURG, signal.SIGWINCH, 32, 33) # the last two are the C library's
def kill(sig):
    def end():
        if sig != signal.SIGKILL:
            signal.signal(sig, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [sig])
        os.kill(os.getpid(), sig)
        time.sleep(60)
    return end
for threads in False, True:
    for sig in range(1, 65):
        if sig not in harmless:
            check('signal %d, %s' % (sig, 'threads' if threads else 'alone'), child(kill(sig), threads), True)
def in_thread(call):
    def end():
        t = threading.Thread(target=call)
        t.start()
        t.join()
        time.sleep(60)
    return end
def fault():
    ctypes.string_at(0)
check('a fault', child(fault, False), True)
check('abort() in a thread', child(in_thread(os.abort), True), True)
for threads in False, True:
    check('_exit(0)', child(lambda: os._exit(0), threads), False)
    check('_exit(3)', child(lambda: os._exit(3), threads), False)
    check('exit(4)', child(lambda: libc.exit(4), threads), False)
    check('_exit in a thread', child(in_thread(lambda: os._exit(5)), threads), False)
SYS_exit = {'x86_64': 60, 'aarch64': 93}.get(os.uname().machine)
def leader_first():
    # The first thread ends alone; another ends the process later.
    threading.Thread(target=lambda: (time.sleep(.05), os._exit(0))).start()
    libc.syscall(SYS_exit, 0)
if SYS_exit:
    check('the first thread ends first', child(leader_first, False), False)
def execve():
    os.execv('/bin/true', ['true'])
check('execve', child(execve, False), False)
check('execve, several threads', child(execve, True), False)
# One that handles the signal and exits by itself is not killed.
def handles():
    signal.signal(signal.SIGTERM, lambda *x: os._exit(143))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
check('SIGTERM, handled', child(handles, False), False)
# Killed within write() of a large file, by somebody else, several threads writing.
for i in range(5):
    open('old', 'w').write('old\n')
    pid = os.fork()
    if not pid:
        f = os.open('old', os.O_WRONLY | os.O_TRUNC)
        for n in range(4):
            threading.Thread(target=lambda: [os.pwrite(f, b'x' * 500000, k * 500000) for k in range(1000)]).start()
        time.sleep(60)
    time.sleep(.02 * i + .01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if open('old').read() != 'old\n':
        fail('killed within write(): %r' % open('old').read(9))
print('OK')
PY
python3 "$WORK/killed.py" "$MNT" >"$WORK/out" 2>&1 || { cat "$WORK/out"; fail "see above"; }
grep -q '^OK$' "$WORK/out" || fail "it did not come to its end"
cd "$MNT"

# Shells: what they do, and what f holds then.
try() {
	local want=$1 what=$2
	echo old >f
	bash -c "$what" 2>/dev/null || true
	assert_eq "$(tr '\n' ' ' <f)" "$want" "$what"
}
# shellcheck disable=SC2016 # the inner shells expand
{
try "a b " '{ echo a; echo b; } >f'
try "old " '{ echo a; kill -9 $$; } >f'
try "a " 'echo a >f & wait; exec >f; echo b; kill -TERM $$'
try "a " 'echo a | cat >f'
try "y y y " 'yes | head -n 3 >f'                    # yes gets SIGPIPE: it does not write f
try "old " '(echo a; kill -9 $BASHPID) >f'           # who opened it is killed
try "old " 'sh -c "echo a; kill -9 \$\$" >f; :'      # who wrote it is
try "b " '{ sh -c "kill -9 \$\$"; echo b; } >f'      # who was killed has written nothing
try "old " 'timeout 3 sh -c "echo a; sleep 60" >f'
try "old " 'exec >f; echo a; (sleep 0.2; echo late) & kill -9 $$' # an orphan closes it later
wait_until 10 grep -q ' 0 open' .sop/status || fail "the orphan's session is open still"
assert_eq "$(cat f)" old "after the orphan's close"
try "late " 'exec 3>f; (sleep 0.1; echo late >&3) 3>&3 & exec 3>&-; wait'
}
cd /
grep -q 'rollback\|rolled back' "$MNT/.sop/status" || fail "status says nothing of it"
grep -q 'EIO: process [0-9]* was killed by signal 9' "$MNT/.sop/status" || fail "status does not say why"
grep -q 'op=rollback inode=[0-9]* code=EIO: /old: process [0-9]* was killed by signal' "$LOG" || fail "the log does not say which and why"
# Who shares the session of one that was killed is refused; that is no trouble of the volume's.
python3 - "$MNT" <<'PY'
import errno, os, signal, sys
os.chdir(sys.argv[1])
open('shared', 'w').write('old')
f = os.open('shared', os.O_RDWR)
pid = os.fork()
if not pid:
    os.pwrite(f, b'new', 0)
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(pid, 0)
for call in lambda: os.pread(f, 10, 0), lambda: os.pwrite(f, b'x', 0), lambda: os.fsync(f):
    try:
        call()
        sys.exit('FAILED: a session that was rolled back goes on')
    except OSError as e:
        assert e.errno == errno.EIO, e
PY
! grep -q ' error fs: ' "$LOG" || fail "a rollback is logged as an error: $(grep ' error ' "$LOG" | head -1)"
unmount_volume
mount_volume exit=rollback
python3 - "$MNT" <<'PY'
import os, sys, threading, time
os.chdir(sys.argv[1])
def child(end):
    open('f', 'w').write('old')
    pid = os.fork()
    if not pid:
        os.write(os.open('f', os.O_WRONLY | os.O_TRUNC), b'new')
        if end < 0:
            threading.Thread(target=lambda: os._exit(-end)).start()
            time.sleep(60)
        os._exit(end)
    os.waitpid(pid, 0)
    return open('f').read()
assert [child(e) for e in (0, 1, 77, -5)] == ['new', 'old', 'old', 'old']
PY
grep -q 'exited with code 77' "$MNT/.sop/status" || fail "status does not tell the exit code"
unmount_volume
check_volume
