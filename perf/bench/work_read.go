package bench

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// smallReads opens, reads and closes every small file: first in a mount that knows nothing of it, then again.
type smallReads struct{}

func (smallReads) Name() string { return "read" }

func (smallReads) Figures() []Figure {
	hot := []Target{
		{Subject: DeepCache, Depth: 2, Against: Overlayfs, AtMost: 1},
		{Subject: DeepCache, Depth: 400, Against: Overlayfs, AtMost: 1},
	}
	return []Figure{
		{Name: "first-read", Title: "first read of every small file", Unit: Seconds, Targets: []Target{
			{Subject: DeepFUSE, Against: FuseOverlayfs2, AtMost: 0.6},
		}},
		{Name: "hot-read", Title: "later read of every small file", Unit: Seconds,
			Targets: append([]Target{{Subject: DeepCache, Of: Requests, AtMost: 0}}, hot...)},
		{Name: "hot-read-2", Title: "later read of every small file, by two threads at once", Unit: Seconds, Targets: hot},
	}
}

func (smallReads) Depths() []int { return []int{2, 100, 400, 2000} }

func (smallReads) Needs() Needs { return Needs{} }

func (smallReads) Run(ctx context.Context, b *Bed) error {
	root, err := openRoot(b.Mount.Root)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	files := cstrings(b.Set.Small)
	by := func(threads int) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			return pinned(threads, func(thread int) error {
				return readFiles(ctx, root, files, thread*len(files)/threads)
			})
		}
	}
	for _, pass := range []struct {
		figure  string
		threads int
	}{{"first-read", 1}, {"", 1}, {"hot-read", 1}, {"hot-read-2", 2}} {
		if pass.figure == "" {
			_, err = by(pass.threads)()
		} else {
			err = b.Time(ctx, pass.figure, by(pass.threads))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
