package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// copyUp changes one byte of a large lower file, which is copied up whole. In a plain directory it is cp that copies the
// file, and syncs it where the mounts do.
type copyUp struct{ volatile bool }

func (w copyUp) Name() string {
	if w.volatile {
		return "copy-up-volatile"
	}
	return "copy-up"
}

func (w copyUp) Figures() []Figure {
	title := "large file copied up (native: cp, synced)"
	if w.volatile {
		title = "large file copied up, volatile (native: cp)"
	}
	return []Figure{{Name: w.Name(), Title: title, Unit: Seconds, Targets: []Target{
		{Subject: DeepFUSE, Against: Native, AtMost: 1.1},
	}}}
}

func (copyUp) Depths() []int { return []int{2} }

func (w copyUp) Needs() Needs {
	return Needs{Data: true, Writable: true, CopyUp: true, Volatile: w.volatile, Program: "cp"}
}

func (w copyUp) Run(ctx context.Context, b *Bed) error {
	for _, file := range b.Set.largeFiles() {
		if err := discardFile(file); err != nil {
			return err
		}
	}
	large := filepath.Join(b.Mount.Root, LargeFile)
	change := func() error { return changeOneByte(large) }
	if b.Subject.Name() == Native {
		dir, err := b.Scratch()
		if err != nil {
			return err
		}
		change = func() error { return w.copy(ctx, large, filepath.Join(dir, LargeFile)) }
	}
	return b.Time(ctx, w.Name(), func() (time.Duration, error) { return stopwatch(change) })
}

func changeOneByte(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{1}, 0); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (w copyUp) copy(ctx context.Context, from, to string) error {
	if err := runQuietly(exec.CommandContext(ctx, "cp", "--sparse=auto", "--reflink=auto", from, to)); err != nil || w.volatile {
		return err
	}
	f, err := os.Open(to)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
