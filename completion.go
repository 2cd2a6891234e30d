package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func (c *commands) completionCommand() *cli.Command {
	return &cli.Command{
		Name:        "completion",
		Usage:       "print the completion script of a shell",
		ArgsUsage:   "bash|zsh|fish",
		Description: "For example: source <(polyport completion bash)",
		BashComplete: func(*cli.Context) {
			fmt.Fprintln(c.stdout, strings.Join(slices.Sorted(maps.Keys(completionScripts)), "\n"))
		},
		Action: func(ctx *cli.Context) error {
			script, ok := completionScripts[ctx.Args().First()]
			if !ok || ctx.NArg() != 1 {
				return usagef("completion takes one shell: bash, zsh or fish")
			}
			fmt.Fprint(c.stdout, script)
			return nil
		},
	}
}

// completionScripts ask polyport itself, so they never go stale.
var completionScripts = map[string]string{
	"bash": `_polyport() {
  local IFS=$'\n' word="${COMP_WORDS[$COMP_CWORD]}" words=("${COMP_WORDS[@]:0:$COMP_CWORD}")
  if [[ $word == -* ]]; then
    words+=("$word")
  elif [[ ${COMP_WORDS[COMP_CWORD-1]} == -* ]]; then # the value of a flag: a file, perhaps
    return
  fi
  COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$word"))
}
complete -o bashdefault -o default -F _polyport polyport
`,
	"zsh": `#compdef polyport
_polyport() {
  local -a line candidates
  line=(${words[1,CURRENT-1]})
  if [[ ${words[CURRENT]} == -* ]]; then
    line+=(${words[CURRENT]})
  elif [[ ${line[-1]} == -* ]]; then # the value of a flag: a file, perhaps
    _files
    return
  fi
  candidates=("${(@f)$(${line} --generate-bash-completion 2>/dev/null)}")
  candidates=(${candidates:#}) # without empty ones
  if (( ${#candidates} )); then compadd -a candidates; else _files; fi
}
compdef _polyport polyport
`,
	"fish": `function __polyport_candidates
  set -l line (commandline -opc)
  set -l word (commandline -ct)
  string match -q -- '-*' $word; and set -a line $word
  $line --generate-bash-completion 2>/dev/null
end
complete -c polyport -f -a '(__polyport_candidates)'
complete -c polyport -s c -l config -l htpasswd -l dir -r -F
`,
}
