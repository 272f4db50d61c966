package bench

import (
	"context"
	"time"
)

// mountTime measures how long the command takes that mounts, until it returns because the mount can be used.
type mountTime struct{}

func (mountTime) Name() string { return "mount" }

func (mountTime) Figures() []Figure {
	return []Figure{{Name: "mount", Title: "time until a mount can be used", Unit: Seconds, Targets: []Target{
		{Subject: DeepFUSE, Depth: 1000, AtMost: 0.1},
	}}}
}

func (mountTime) Depths() []int { return []int{2, 400, 1000} }

func (mountTime) Needs() Needs { return Needs{ByItself: true} }

func (mountTime) Run(ctx context.Context, b *Bed) error {
	launcher, ok := b.Subject.(Launcher)
	if !ok {
		return mountHere(ctx, b)
	}
	err := b.Time(ctx, "mount", func() (time.Duration, error) {
		return stopwatch(func() error { return launcher.Launch(ctx, b.Request) })
	})
	if unmountErr := unmount(b.Request.Target); err == nil {
		err = unmountErr
	}
	if reapErr := reapOrphans(endsWithin); err == nil {
		err = reapErr
	}
	return err
}

// mountHere times a subject that this process mounts by itself.
func mountHere(ctx context.Context, b *Bed) error {
	return b.Time(ctx, "mount", func() (time.Duration, error) {
		began := time.Now()
		m, err := b.Subject.Mount(ctx, b.Request)
		took := time.Since(began)
		if err != nil {
			return 0, err
		}
		return took, m.Close()
	})
}
