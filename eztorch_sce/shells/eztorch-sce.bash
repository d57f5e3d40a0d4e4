# To install: eztorch-sce completion bash > ~/.local/share/bash-completion/completions/eztorch-sce
# For this shell only: source <(eztorch-sce completion bash)

_eztorch_sce() {
    # Bash breaks words at = and :, so the program gets the whole line, and the last piece to complete.
    local line=${COMP_LINE:0:COMP_POINT} piece=${COMP_WORDS[COMP_CWORD]}
    [[ $piece == [=:] ]] && piece=
    [[ $line == *[[:space:]] ]] && piece=
    mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" completion --line "$line" "$piece" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -gt 0 ]] && [[ ${COMPREPLY[0]} == *[=./,] ]]; then
        compopt -o nospace
    fi
}
complete -F _eztorch_sce eztorch-sce
