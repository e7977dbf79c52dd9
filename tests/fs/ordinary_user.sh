#!/bin/bash
# An ordinary user makes a volume of his own folders, mounts it through fusermount3 and uses it. Where
# /dev/fuse is closed to him, the test opens it in a mount namespace of its own.
. "$(dirname "$0")/../namespace.sh"
. "$(dirname "$0")/functions.sh"
requires fusermount3
requires runuser
requires_root

if ! runuser -u nobody -- test -w /dev/fuse; then
	mknod -m 666 "$WORK/fuse" c 10 229
	mount --bind "$WORK/fuse" /dev/fuse || skip "/dev/fuse is closed to ordinary users here"
fi
chmod 755 "$WORK"
mkdir -m 777 "$WORK/own"
cp "$SOPFS" "$MKFS" "$SOPCTL" "$WORK/own/"
export OWN=$WORK/own SOPFS_NAME=${SOPFS##*/} MKFS_NAME=${MKFS##*/} SOPCTL_NAME=${SOPCTL##*/}
# Mounted by this name, so that a failure leaves neither mount nor daemon.
MOUNTS+=("$OWN/mnt")
unset SOPFS_RUN_DIR
export XDG_RUNTIME_DIR=$OWN/run
# shellcheck disable=SC2016 # expanded by the user's shell
runuser -u nobody -- sh -euc 'cd "$OWN" && mkdir d1 d2 d3 mnt && mkdir -m 700 run
	"./$MKFS_NAME" -q -f d1 d2 d3 2>/dev/null
	for option in suid dev; do
		if "./$SOPFS_NAME" d1 "$OWN/mnt" -o $option 2>err; then exit 1; fi
		grep -q "$option.*root" err
	done
	"./$SOPFS_NAME" d1 "$OWN/mnt"
	echo hi >mnt/x
	test "$(cat mnt/x)" = hi
	ln -s x mnt/link
	chmod 600 mnt/x
	"./$SOPCTL_NAME" dump mnt --contents=1k >dump
	rm mnt/x mnt/link
	"./$SOPCTL_NAME" load mnt dump >loaded
	test "$(cat mnt/link) $(stat -c %a mnt/x)" = "hi 600"
	fusermount3 -u mnt'
