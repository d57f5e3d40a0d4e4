# To install: eztorch-sce completion fish > ~/.config/fish/completions/eztorch-sce.fish
# For this shell only: eztorch-sce completion fish | source

function __eztorch_sce
    set -l typed (commandline --tokenize --cut-at-cursor --current-process)
    eztorch-sce completion --words $typed[2..-1] (commandline --current-token --cut-at-cursor) 2>/dev/null
end
complete --command eztorch-sce --no-files --arguments '(__eztorch_sce)'
