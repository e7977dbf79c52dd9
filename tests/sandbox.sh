#!/bin/bash
# make run, make stop: a 2+2 volume on four folders under ./sandbox, mounted, filled, shown with two of
# them taken away, and left mounted. What is in the sandbox stays until it is deleted by hand.
set -eu

cd "$(dirname "$0")/.."
# shellcheck source=tests/mounts.sh
. tests/mounts.sh
build=${BUILD:-build}
box=$PWD/sandbox
mnt=$box/mnt
disks=$box/d1:$box/d2:$box/d3:$box/d4

say() {
	printf '\n== %s\n' "$*"
}

show() {
	printf '$ %s\n' "$*"
	"$@"
}

stop() {
	if is_mounted "$mnt" || [ -n "$(daemon_of "$mnt")" ]; then
		unmount_and_wait "$mnt"
		echo "sandbox/mnt is unmounted; its data stays in sandbox/d1 .. d4"
	fi
}

# An earlier run may have been cut between taking the folders away and bringing them back.
bring_back() {
	local d
	for d in d1 d2; do
		if [ -d "$box/away/$d" ]; then
			mv "$box/away/$d" "$box/$d"
		fi
	done
}

start() {
	if is_mounted "$mnt"; then
		stop
	fi
	mkdir -p "$box/away" "$mnt"
	bring_back
	if [ ! -e "$box/d1/label.0" ]; then
		say "a volume on four folders, any two of which may be lost (2+2)"
		mkdir -p "$box/d1" "$box/d2" "$box/d3" "$box/d4"
		# -f: the four folders are on one device here, which is no protection; four drives are.
		show "$build/mkfs.sopfs" -f -L sandbox --ec 2+2 "$box/d1" "$box/d2" "$box/d3" "$box/d4"
	fi
	say "mounted, like any file system"
	show "$build/sopfs" "$disks" "$mnt"
	rm -rf "$mnt/sopfs-source"
	mkdir "$mnt/sopfs-source"
	show cp -a core fs tests Makefile README.md "$mnt/sopfs-source/"
	show ls -l "$mnt/sopfs-source"
	printf '$ head -5 %s\n' "$mnt/sopfs-source/README.md"
	head -5 "$mnt/sopfs-source/README.md"
	show df -h "$mnt"

	say "two of the four folders are taken away, and all of it is read again"
	unmount_and_wait "$mnt"
	mv "$box/d1" "$box/d2" "$box/away/"
	show ls "$box"
	# Unmounted and mounted: no cache of the kernel can answer. Half of the members are missing, which
	# is mounted only when asked for: the other half might be alive elsewhere.
	show "$build/sopfs" "$box/d3:$box/d4" "$mnt" -o degraded
	for f in core fs tests Makefile README.md; do
		show diff -r "$f" "$mnt/sopfs-source/$f"
	done
	echo "every byte is the same"
	unmount_and_wait "$mnt"

	say "the two folders are brought back"
	bring_back
	show "$build/sopfs" "$disks" "$mnt"
	show df -h "$mnt"
	cat <<END

The volume stays mounted at sandbox/mnt. Some things to try:
    cp -a /usr/share/doc sandbox/mnt/ ; du -sh sandbox/mnt/doc sandbox/d?
    cat > sandbox/mnt/note     then, from another terminal, before you press ^D: cat sandbox/mnt/note
                               (a file changes as a whole, when it is closed)
    kill -9 $(daemon_of "$mnt")            the daemon dies; make run mounts again, nothing closed is lost
    make stop                  unmounts
END
}

case ${1:-} in
start) start ;;
stop) stop ;;
*)
	echo "usage: tests/sandbox.sh start|stop" >&2
	exit 2
	;;
esac
