#!/bin/bash
# git on the mount: commit, branch, merge, clone, worktree, repack, gc, fsck; two at a time; and what a kill
# leaves. Under both kinds of session.
. "$(dirname "$0")/functions.sh"
requires git
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null HOME=$WORK
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b

rounds=3
[ -z "$LONG" ] || rounds=20

git_work() {
	local i top=$1
	git init -q -b main "$top/one"
	cd "$top/one"
	cp -r "$TOP/fs" "$TOP/core" .
	git add .
	git commit -q -m first
	for ((i = 0; i < rounds; i++)); do
		git checkout -q -b "side$i"
		sed -i "1i/* $i */" fs/*.c
		git commit -q -a -m "side $i"
		git checkout -q main
		echo "$i" >"core/new$i"
		git add "core/new$i"
		git commit -q -m "main $i"
		git merge -q -m merge "side$i"
	done
	git clone -q "$top/one" "$top/two"
	git clone -q --no-local "$top/one" "$top/three"
	git worktree add -q "$top/tree" side0
	(cd "$top/tree" && echo x >x && git add x && git commit -q -m tree)
	git stash list
	git mv fs moved
	git commit -q -m moved
	git gc -q --prune=now
	git repack -q -a -d -f
	git fsck --full --strict --no-progress
	cd "$top/two"
	git pull -q
	[ "$(git rev-parse HEAD)" = "$(git -C "$top/one" rev-parse HEAD)" ] || fail "pull"
	git fsck --full --no-progress
	# Two at a time in one repository: the lock file decides.
	cd "$top/three"
	(for ((i = 0; i < 10; i++)); do
		until git tag -f "t$i" >/dev/null 2>&1; do :; done
	done) &
	for ((i = 0; i < 10; i++)); do
		git commit -q --allow-empty -m "empty $i"
	done
	wait $!
	[ "$(git tag | wc -l)" = 10 ] || fail "tags"
	[ -z "$(git status --porcelain)" ] || fail "git status"
	cd /
}

new_volume 2 1+1
for session in close write; do
	mount_volume "session=$session,commit=100ms"
	mkdir "$MNT/$session"
	git_work "$MNT/$session"
	# A crash of the daemon: what git has finished is there.
	(cd "$MNT/$session/one" && echo last >last && git add last && git commit -q -m last)
	head=$(git -C "$MNT/$session/one" rev-parse HEAD)
	kill_daemon
	mount_volume "session=$session"
	cd "$MNT/$session/one"
	assert_eq "$(git rev-parse HEAD)" "$head" "HEAD after a crash"
	git fsck --full --no-progress
	git status --porcelain >"$WORK/status"
	[ ! -s "$WORK/status" ] || fail "git status after a crash"
	cd /
	unmount_volume
done
check_volume
