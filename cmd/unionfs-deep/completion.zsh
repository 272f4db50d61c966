#compdef unionfs-deep
_unionfs-deep() {
    if ((CURRENT == 2)); then
        compadd -- ${(f)"$(unionfs-deep completion --words)"}
    elif [[ $words[CURRENT] == -* || $words[2] == completion ]]; then
        compadd -- ${(f)"$(unionfs-deep completion --words -- $words[2])"}
    else
        _files
    fi
}
# From a folder of functions this file is the function itself, at its first call; otherwise it was sourced.
if [[ $funcstack[1] == _unionfs-deep ]]; then
    _unionfs-deep "$@"
else
    compdef _unionfs-deep unionfs-deep
fi
