# bash completion for sopfs and its tools. What can be said is asked of the programs themselves (--help),
# so that it is never another than theirs.

# Options of -o: "ro", "commit=", "session=close" from the lines of sopfs --help.
__sopfs_mount_options() {
	sopfs --help 2>/dev/null |
		sed -n '/^Options of -o/,$ { s/^  \([a-z_]*=\)[A-Z]* .*/\1/p; t; s/^  \([a-z_=]*\) .*/\1/p; }'
}

# Letters and words: "-f, --foreground", "--ec K+M".
__sopfs_flags() {
	"$1" ${2:+"$2"} --help 2>/dev/null | grep -oE '(^|[ ,[|])--?[a-zA-Z][a-zA-Z-]*' | tr -d ' ,[|' | sort -u
}

# Names of volumes with a file of settings.
__sopfs_names() {
	local f
	for f in /etc/sopfs/*.conf; do
		[ -e "$f" ] || continue
		f=${f##*/}
		echo "${f%.conf}"
	done
}

__sopfs_mount_points() {
	awk '$3 == "fuse.sopfs" { print $2 }' /proc/mounts
}

# Verbs of sopctl: the first words of the indented lines of its --help.
__sopfs_verbs() {
	sopctl --help 2>/dev/null | sed -n 's/^  *\([a-z][a-z-]*\)\( .*\)\{0,1\}$/\1/p' | sort -u
}

__sopfs_reply() { # WORDS
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

_sopfs() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev= program=${COMP_WORDS[0]##*/} list
	COMPREPLY=()
	[ "$COMP_CWORD" -eq 0 ] || prev=${COMP_WORDS[COMP_CWORD - 1]}
	# The line is cut at "=" too: "session", "=", "wr".
	if [ "$cur" = "=" ]; then
		cur=
	fi
	case $program in
	sopfs | mount.sopfs | mount.fuse.sopfs)
		if [ "$prev" = -o ]; then
			list=${cur##*,}
			local before=${cur%"$list"}
			mapfile -t COMPREPLY < <(compgen -P "$before" -W "$(__sopfs_mount_options)" -- "$list")
			compopt -o nospace 2>/dev/null
			return
		fi
		;;
	umount.sopfs | umount.fuse.sopfs)
		if [[ $cur != -* ]]; then
			__sopfs_reply "$(__sopfs_mount_points)"
			return
		fi
		;;
	sopctl)
		if [ "$COMP_CWORD" -eq 1 ] && [[ $cur != -* ]]; then
			__sopfs_reply "$(__sopfs_verbs)"
			return
		fi
		if [ "${COMP_WORDS[1]}" = txn ] && [ "$prev" = -- ]; then
			mapfile -t COMPREPLY < <(compgen -c -- "$cur")
			return
		fi
		if [[ $cur == -* ]] && [ "$COMP_CWORD" -gt 1 ]; then
			__sopfs_reply "$(__sopfs_flags sopctl "${COMP_WORDS[1]}")"
			return
		fi
		if [ "${COMP_WORDS[1]}" = load ] && [ "$COMP_CWORD" -eq 3 ]; then
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
			return
		fi
		if [ "$COMP_CWORD" -eq 2 ]; then
			mapfile -t COMPREPLY < <(compgen -W "$(__sopfs_names) $(__sopfs_mount_points)" -- "$cur"
				compgen -d -- "$cur")
			return
		fi
		;;
	esac
	if [[ $cur == -* ]]; then
		__sopfs_reply "$(__sopfs_flags "$program")"
		return
	fi
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen -W "$(__sopfs_names)" -- "$cur"
		compgen -d -- "$cur")
}

complete -F _sopfs sopfs mount.sopfs mount.fuse.sopfs umount.sopfs umount.fuse.sopfs mkfs.sopfs fsck.sopfs sopctl
