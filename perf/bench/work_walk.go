package bench

import (
	"context"
	"time"
)

// statWalk lists the whole tree and stats each entry: in a mount that nobody has looked at, and again.
type statWalk struct{}

func (statWalk) Name() string { return "walk" }

func (statWalk) Figures() []Figure {
	return []Figure{
		{Name: "cold-walk", Title: "cold stat walk", Unit: Seconds, Targets: []Target{
			{Subject: DeepFUSE, Depth: 400, Against: Overlayfs, AtMost: 0.5},
			{Subject: DeepFUSE, Depth: 2000, Against: FuseOverlayfs1, AtMost: 0.1},
			{Subject: DeepFUSE, Depth: 2000, Against: FuseOverlayfs2, AtMost: 0.4},
			{Subject: DeepFUSE, Depth: 10000, AgainstDepth: 1000, Against: DeepFUSE, AtMost: 4},
		}},
		{Name: "warm-walk", Title: "warm stat walk", Unit: Seconds, Targets: []Target{
			{Subject: DeepFUSE, Depth: 400, Against: Overlayfs, AtMost: 0.8},
			{Subject: DeepFUSE, Depth: 2, Against: Overlayfs, AtMost: 1},
		}},
	}
}

func (statWalk) Depths() []int { return []int{2, 100, 400, 1000, 2000, 10000} }

func (statWalk) Needs() Needs { return Needs{} }

// Run walks three times: the second walk lets the kernel finish what it fills on a second look (it caches a directory
// that was read whole), the third is timed.
func (statWalk) Run(ctx context.Context, b *Bed) error {
	once := func() (time.Duration, error) {
		return pinned(1, func(int) error {
			_, err := walk(ctx, b.Mount.Root)
			return err
		})
	}
	if err := b.Time(ctx, "cold-walk", once); err != nil {
		return err
	}
	if _, err := once(); err != nil {
		return err
	}
	return b.Time(ctx, "warm-walk", once)
}
