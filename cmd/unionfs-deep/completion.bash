# bash completion for unionfs-deep
_unionfs_deep() {
    local current=${COMP_WORDS[COMP_CWORD]} words
    if ((COMP_CWORD == 1)); then
        words=$(unionfs-deep completion --words)
    elif [[ $current == -* || ${COMP_WORDS[1]} == completion ]]; then
        words=$(unionfs-deep completion --words -- "${COMP_WORDS[1]}")
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o default -F _unionfs_deep unionfs-deep
