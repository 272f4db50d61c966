package bench

import (
	"context"
	"time"
)

// idleFor is how long an idle mount is looked at.
const idleFor = 3 * time.Second

// idle measures the processor time that the server of an idle mount takes, in percent of one processor.
type idle struct{}

func (idle) Name() string { return "idle" }

func (idle) Figures() []Figure {
	return []Figure{{Name: "idle", Title: "processor time of an idle mount", Unit: Percent, Targets: []Target{
		{Subject: DeepFUSE, AtMost: 0.1},
	}}}
}

func (idle) Depths() []int { return []int{2} }

func (idle) Needs() Needs { return Needs{Daemon: true} }

func (idle) Run(ctx context.Context, b *Bed) error {
	if _, err := walk(ctx, b.Mount.Root); err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	before, err := b.Mount.Daemon.CPU()
	if err != nil {
		return err
	}
	if err := pause(ctx, idleFor); err != nil {
		return err
	}
	after, err := b.Mount.Daemon.CPU()
	if err == nil {
		b.Record("idle", 100*(after-before).Seconds()/idleFor.Seconds())
	}
	return err
}

// pause waits, or ends with the context.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
