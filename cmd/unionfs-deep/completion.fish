# fish completion for unionfs-deep
complete -c unionfs-deep -n __fish_use_subcommand -f -a '(unionfs-deep completion --words)'
complete -c unionfs-deep -n 'not __fish_use_subcommand' \
    -a '(unionfs-deep completion --words -- (commandline -opc)[2])'
