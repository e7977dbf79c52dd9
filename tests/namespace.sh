# shellcheck shell=bash
# Sourced first by tests that mount where others look: root runs them in a mount namespace of their own.
#
# A mount lives on as long as it is in any namespace. So what other tests have mounted at this moment goes
# from this one at once; else their daemons would not end, though they have unmounted, before this test does.
if [ -z "${SOPFS_TEST_NAMESPACE:-}" ] && [ "$(id -u)" = 0 ]; then
	SOPFS_TEST_NAMESPACE=1 exec unshare -m --propagation private bash "$0" "$@"
fi
if [ -n "${SOPFS_TEST_NAMESPACE:-}" ]; then
	awk '$5 ~ /\/sopfs-test\./ { print $5 }' /proc/self/mountinfo | sort -r | while read -r mount; do
		umount -l "$mount" 2>/dev/null || true
	done
fi
