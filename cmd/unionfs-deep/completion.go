package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// The scripts ask this program for the words, so that a new flag or command needs no change in them.
var (
	//go:embed completion.bash
	bashCompletion string
	//go:embed completion.zsh
	zshCompletion string
	//go:embed completion.fish
	fishCompletion string
)

func completionCommand() *command {
	return &command{
		name:     "completion",
		operands: "bash|zsh|fish",
		summary:  "print a script that completes this program's command line",
		details: `Examples:
  unionfs-deep completion bash >/etc/bash_completion.d/unionfs-deep
  unionfs-deep completion zsh >"${fpath[1]}/_unionfs-deep"
  unionfs-deep completion fish >~/.config/fish/completions/unionfs-deep.fish
`,
		setup: func(flags *pflag.FlagSet) runFunc {
			words := flags.Bool("words", false, "")
			flags.MarkHidden("words") // for the scripts: the words that may follow the operands
			return func(_ context.Context, e *env, operands []string) error {
				if *words {
					printWords(e.out, operands)
					return nil
				}
				return printScript(e.out, operands)
			}
		},
	}
}

func printScript(w io.Writer, operands []string) error {
	scripts := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	if len(operands) != 1 || scripts[operands[0]] == "" {
		return usagef("completion: name one shell: bash, zsh or fish")
	}
	_, err := io.WriteString(w, scripts[operands[0]])
	return err
}

// printWords prints the commands, or the flags of the command that the line begins with, one a line.
func printWords(w io.Writer, line []string) {
	if len(line) == 0 {
		for _, c := range commands() {
			fmt.Fprintln(w, c.name)
		}
		return
	}
	c := commandNamed(line[0])
	if c == nil {
		return
	}
	if alternatives := strings.Split(c.operands, "|"); len(alternatives) > 1 {
		fmt.Fprintln(w, strings.Join(alternatives, "\n"))
	}
	flags, _, _ := c.flagSet()
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			fmt.Fprintln(w, "--"+f.Name)
		}
	})
}
