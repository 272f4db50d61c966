package bench

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// untar unpacks an archive of small files with tar(1).
type untar struct{}

func (untar) Name() string { return "untar" }

func (untar) Figures() []Figure {
	return []Figure{{Name: "untar", Title: "untar of 3,000 small files", Unit: Seconds, Targets: []Target{
		{Subject: DeepFUSE, Against: FuseOverlayfs2, AtMost: 0.8},
		{Subject: DeepFUSE, Against: FuseOverlayfs1, AtMost: 0.5},
		{Subject: DeepFUSE, Against: Overlayfs, AtMost: 4},
	}}}
}

func (untar) Depths() []int { return []int{2, 100} }

func (untar) Needs() Needs { return Needs{Writable: true, Program: "tar"} }

func (untar) Run(ctx context.Context, b *Bed) error {
	archive := filepath.Join(b.Shared, "small.tar")
	if err := makeArchive(archive); err != nil {
		return err
	}
	dir, err := b.Scratch()
	if err != nil {
		return err
	}
	return b.Time(ctx, "untar", func() (time.Duration, error) {
		return stopwatch(func() error { return runQuietly(exec.CommandContext(ctx, "tar", "-xf", archive, "-C", dir)) })
	})
}

// makeArchive writes the archive unless it is there.
func makeArchive(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buffered := bufio.NewWriter(f)
	w := tar.NewWriter(buffered)
	for i := range createdFiles {
		name := fmt.Sprintf("small/dir%02d/file%04d", i/filesInDirectory, i)
		content := smallContent(i, name, 0)
		head := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(1e9, 0)}
		if err := w.WriteHeader(&head); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}
