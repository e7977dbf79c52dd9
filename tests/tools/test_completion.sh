#!/bin/bash
# Completion in the real shells: bash and fish by their own calls, zsh in a terminal.
. "$(dirname "$0")/../fs/functions.sh"
requires bash

mkdir "$WORK/bin" "$WORK/home"
ln -s "$SOPFS" "$WORK/bin/sopfs"
for tool in "$BUILD"/*.sopfs "$BUILD/sopctl"; do
	[ ! -x "$tool" ] || ln -s "$tool" "$WORK/bin/"
done
export PATH=$WORK/bin:$PATH HOME=$WORK/home
completions=$TOP/mount-helpers/completions

in_bash() { # WORDS...: what bash offers for the last
	bash --norc -c '
		. "$1"
		shift
		COMP_WORDS=("$@")
		COMP_CWORD=$(($# - 1))
		COMP_LINE="$*"
		COMP_POINT=${#COMP_LINE}
		_sopfs
		printf "%s\n" "${COMPREPLY[@]}"' bash "$completions/sopfs.bash" "$@"
}
offers() { # WANTED in what follows on stdin
	grep -qx -- "$1" || fail "$2 does not offer $1"
}
in_bash sopfs -o comm | offers commit= bash
in_bash sopfs -o ro,session=w | offers ro,session=write bash
in_bash sopfs --dump | offers --dump-config bash
in_bash mkfs.sopfs --registry | offers --registry-hashmod bash
if [ -x "$BUILD/sopctl" ]; then
	in_bash sopctl stat | offers status bash
	in_bash sopctl txn --ret | offers --retry bash
	: >"$WORK/a.dump"
	in_bash sopctl load /pool "$WORK/a." | offers "$WORK/a.dump" bash
	in_bash sopctl txn /pool -- slee | offers sleep bash
fi
new_volume 2 1+1
mount_volume
in_bash umount.sopfs "$WORK" | offers "$MNT" bash
if command -v fish >/dev/null; then
	in_fish() {
		fish --no-config -c "source '$completions/sopfs.fish'; complete -C '$1'" | cut -f 1
	}
	in_fish 'sopfs -o comm' | offers commit= fish
	in_fish 'sopfs -o ro,session=w' | offers ro,session=write fish
	in_fish 'mkfs.sopfs --registry' | offers --registry-hashmod fish
	in_fish "umount.sopfs $WORK/" | offers "$MNT" fish
	[ ! -x "$BUILD/sopctl" ] || in_fish 'sopctl stat' | offers status fish
fi
if command -v zsh >/dev/null && command -v tmux >/dev/null; then
	mkdir "$WORK/functions"
	cp "$completions/_sopfs" "$WORK/functions/"
	tmux -L "sopfs-$$" -f /dev/null new-session -d -x 150 -y 40 \
		"PS1='ready> ' PATH='$PATH' HOME='$HOME' zsh -f"
	type_in() { tmux -L "sopfs-$$" send-keys "$@"; }
	shows() { tmux -L "sopfs-$$" capture-pane -p | grep -q -- "$1"; }
	wait_until 60 shows 'ready>' || fail "no zsh in the terminal"
	type_in "fpath=('$WORK/functions' \$fpath); autoload -U compinit; compinit -u -D; echo lo''aded" Enter
	wait_until 60 shows loaded || fail "zsh does not load the completion"
	type_in "sopfs -o commi" Tab
	wait_until 60 shows 'sopfs -o commit=' || {
		tmux -L "sopfs-$$" capture-pane -p
		tmux -L "sopfs-$$" kill-server
		fail "zsh does not complete commit="
	}
	type_in C-u "mkfs.sopfs --registry" Tab
	wait_until 60 shows 'mkfs.sopfs --registry-hashmod' || {
		tmux -L "sopfs-$$" kill-server
		fail "zsh does not complete --registry-hashmod"
	}
	tmux -L "sopfs-$$" kill-server
fi
unmount_volume
