# fish completion for sopfs and its tools. What can be said is asked of the programs themselves (--help).

function __sopfs_mount_options
	sopfs --help 2>/dev/null | sed -n '/^Options of -o/,$ { s/^  \([a-z_]*=\)[A-Z]* .*/\1/p; t; s/^  \([a-z_=]*\) .*/\1/p; }'
end

# A list after -o is completed behind its last comma.
function __sopfs_option_list
	set -l before (string match -r '^.*,' -- (commandline -ct))
	for option in (__sopfs_mount_options)
		echo "$before$option"
	end
end

function __sopfs_flags
	$argv --help 2>/dev/null | string match -ra '(?<=^|[ ,\[|])--?[a-zA-Z][a-zA-Z-]*' | sort -u
end

function __sopfs_names
	for f in /etc/sopfs/*.conf
		string replace -r '.*/(.*)\.conf$' '$1' -- $f
	end
end

function __sopfs_mount_points
	string match -rg '^\S+ (\S+) fuse\.sopfs ' </proc/mounts
end

function __sopfs_verbs
	sopctl --help 2>/dev/null | string match -rg '^ +([a-z][a-z-]*)(?: .*)?$' | sort -u
end

function __sopfs_is_flag
	string match -q -- '-*' (commandline -ct)
end

for program in sopfs mount.sopfs mount.fuse.sopfs
	complete -c $program -s o -x -a '(__sopfs_option_list)' -d 'mount options'
	complete -c $program -n 'not __sopfs_is_flag' -a '(__sopfs_names)' -d volume
	complete -c $program -n __sopfs_is_flag -f -a "(__sopfs_flags $program)"
end
for program in mkfs.sopfs fsck.sopfs
	complete -c $program -n __sopfs_is_flag -f -a "(__sopfs_flags $program)"
end
complete -c umount.sopfs -n 'not __sopfs_is_flag' -f -a '(__sopfs_mount_points)'
complete -c umount.sopfs -n __sopfs_is_flag -f -a '(__sopfs_flags umount.sopfs)'
complete -c sopctl -n __fish_use_subcommand -f -a '(__sopfs_verbs)'
complete -c sopctl -n 'not __fish_use_subcommand; and not __sopfs_is_flag' -a '(__sopfs_names) (__sopfs_mount_points)'
complete -c sopctl -n 'not __fish_use_subcommand; and __sopfs_is_flag' -f -a '(__sopfs_flags sopctl (commandline -opc)[2])'
