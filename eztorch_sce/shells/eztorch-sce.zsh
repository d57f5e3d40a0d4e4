#compdef eztorch-sce
# To install: eztorch-sce completion zsh > "${fpath[1]}/_eztorch-sce"
# For this shell only: source <(eztorch-sce completion zsh)

_eztorch_sce() {
    local -a typed found ended open
    typed=("${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}")
    found=("${(@f)$(${words[1]} completion --words "${typed[@]}" 2>/dev/null)}")
    found=("${(@)found%%$'\t'*}")
    ended=(${found:#*[=./,]})
    open=(${(M)found:#*[=./,]})
    compadd -- "${ended[@]}"
    compadd -S '' -- "${open[@]}"
}
if [[ $funcstack[1] == _eztorch-sce ]]; then
    _eztorch_sce "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
    compdef _eztorch_sce eztorch-sce
fi
