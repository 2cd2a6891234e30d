package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCompletion loads each script into its shell and completes something.
func TestCompletion(t *testing.T) {
	t.Parallel()
	const bash = `source <(polyport completion bash)
COMP_WORDS=(polyport %s); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); _polyport; printf '%%s\n' "${COMPREPLY[@]}"; complete -p polyport >&2`
	const zsh = `autoload -Uz compinit; compinit -u -D; source <(polyport completion zsh)
compadd() { shift; print -l -- ${(P)1} }; _files() { print FILES }
words=(polyport %s); CURRENT=$#words; _polyport; print -- $_comps[polyport] >&2`
	const fish = `polyport completion fish | source; complete -C "polyport %s"; complete -c polyport >&2`
	tests := []struct {
		words    string
		has      []string
		hasNot   string
		fishLast string // what fish is asked, where quotes differ
	}{
		{"''", []string{"serve", "check", "explain", "doctor", "user", "cert", "completion", "version"}, "add", ""},
		{"user ''", []string{"add", "remove", "list"}, "serve", "user "},
		{"serve --al", []string{"--allow-client", "--allow-target", "--allow-open-proxy"}, "--listen", "serve --al"},
		{"completion ''", []string{"bash", "fish", "zsh"}, "serve", "completion "},
	}
	shells := []struct {
		name, script string
		args         []string
	}{
		{"bash", bash, []string{"--norc", "-c"}},
		{"zsh", zsh, []string{"-f", "-c"}},
		{"fish", fish, []string{"--no-config", "-c"}},
	}
	for _, shell := range shells {
		for _, tt := range tests {
			t.Run(shell.name+" "+tt.words, func(t *testing.T) {
				words := tt.words
				if shell.name == "fish" {
					words = tt.fishLast
				}
				cmd := command(t, shell.name, append(shell.args, fmt.Sprintf(shell.script, words))...)
				cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
				got := finish(t, cmd)
				lines := strings.Split(got.stdout, "\n")
				has := func(want string) bool {
					for _, l := range lines {
						if word, _, _ := strings.Cut(l, "\t"); word == want {
							return true
						}
					}
					return false
				}
				for _, want := range tt.has {
					if !has(want) {
						t.Errorf("%s does not propose %q but %q (it said %q)", shell.name, want, lines, got.stderr)
					}
				}
				if has(tt.hasNot) {
					t.Errorf("%s proposes %q", shell.name, tt.hasNot)
				}
				if !strings.Contains(got.stderr, "polyport") {
					t.Errorf("the script did not load: %q", got.stderr)
				}
			})
		}
	}
}
