package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// unionFlags are the flags that say what to mount; mount and plan share them.
type unionFlags struct {
	options    []string
	layersFile string
	route      string // empty: not given, so that -o route= counts
}

func (u *unionFlags) declare(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&u.options, "options", "o", nil, "mount options `OPTS`, comma-separated; may be given again")
	flags.StringVar(&u.layersFile, "layers-file", "",
		"read lower directories from `FILE`, one a line, the topmost first; - is standard input")
	flags.StringVar(&u.route, "route", "",
		"mount by this `ROUTE` and no other: overlay, stacked, fuse; or by the first that fits: auto (the default)")
}

// config makes the configuration of the mount that the flags and the one operand describe.
func (u *unionFlags) config(e *env, operands []string) (overlayfallback.Config, error) {
	cfg := overlayfallback.Config{Log: e.log}
	if len(operands) != 1 {
		return cfg, usagef("%d operands given: name one mount point, and everything else by flags", len(operands))
	}
	cfg.Target = operands[0]
	for _, options := range u.options {
		if err := cfg.Set(options); err != nil {
			return cfg, usageError{err}
		}
	}
	if u.route != "" {
		route, err := overlayfallback.ParseRoute(u.route)
		if err != nil {
			return cfg, usageError{err}
		}
		cfg.Route = route
	}
	lower, err := u.readLayers(e.in)
	if err != nil {
		return cfg, err
	}
	cfg.Lower = append(cfg.Lower, lower...)
	return cfg, makeAbsolute(&cfg)
}

func (u *unionFlags) readLayers(stdin io.Reader) ([]string, error) {
	switch u.layersFile {
	case "":
		return nil, nil
	case "-":
		return layerLines("standard input", stdin)
	}
	f, err := os.Open(u.layersFile)
	if err != nil {
		return nil, fmt.Errorf("--layers-file: %w", err)
	}
	defer f.Close()
	return layerLines(u.layersFile, f)
}

// layerLines takes each line as it is, so that a path may hold anything but a newline; empty lines mean nothing.
func layerLines(name string, r io.Reader) ([]string, error) {
	var layers []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if line := lines.Text(); line != "" {
			layers = append(layers, line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("--layers-file: read %s: %w", name, err)
	}
	if len(layers) == 0 {
		return nil, fmt.Errorf("--layers-file: %s names no layer: write one lower directory a line, the topmost first", name)
	}
	return layers, nil
}
