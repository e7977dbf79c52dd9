#!/bin/bash
# The recipes of README, and autofs, with the real programs; each is skipped where its program is missing. Two have
# nothing to try here: Docker's volumes need its engine (what a container is to the daemon is below), and there is
# no export by NFS.
. "$(dirname "$0")/../namespace.sh"
. "$(dirname "$0")/../fs/functions.sh"
requires_root

new_volume 4 2+2 -L tank
mount_volume
tried=()

# ---- a backup that is cut off ----
if command -v rsync >/dev/null; then
	mkdir "$WORK/home" "$MNT/home"
	head -c 30000000 /dev/urandom >"$WORK/home/big"
	echo old >"$MNT/home/big"
	rsync -a --bwlimit=2m "$WORK/home/" "$MNT/home/" &
	copy=$!
	writes() { [ "$(jq .sessions.open "$MNT/.sop/status.json")" != 0 ]; }
	wait_until 60 writes || fail "rsync does not begin"
	kill -9 "$copy" # its children meet a broken pipe, and end by themselves
	wait "$copy" || true
	settled() { ! writes; }
	wait_until 60 settled || fail "a killed writer's session stays"
	[ "$(stat -c %s "$MNT/home/big")" = 4 ] || fail "a killed rsync left something else than the old file"
	rsync -a "$WORK/home/" "$MNT/home/"
	cmp "$WORK/home/big" "$MNT/home/big" || fail "rsync"
	tried+=(rsync)
fi

# ---- a dump ----
echo yesterday >"$MNT/dump"
sh -c 'echo half; kill -9 $$' >"$MNT/dump" || true
assert_eq "$(cat "$MNT/dump")" yesterday "a dump that was killed"
sh -c 'echo today' >"$MNT/dump"
assert_eq "$(cat "$MNT/dump")" today "a dump that ended"

# ---- many files at once, or none ----
mkdir "$MNT/release"
cat >"$WORK/upgrade.sh" <<END
cd "$MNT"/release
echo new >program
echo new >settings
[ ! -e refuse ]
END
: >"$MNT/release/refuse"
expect_exit 1 "$SOPCTL" txn "$MNT" -- sh -e "$WORK/upgrade.sh"
assert_eq "$(ls "$MNT/release")" refuse "an upgrade that failed"
rm "$MNT/release/refuse"
"$SOPCTL" txn "$MNT" -- sh -e "$WORK/upgrade.sh"
assert_eq "$(cat "$MNT/release/program" "$MNT/release/settings" | xargs)" "new new" "an upgrade"
"$SOPCTL" txn tank -- rm "$MNT/release/settings"
[ ! -e "$MNT/release/settings" ] || fail "a transaction by the volume's name"

# ---- a container: another PID namespace and another root over a folder of ours ----
mkdir -p "$MNT/app" "$WORK/data"
unshare -m -p -f --mount-proc --propagation private sh -c "
	mount --bind '$MNT/app' '$WORK/data' && echo kept >'$WORK/data/state' && sync '$WORK/data/state' || exit 1
	sh -c 'echo torn; kill -9 \$\$' >'$WORK/data/state'
	true"
assert_eq "$(cat "$MNT/app/state")" kept "a writer killed in a container"

# ---- Samba ----
if command -v smbd >/dev/null && command -v smbclient >/dev/null; then
	mkdir "$MNT/share" "$WORK/smb"
	chmod 777 "$MNT/share"
	# No network: the server talks with a client it starts by itself.
	cat >"$WORK/smb.conf" <<END
[global]
private dir = $WORK/smb
state directory = $WORK/smb
cache directory = $WORK/smb
lock directory = $WORK/smb
pid directory = $WORK/smb
ncalrpc dir = $WORK/smb
map to guest = Bad User
interfaces = lo
bind interfaces only = yes
disable netbios = yes
[share]
path = $MNT/share
guest ok = yes
read only = no
END
	unshare -n sh -c "
		ip link set lo up
		smbd -F -s '$WORK/smb.conf' -l '$WORK/smb' -p 4450 </dev/null >'$WORK/smb/out' 2>&1 &
		server=\$!
		n=0
		until smbclient -s '$WORK/smb.conf' -p 4450 -N //127.0.0.1/share -c \
			'put $BUILD/sopfs daemon; rename daemon renamed; get renamed $WORK/back; mkdir d; ls' \
			>'$WORK/smb/client' 2>&1 || [ \$((n += 1)) -gt 100 ]; do sleep 0.1; done
		kill \$server"
	cmp "$BUILD/sopfs" "$WORK/back" || {
		cat "$WORK/smb/client" "$WORK/smb/out"
		fail "through Samba"
	}
	cmp "$BUILD/sopfs" "$MNT/share/renamed" || fail "what Samba wrote"
	tried+=(samba)
fi
unmount_volume

# ---- autofs ----
if command -v automount >/dev/null && grep -qw autofs /proc/filesystems; then
	mkdir -p "$WORK/up" "$WORK/work" "$WORK/auto" "$WORK/conf"
	mount -t tmpfs tmpfs "$WORK/conf"
	LOOPS+=("$WORK/conf")
	mkdir "$WORK/conf/up" "$WORK/conf/work"
	mount -t overlay overlay -o "lowerdir=/usr/sbin,upperdir=$WORK/conf/up,workdir=$WORK/conf/work" /usr/sbin
	ln -sf "$SOPFS" /usr/sbin/mount.sopfs
	ln -sf "$BUILD/umount.sopfs" /usr/sbin/umount.sopfs
	ln -sf "$BUILD/umount.sopfs" /usr/sbin/umount.fuse.sopfs
	echo "pool -fstype=sopfs,commit=1s :${DISKS[0]//:/\\:}" >"$WORK/conf/auto.sopfs"
	echo "$WORK/auto $WORK/conf/auto.sopfs --timeout=2" >"$WORK/conf/auto.master"
	# In a session of its own: autofs mounts nothing for the process group of the daemon.
	setsid setpriv --pdeathsig KILL automount -f -v --pid-file "$WORK/conf/pid" "$WORK/conf/auto.master" >"$WORK/conf/log" 2>&1 &
	auto=$!
	MOUNTS+=("$WORK/auto/pool")
	there() { grep -q " $WORK/auto " /proc/self/mountinfo; }
	wait_until 60 there || {
		cat "$WORK/conf/log"
		fail "automount does not start"
	}
	[ "$(cat "$WORK/auto/pool/dump")" = today ] || {
		cat "$WORK/conf/log"
		fail "not mounted by looking there"
	}
	gone() { ! is_mounted "$WORK/auto/pool" && [ -z "$(daemon_of "$WORK/auto/pool")" ]; }
	wait_until 90 gone || fail "not unmounted when idle"
	kill "$auto"
	wait "$auto" || true
	tried+=(autofs)
fi
echo "tried: ${tried[*]} dump container"
check_volume
