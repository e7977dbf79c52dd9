# shellcheck shell=bash
# What every script needs that mounts: find a mount's daemon, and wait for it. umount(8) of a FUSE file
# system returns before the daemon has written out and unlocked; so whoever needs that waits for its end.

# The mount is in the table, dead or alive.
is_mounted() {
	grep -q " $1 " /proc/self/mountinfo
}

# The pid of the sopfs that was given this mount point, as it was given; nothing when there is none. It may have been
# called as mount(8) does, and of a name the kernel keeps 15 bytes.
daemon_of() {
	local dir comm args word
	for dir in /proc/[0-9]*; do
		{ read -r comm <"$dir/comm"; } 2>/dev/null || continue
		case $comm in
		sopfs | mount.sopfs | mount.fuse.sopf) ;;
		*) continue ;;
		esac
		{ mapfile -d '' -t args <"$dir/cmdline"; } 2>/dev/null || continue
		for word in "${args[@]}"; do
			if [ "$word" = "$1" ]; then
				echo "${dir#/proc/}"
				return 0
			fi
		done
	done
}

# Until the process has ended, at most so many seconds. One that nobody reaps has ended when it is a zombie
# without threads: until then it holds its files, and with them the volume's lock.
wait_gone() {
	local pid=$1 left=$((${2:-60} * 20)) stat state
	while { read -r stat <"/proc/$pid/stat"; } 2>/dev/null; do
		read -r state _ <<<"${stat##*) }"
		if [ "$state" = Z ] && [ "$(ls "/proc/$pid/task" 2>/dev/null)" = "$pid" ]; then
			return 0
		fi
		if [ $((left -= 1)) -lt 0 ]; then
			return 1
		fi
		sleep 0.05
	done
}

# What a process that does not end is doing.
threads_of() { # PID
	local t
	if command -v gdb >/dev/null; then
		gdb -p "$1" -batch -ex "thread apply all bt 16" 2>/dev/null | grep -E "^(Thread|#)"
		return
	fi
	for t in /proc/"$1"/task/*; do
		echo "$(cat "$t/comm"): $(cat "$t/wchan"), call $(cat "$t/syscall")"
	done
}

# Unmount, waiting a little for those who are about to close, and wait for the daemon.
unmount_and_wait() {
	local mnt=$1 pid tries=50
	pid=$(daemon_of "$mnt")
	while is_mounted "$mnt"; do
		if [ "$(id -u)" = 0 ]; then
			umount "$mnt" 2>/dev/null && continue
		else
			fusermount3 -u "$mnt" 2>/dev/null && continue
		fi
		if [ $((tries -= 1)) -lt 0 ]; then
			echo "$mnt: cannot be unmounted: something in it is open" >&2
			return 1
		fi
		sleep 0.1
	done
	if [ -n "$pid" ] && ! wait_gone "$pid" 120; then
		echo "$mnt: unmounted, but its daemon (pid $pid) has not ended" >&2
		threads_of "$pid" >&2
		return 1
	fi
}
