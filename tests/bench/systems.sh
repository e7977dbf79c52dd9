# shellcheck shell=bash
# The systems that bench.sh measures. Of each: can_X says why not, if it cannot be had here; up_X mounts it
# on $work/m/X; cold_X leaves nothing of it in memory; down_X; what_X names version and shape. Nothing is
# installed, and no service of the machine is touched.
#
# The disks are $work/disk1..6: as root each an ext4 of its own, with a journal, in an image on a loop
# device; else folders, and then only those are measured that need no more than that.
#
# shellcheck disable=SC2154 # work, build and options are bench.sh's

disks=6
image_size=${IMAGE_SIZE:-8G}
loops=()

have_loops() {
	[ "$(id -u)" = 0 ] && losetup -f >/dev/null 2>&1
}

make_disks() {
	local i
	for ((i = 1; i <= disks; i++)); do
		mkdir "$work/disk$i"
		have_loops || continue
		truncate -s "$image_size" "$work/disk$i.img"
		mkfs.ext4 -q -i 4096 "$work/disk$i.img"
		loops+=("$(losetup -f --show "$work/disk$i.img")")
		mount -o noinit_itable "${loops[-1]}" "$work/disk$i"
	done
}

remove_disks() {
	local i
	for ((i = 1; i <= disks; i++)); do
		umount "$work/disk$i" 2>/dev/null
	done
	for i in "${loops[@]}"; do
		losetup -d "$i"
	done
}

# What was written before does not disturb what comes; as root, nothing of it is in memory either.
settle() {
	sync
	if [ "$(id -u)" = 0 ]; then
		echo 3 >/proc/sys/vm/drop_caches
	fi
}

on_disks() { # NAME COUNT: the same name on so many disks
	local i
	for ((i = 1; i <= $2; i++)); do
		echo "$work/disk$i/$1"
	done
}

needs() { # PROGRAM...
	local p
	have_loops || {
		echo "needs root, and loop devices"
		return
	}
	for p; do
		command -v "$p" >/dev/null || {
			echo "$p is not installed"
			return
		}
	done
}

# ---- sopfs, 2+2 ----

can_sopfs() { :; }
what_sopfs() { echo "$("$build/sopfs" --version 2>&1 | head -1), 2+2 over four disks, options $options"; }
up_sopfs() {
	local on
	mapfile -t on < <(on_disks sopfs 4)
	sopfs_source=$(IFS=: && echo "${on[*]}")
	mkdir "${on[@]}"
	"$build/mkfs.sopfs" -q -f --ec 2+2 "${on[@]}" 2>/dev/null
	"$build/sopfs" "$sopfs_source" "$work/m/sopfs" -o "$options"
}
cold_sopfs() {
	unmount_and_wait "$work/m/sopfs"
	settle
	"$build/sopfs" "$sopfs_source" "$work/m/sopfs" -o "$options"
}
down_sopfs() { unmount_and_wait "$work/m/sopfs"; }

# ---- the bare file system of one disk ----

can_bare() { :; }
what_bare() { echo "$(findmnt -n -o FSTYPE -T "$work/disk1") of one disk, no redundancy"; }
up_bare() {
	rmdir "$work/m/bare"
	mkdir "$work/disk1/bare"
	ln -s "$work/disk1/bare" "$work/m/bare"
}
cold_bare() { settle; }
down_bare() { :; }

# ---- the floor of FUSE: all in memory, nothing stored ----

can_floor() { :; }
what_floor() { echo "ram_fuse: a FUSE file system in memory that stores nothing"; }
up_floor() {
	local tries=100
	"$build/bench/ram_fuse" "$work/m/floor" &
	until is_mounted "$work/m/floor"; do
		[ $((tries -= 1)) -gt 0 ] || return 1
		sleep 0.05
	done
}
cold_floor() { settle; }
down_floor() { umount "$work/m/floor" 2>/dev/null || fusermount3 -u "$work/m/floor"; }

# ---- bindfs: FUSE, passes everything to one disk ----

can_bindfs() { needs bindfs; }
what_bindfs() { echo "$(bindfs --version | head -1) over one disk, no redundancy"; }
up_bindfs() {
	mkdir -p "$work/disk2/bindfs"
	bindfs "$work/disk2/bindfs" "$work/m/bindfs"
}
cold_bindfs() {
	umount "$work/m/bindfs"
	settle
	up_bindfs
}
down_bindfs() { umount "$work/m/bindfs"; }

# ---- zfs-fuse, raidz2 of four ----

can_zfs() {
	needs zfs-fuse zpool
	! pgrep -x zfs-fuse >/dev/null || echo "a zfs-fuse is running: it is not ours to use"
}
what_zfs() { echo "zfs-fuse $(dpkg-query -W -f '${Version}' zfs-fuse 2>/dev/null), raidz2 over four disks"; }
zfs_pool=sopfsbench$$
up_zfs() {
	local on tries=100
	mapfile -t on < <(on_disks zfs.img 4)
	truncate -s "$image_size" "${on[@]}"
	zfs-fuse --no-kstat-mount -p "$work/zfs.pid"
	until zpool list >/dev/null 2>&1; do
		[ $((tries -= 1)) -gt 0 ] || return 1
		sleep 0.05
	done
	zpool create -f -o cachefile=none -m "$work/m/zfs" "$zfs_pool" raidz2 "${on[@]}" 2>/dev/null
}
# What has been closed is let go of a little later.
leave_zfs() { # export|destroy
	local tries=100
	until zpool "$1" "$zfs_pool" 2>/dev/null; do
		[ $((tries -= 1)) -gt 0 ] || return 1
		sleep 0.1
	done
}
cold_zfs() {
	leave_zfs export
	settle
	zpool import -o cachefile=none -d "$work/disk1" -d "$work/disk2" -d "$work/disk3" -d "$work/disk4" \
		"$zfs_pool"
}
down_zfs() {
	local pid
	leave_zfs destroy
	pid=$(cat "$work/zfs.pid")
	kill "$pid"
	wait_gone "$pid" 30
}

# ---- btrfs, raid6 of four ----

can_btrfs() {
	needs mkfs.btrfs
	grep -qw btrfs /proc/filesystems || modprobe btrfs 2>/dev/null || echo "the kernel has no btrfs"
}
what_btrfs() { echo "btrfs of Linux $(uname -r), raid6 (metadata raid1c3) over four disks; in the kernel"; }
btrfs_loops=()
up_btrfs() {
	local on f
	mapfile -t on < <(on_disks btrfs.img 4)
	truncate -s "$image_size" "${on[@]}"
	for f in "${on[@]}"; do
		btrfs_loops+=("$(losetup -f --show "$f")")
	done
	mkfs.btrfs -q -f -d raid6 -m raid1c3 "${btrfs_loops[@]}" >/dev/null 2>&1
	mount -t btrfs "${btrfs_loops[0]}" "$work/m/btrfs"
}
cold_btrfs() {
	umount "$work/m/btrfs"
	settle
	mount -t btrfs "${btrfs_loops[0]}" "$work/m/btrfs"
}
down_btrfs() {
	local l
	umount "$work/m/btrfs"
	for l in "${btrfs_loops[@]}"; do
		losetup -d "$l"
	done
}

# ---- GlusterFS, disperse 4+2, the bricks in the client's own process: no network, no servers ----

# Its bricks are on XFS, as it recommends: beside ext4's positions in a folder its own have no room.
can_gluster() { needs glusterfs mkfs.xfs; }
what_gluster() {
	echo "$(glusterfs --version | head -1), disperse 4+2 over six disks (XFS), bricks in the client"
}
gluster_loops=()
gluster_volfile() {
	local i subvolumes=
	for ((i = 1; i <= 6; i++)); do
		printf 'volume posix%d\n type storage/posix\n option directory %s\nend-volume\n' \
			"$i" "$work/m/brick$i"
		printf 'volume locks%d\n type features/locks\n subvolumes posix%d\nend-volume\n' "$i" "$i"
		printf 'volume brick%d\n type performance/io-threads\n subvolumes locks%d\nend-volume\n' "$i" "$i"
		subvolumes+=" brick$i"
	done
	printf 'volume disperse\n type cluster/disperse\n option redundancy 2\n subvolumes%s\nend-volume\n' \
		"$subvolumes"
	printf 'volume behind\n type performance/write-behind\n subvolumes disperse\nend-volume\n'
	printf 'volume lazy\n type performance/open-behind\n subvolumes behind\nend-volume\n'
	printf 'volume top\n type performance/md-cache\n subvolumes lazy\nend-volume\n'
}
mount_gluster() {
	local tries=100
	glusterfs -f "$work/gluster.vol" -l "$work/gluster.log" -p "$work/gluster.pid" "$work/m/gluster"
	until is_mounted "$work/m/gluster" && stat -f "$work/m/gluster" >/dev/null 2>&1; do
		[ $((tries -= 1)) -gt 0 ] || return 1
		sleep 0.1
	done
}
up_gluster() {
	local on i
	mapfile -t on < <(on_disks gluster.img 6)
	truncate -s "$image_size" "${on[@]}"
	for ((i = 1; i <= 6; i++)); do
		gluster_loops+=("$(losetup -f --show "${on[i - 1]}")")
		mkfs.xfs -q "${gluster_loops[-1]}"
		mkdir "$work/m/brick$i"
		mount -t xfs "${gluster_loops[-1]}" "$work/m/brick$i"
	done
	gluster_volfile >"$work/gluster.vol"
	mount_gluster
}
cold_gluster() {
	leave_gluster
	settle
	mount_gluster
}
leave_gluster() {
	local pid
	pid=$(cat "$work/gluster.pid")
	umount "$work/m/gluster" || umount -l "$work/m/gluster"
	wait_gone "$pid" 30
}
down_gluster() {
	local i
	leave_gluster
	for ((i = 1; i <= 6; i++)); do
		umount "$work/m/brick$i"
		losetup -d "${gluster_loops[i - 1]}"
	done
}
