package command

import (
	"bytes"
	"strings"

	"github.com/spf13/cobra"
)

// shells are those that completion is written for.
var shells = []string{"bash", "zsh", "fish"}

func (c *cli) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print what a shell reads to complete verbs, flags, ids and names", Args: cobra.ExactArgs(1),
		Long: `Prints what a shell has to read so that Tab completes verbs, flags, and what a
cluster has: ids and names of agents, frameworks and tasks, roles, images. SHELL is
bash, zsh or fish. The Debian package brings it.`,
		Example: `  source <(mezzo completion bash)                       # in ~/.bashrc
  mezzo completion zsh > "${fpath[1]}/_mezzo"           # and then: compinit
  mezzo completion fish > ~/.config/fish/completions/mezzo.fish`,
		ValidArgsFunction: fixed(shells...),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return c.completeBash(cmd.Root())
			case "zsh":
				return cmd.Root().GenZshCompletion(c.out)
			case "fish":
				return cmd.Root().GenFishCompletion(c.out, true)
			}
			return usage("completion %s: there are %s", args[0], strings.Join(shells, ", "))
		},
	}
}

// wordsOfPackage is where cobra's script needs the package bash-completion.
const wordsOfPackage = `    _get_comp_words_by_ref "$@" cur prev words cword
`

// wordsOfLine is what it does without, for words without quotes.
const wordsOfLine = `    if declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
        _get_comp_words_by_ref "$@" cur prev words cword
        return
    fi
    local line=${COMP_LINE:0:COMP_POINT}
    read -ra words <<<"$line"
    if [[ $line == *[[:space:]] ]]; then
        words+=("")
    fi
    cword=$((${#words[@]} - 1))
    cur=${words[cword]}
    prev=${words[cword > 0 ? cword - 1 : 0]}
`

func (c *cli) completeBash(root *cobra.Command) error {
	var script bytes.Buffer
	if err := root.GenBashCompletionV2(&script, true); err != nil {
		return err
	}
	_, err := c.out.Write(bytes.Replace(script.Bytes(), []byte(wordsOfPackage), []byte(wordsOfLine), 1))
	return err
}
