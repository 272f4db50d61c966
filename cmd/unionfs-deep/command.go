package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// command is one command of the program: what help and completion show of it, and what it does.
type command struct {
	name     string
	operands string // as the synopsis shows them
	summary  string // one line, no full stop
	details  string // what help says below the flags
	// setup declares the command's flags and returns what runs once they are parsed.
	setup func(*pflag.FlagSet) runFunc
}

// runFunc does a command's work with its operands.
type runFunc func(ctx context.Context, e *env, operands []string) error

// commands lists every command in the order in which help shows them. It is a function because help and completion,
// which are commands themselves, read it.
func commands() []*command {
	return []*command{
		mountCommand(), umountCommand(), planCommand(), doctorCommand(), inspectCommand(), benchCommand(), completionCommand(),
	}
}

func commandNamed(name string) *command {
	for _, c := range commands() {
		if c.name == name {
			return c
		}
	}
	return nil
}

// flagSet declares the command's own flags, and those that every command has, on a new set.
func (c *command) flagSet() (*pflag.FlagSet, *logFlags, runFunc) {
	flags := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	flags.SortFlags = false
	run := c.setup(flags)
	logging := declareLogFlags(flags)
	flags.BoolP("help", "h", false, "show this help and exit")
	return flags, logging, run
}

func (c *command) execute(ctx context.Context, e *env, args []string) error {
	flags, logging, run := c.flagSet()
	if err := flags.Parse(args); err != nil {
		return usagef("%s: %w: see unionfs-deep %s --help", c.name, err, c.name)
	}
	if help, _ := flags.GetBool("help"); help {
		c.help(e.out)
		return nil
	}
	if err := logging.apply(e); err != nil {
		return err
	}
	return run(ctx, e, flags.Args())
}

func (c *command) help(w io.Writer) {
	flags, _, _ := c.flagSet()
	fmt.Fprintf(w, "Usage: %s\n\n%s.\n\nFlags:\n%s", c.synopsis(), capitalized(c.summary), flagUsages(flags))
	if c.details != "" {
		fmt.Fprintf(w, "\n%s", c.details)
	}
}

// flagUsages leaves out the values that pflag shows behind a switch, which nobody gives, and keeps its columns.
func flagUsages(flags *pflag.FlagSet) string {
	const values = "[=true|false]"
	return strings.ReplaceAll(flags.FlagUsagesWrapped(80), values, strings.Repeat(" ", len(values)))
}

func (c *command) synopsis() string {
	return strings.TrimSpace(fmt.Sprintf("unionfs-deep %s [FLAGS] %s", c.name, c.operands))
}

func capitalized(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
