package bench

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// changedFiles is how many lower files get another mode.
const changedFiles = 2000

// chmodLower changes the mode of files in lower layers, each of which is copied up.
type chmodLower struct{ volatile bool }

func (w chmodLower) Name() string {
	if w.volatile {
		return "chmod-volatile"
	}
	return "chmod"
}

func (w chmodLower) Figures() []Figure {
	if w.volatile {
		return []Figure{{Name: w.Name(), Title: "chmod of 2,000 lower files, volatile", Unit: Seconds, Targets: []Target{
			{Subject: DeepFUSE, Against: FuseOverlayfs2, AtMost: 0.6},
		}}}
	}
	return []Figure{{Name: w.Name(), Title: "chmod of 2,000 lower files", Unit: Seconds, Targets: []Target{
		{Subject: DeepFUSE, Against: Overlayfs, AtMost: 1.2},
	}}}
}

func (chmodLower) Depths() []int { return []int{2, 100} }

func (w chmodLower) Needs() Needs { return Needs{Writable: true, CopyUp: true, Volatile: w.volatile} }

func (w chmodLower) Run(ctx context.Context, b *Bed) error {
	root, err := openRoot(b.Mount.Root)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	files := cstrings(b.Set.Small[:min(changedFiles, len(b.Set.Small))])
	return b.Time(ctx, w.Name(), func() (time.Duration, error) {
		return pinned(1, func(int) error { return chmodFiles(ctx, root, files, 0o600) })
	})
}
