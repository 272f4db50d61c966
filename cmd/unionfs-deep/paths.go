package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// makeAbsolute puts the working directory in front of each relative path, so that a daemon can leave that directory, and
// what mountinfo and inspect show can be understood elsewhere. Nothing is cleaned: a/../b is not b where a is a symbolic
// link.
func makeAbsolute(cfg *overlayfallback.Config) error {
	cwd, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find the working directory: %w", err)
	}
	absolute := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = cwd + "/" + *path
		}
	}
	for _, layers := range [][]string{cfg.Lower, cfg.Data} {
		for i := range layers {
			absolute(&layers[i])
		}
	}
	for _, path := range []*string{&cfg.Upper, &cfg.Work, &cfg.Target} {
		absolute(path)
	}
	return nil
}
