package bench

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// createdFiles is how many files the writing works make.
const createdFiles = 3000

// writeTargets are the bounds of everything that makes or removes many small files.
func writeTargets() []Target {
	return []Target{
		{Subject: DeepFUSE, Against: FuseOverlayfs2, AtMost: 0.5},
		{Subject: DeepFUSE, Against: FuseOverlayfs1, AtMost: 0.5},
		{Subject: DeepFUSE, Against: Overlayfs, AtMost: 4},
	}
}

// createDelete makes small files in new directories, a hundred in each, and removes them.
type createDelete struct{}

func (createDelete) Name() string { return "create" }

func (createDelete) Figures() []Figure {
	return []Figure{
		{Name: "create", Title: "3,000 small files created", Unit: Seconds, Targets: writeTargets()},
		{Name: "delete", Title: "3,000 small files deleted", Unit: Seconds, Targets: writeTargets()},
	}
}

func (createDelete) Depths() []int { return []int{2, 100} }

func (createDelete) Needs() Needs { return Needs{Writable: true} }

func (createDelete) Run(ctx context.Context, b *Bed) error {
	dir, err := b.Scratch()
	if err != nil {
		return err
	}
	root, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	names, err := newNames(dir)
	if err != nil {
		return err
	}
	files, content := cstrings(names), smallContent(0, scratch, 0)
	err = b.Time(ctx, "create", func() (time.Duration, error) {
		return pinned(1, func(int) error { return createFiles(ctx, root, files, content) })
	})
	if err != nil {
		return err
	}
	return b.Time(ctx, "delete", func() (time.Duration, error) {
		return pinned(1, func(int) error { return unlinkFiles(ctx, root, files) })
	})
}

// newNames makes the directories for the files that will be created, and returns the files' paths, relative to dir.
func newNames(dir string) ([]string, error) {
	var names []string
	for i := range createdFiles {
		sub := fmt.Sprintf("new%02d", i/filesInDirectory)
		if i%filesInDirectory == 0 {
			if err := os.Mkdir(dir+"/"+sub, 0o755); err != nil {
				return nil, err
			}
		}
		names = append(names, fmt.Sprintf("%s/file%04d", sub, i))
	}
	return names, nil
}
