# shellcheck shell=bash
# Sourced by every test that mounts. It gives the test a folder of its own ($WORK), and takes down at its
# end, whatever end, what it has put up: mounts, daemons, loop devices, the folder.
#
#     . "$(dirname "$0")/../fs/functions.sh"
#     new_volume 4 2+2
#     mount_volume commit=100ms
#     echo hello >"$MNT/a"
#     unmount_volume
#
# A test with more to take down has a function at_end for it; what has to go before the daemons are ended
# (a disk that hangs), goes in end_begins. Not in a trap of its own: the exit code would be lost.
# Exit codes: 0 passed, 77 skipped, else failed.
set -eu

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=$(cd "$TOP" && realpath -m "${BUILD:-build}")
SOPFS=$BUILD/sopfs
MKFS=$BUILD/mkfs.sopfs
CHECK=$BUILD/examples/check_volume
# shellcheck disable=SC2034
SOPCTL=$BUILD/sopctl
LONG=${LONG:-}
# shellcheck source=tests/mounts.sh
. "$TOP/tests/mounts.sh"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/sopfs-test.XXXXXX")
chmod 755 "$WORK"
MNT=$WORK/mnt
LOG=$WORK/daemon.log
DISKS=()
SOURCE=
MOUNTS=("$MNT")
LOOPS=()
mkdir "$MNT"
# A label of this test's own, for those that want one; and its daemons' control sockets.
# shellcheck disable=SC2034
NAME=t${WORK##*.}
export SOPFS_RUN_DIR=$WORK/run

# The same every time, unless another is wanted.
SEED=${SEED:-4711}
RANDOM=$SEED
echo "SEED=$SEED"

# Sanitizers of a daemon without a terminal write here; end_test looks.
export ASAN_OPTIONS="log_path=$WORK/sanitizer:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:log_path=$WORK/sanitizer:${UBSAN_OPTIONS:-}"
# The process that carries messages ends with its threads.
export TSAN_OPTIONS="report_thread_leaks=0:log_path=$WORK/sanitizer:${TSAN_OPTIONS:-}"

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

skip() {
	echo "$*"
	exit 77
}

requires() {
	local c
	for c in "$@"; do
		command -v "$c" >/dev/null 2>&1 || skip "needs $c"
	done
}

requires_root() {
	[ "$(id -u)" = 0 ] || skip "needs root"
}

end_test() {
	local rc=$? m pid f
	trap '' EXIT INT TERM HUP
	set +e
	! declare -F end_begins >/dev/null || end_begins
	cd /
	for m in "${MOUNTS[@]}"; do
		pid=$(daemon_of "$m")
		if [ -n "$pid" ]; then
			kill -9 "$pid"
			wait_gone "$pid" 10
		fi
		if is_mounted "$m"; then
			umount -l "$m" 2>/dev/null || fusermount3 -uqz "$m"
		fi
	done
	for m in "${LOOPS[@]}"; do
		umount -l "$m"
	done
	! declare -F at_end >/dev/null || at_end
	for f in "$WORK"/sanitizer.*; do
		if [ -e "$f" ]; then
			cat "$f"
			[ "$rc" != 0 ] || rc=1
		fi
	done
	if [ "$rc" != 0 ] && [ "$rc" != 77 ] && [ -e "$LOG" ]; then
		echo "---- daemon.log"
		tail -n 20 "$LOG"
	fi
	if [ -n "${KEEP:-}" ]; then
		echo "kept: $WORK"
	else
		rm -rf --one-file-system "$WORK"
	fi
	exit "$rc"
}
trap end_test EXIT
trap 'exit 1' INT TERM HUP

[ -x "$SOPFS" ] || fail "$SOPFS is not built; run make"
[ -e /dev/fuse ] || skip "needs /dev/fuse"

colon_list() {
	local IFS=:
	echo "$*"
}

# new_volume N K+M [mkfs option...]: folders $WORK/d1 .. dN, empty before.
new_volume() {
	local n=$1 ec=$2 i
	shift 2
	DISKS=()
	for ((i = 1; i <= n; i++)); do
		mkdir -p "$WORK/d$i"
		DISKS+=("$WORK/d$i")
	done
	SOURCE=$(colon_list "${DISKS[@]}")
	# -f: they lie on one device.
	"$MKFS" -q -f --ec "$ec" "$@" "${DISKS[@]}"
}

# mount_volume [option,...]: $SOURCE on $MNT.
# shellcheck disable=SC2120
mount_volume() {
	"$SOPFS" "$SOURCE" "$MNT" -o "log=$LOG${1:+,$1}"
	PID=$(daemon_of "$MNT")
	[ -n "$PID" ] || fail "mounted, but there is no daemon"
}

unmount_volume() {
	unmount_and_wait "$MNT"
}

# As power to the process alone, gone: no handler runs.
kill_daemon() {
	local pid
	pid=$(daemon_of "$MNT")
	[ -n "$pid" ] || fail "no daemon to kill"
	kill -9 "$pid"
	# One of its threads may wait for a directory that a request holds which nobody will answer now:
	# force ends the connection (sopfs does the same when it mounts there again).
	[ "$(id -u)" -ne 0 ] || umount -f "$MNT" 2>/dev/null || true
	wait_gone "$pid" 30 || fail "the daemon does not die"
	! mountpoint -q "$MNT" || umount -l "$MNT" 2>/dev/null || fusermount3 -uqz "$MNT"
}

# Offline: walk all of the volume and verify it; any error, any leak fails the test.
check_volume() {
	"$CHECK" "${DISKS[@]}" >"$WORK/check.out" 2>&1 || {
		cat "$WORK/check.out"
		fail "the volume does not check clean"
	}
}

assert_eq() {
	[ "$1" = "$2" ] || fail "${3:-values differ}: got '$1', want '$2'"
}

# expect_exit CODE COMMAND...: its exit code; what it wrote to stderr is in $WORK/err.
expect_exit() {
	local want=$1 rc=0
	shift
	"$@" >"$WORK/out" 2>"$WORK/err" || rc=$?
	if [ "$rc" != "$want" ]; then
		cat "$WORK/err"
		fail "exit code $rc, want $want: $*"
	fi
}

# The last expect_exit printed these (extended, any case), in at most two lines: trouble and remedy.
expect_says() {
	local p
	[ "$(wc -l <"$WORK/err")" -le 2 ] || {
		cat "$WORK/err"
		fail "more than one line and one of remedy"
	}
	for p in "$@"; do
		grep -qiE -- "$p" "$WORK/err" || {
			cat "$WORK/err"
			fail "the message does not say '$p'"
		}
	done
}

# The tree as text: names, types, modes, owners, sizes, link targets, mtimes. Two trees are equal when
# this and diff -r --no-dereference are.
tree_list() {
	(cd "$1" && find . -printf '%P %y %m %U:%G %l %TY-%Tm-%Td %TT\n' | LC_ALL=C sort)
}

same_tree() {
	diff -r --no-dereference "$1" "$2" >"$WORK/diff" 2>&1 || {
		head -20 "$WORK/diff"
		fail "$1 and $2 differ"
	}
}

# small_ext4 DIR MIB: an ext4 of that size of its own, for a disk that fills up.
small_ext4() {
	mkdir -p "$1"
	truncate -s "${2}M" "$1.img"
	mkfs.ext4 -q -F -m 0 "$1.img"
	mount -o loop "$1.img" "$1" || skip "needs loop devices"
	LOOPS+=("$1")
	rmdir "$1/lost+found"
}

# within_bounds MIB WHEN: the daemon, mounted with cache=MIB, has never had more than that and 64 MiB resident.
# FREE: so much more, in KiB.
within_bounds() {
	local kib
	kib=$(awk '/^VmHWM/ { print $2 }' "/proc/$PID/status")
	echo "after $2: $kib KiB resident at most"
	# A sanitizer's shadow is not ours to answer for.
	if grep -q _asan_init "$SOPFS" || grep -q __tsan_init "$SOPFS"; then
		return
	fi
	[ "$kib" -le $((($1 + 64) * 1024 + ${FREE:-0})) ] || fail "$kib KiB resident after $2, with cache=$1M"
}

# The kernel can be asked to forget files and directories.
kernel_prunes() {
	[ "$(printf '%s\n' 6.18 "$(uname -r)" | sort -V | head -n 1)" = 6.18 ]
}

# wait_until SECONDS COMMAND...: until it succeeds.
wait_until() {
	local left=$(($1 * 20))
	shift
	until "$@"; do
		[ $((left -= 1)) -ge 0 ] || return 1
		sleep 0.05
	done
}
