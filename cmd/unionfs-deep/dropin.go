package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// dropInFlags are the flags of the form without a command: fuse-overlayfs's, or, under a name that begins with "mount.",
// those that mount(8) gives its helpers.
type dropInFlags struct {
	options    []string
	foreground bool
	debug      bool
	fake       bool
	verbose    bool
	version    bool
	help       bool
}

// isMountHelper tells whether mount(8) runs us, or somebody in its stead.
func isMountHelper(name string) bool { return strings.HasPrefix(name, "mount.") }

// dropIn mounts by the fuse route as fuse-overlayfs does: -o OPTS [SOURCE] MOUNTPOINT. Its callers tell a live mount by
// FUSE's file system magic and put .wh. files into layers, so the kernel's overlay would not do.
func dropIn(ctx context.Context, e *env, args []string) error {
	var d dropInFlags
	flags := d.newSet()
	flags.BoolVarP(&d.foreground, "foreground", "f", false, "")
	flags.BoolVarP(&d.debug, "debug", "d", false, "")
	flags.BoolP("single", "s", false, "") // libfuse's: one thread. How many threads there are shows nowhere, so it is free.
	if err := flags.Parse(args); err != nil {
		return usagef("%w: see unionfs-deep --help", err)
	}
	return d.run(ctx, e, flags.Args())
}

// mountHelper does the same for mount(8): SOURCE MOUNTPOINT -o OPTS. There -f means to mount nothing, and -s to pass over
// options that are not known.
func mountHelper(ctx context.Context, e *env, args []string) error {
	var d dropInFlags
	flags := d.newSet()
	flags.BoolVarP(&d.fake, "fake", "f", false, "")
	flags.BoolVarP(&d.verbose, "verbose", "v", false, "")
	// Of no consequence: there is no mtab, unknown options are passed over anyway, the type is ours or we had not been run,
	// and mount(8) has entered the namespace already.
	flags.BoolP("no-mtab", "n", false, "")
	flags.BoolP("sloppy", "s", false, "")
	flags.StringP("types", "t", "", "")
	flags.StringP("namespace", "N", "", "")
	if err := flags.Parse(args); err != nil {
		return usagef("%w", err)
	}
	return d.run(ctx, e, flags.Args())
}

func (d *dropInFlags) newSet() *pflag.FlagSet {
	flags := pflag.NewFlagSet("unionfs-deep", pflag.ContinueOnError)
	flags.StringArrayVarP(&d.options, "options", "o", nil, "")
	flags.BoolVarP(&d.help, "help", "h", false, "")
	flags.BoolVarP(&d.version, "version", "V", false, "")
	return flags
}

func (d *dropInFlags) run(ctx context.Context, e *env, operands []string) error {
	switch {
	case d.help:
		mainHelp(e.out)
		return nil
	case d.version:
		fmt.Fprintln(e.out, versionLine())
		return nil
	}
	if err := d.logFlags().apply(e); err != nil {
		return err
	}
	if d.fake {
		_, err := d.config(e, operands)
		return err
	}
	if asked, err := remount(operands, d.options); asked {
		return err
	}
	s := serving{foreground: d.foreground || d.debug}
	return s.run(ctx, e, func() (overlayfallback.Config, error) { return d.config(e, operands) })
}

func (d *dropInFlags) logFlags() *logFlags {
	l := logFlags{level: "warn", format: "text"}
	switch {
	case d.debug:
		l.level = "debug"
	case d.verbose:
		l.level = "info"
	}
	return &l
}

func (d *dropInFlags) config(e *env, operands []string) (overlayfallback.Config, error) {
	cfg := overlayfallback.Config{Route: overlayfallback.FUSE, Lenient: true, Log: e.log}
	switch len(operands) {
	case 1:
		cfg.Target = operands[0]
	case 2:
		cfg.Source, cfg.Target = operands[0], operands[1]
	default:
		return cfg, usagef("%d operands given: name the mount point, and before it a source if wanted", len(operands))
	}
	for _, options := range d.options {
		if err := cfg.Set(options); err != nil {
			return cfg, usageError{err}
		}
	}
	return cfg, makeAbsolute(&cfg)
}
