package bench

import (
	"context"
	"path/filepath"
	"time"
)

// writtenMiB is the size of the file that is written.
const writtenMiB = 256

// dataWrite writes a large new file, in blocks of 128 KiB, without syncing it.
type dataWrite struct{}

func (dataWrite) Name() string { return "data-write" }

func (dataWrite) Figures() []Figure {
	return []Figure{{Name: "data-write", Title: "256 MiB written", Unit: Seconds, Targets: []Target{
		{Subject: DeepPassthrough, Against: Overlayfs, AtMost: 1.3},
		{Subject: DeepCache, Against: Overlayfs, AtMost: 3},
		{Subject: DeepFUSE, Against: FuseOverlayfs1, AtMost: 0.6},
	}}}
}

func (dataWrite) Depths() []int { return []int{2} }

func (dataWrite) Needs() Needs { return Needs{Writable: true, Program: "fio"} }

func (dataWrite) Run(ctx context.Context, b *Bed) error {
	dir, err := b.Scratch()
	if err != nil {
		return err
	}
	job := fioJob{File: filepath.Join(dir, "written"), Mode: "write", Engine: "psync", Block: "128k", MiB: writtenMiB}
	return b.Time(ctx, "data-write", func() (time.Duration, error) { return job.run(ctx) })
}
