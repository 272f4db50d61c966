package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// memory measures the resident memory of the server after a walk of many files, and once the kernel has forgotten them.
type memory struct{ files int }

func (w memory) million() bool { return w.files >= 1_000_000 }

func (w memory) Name() string {
	if w.million() {
		return "memory-million"
	}
	return "memory"
}

func (w memory) Figures() []Figure {
	count, bound := "100,000", 60.0
	if w.million() {
		count, bound = "1,000,000", 350
	}
	return []Figure{
		{Name: w.Name(), Title: "memory of the daemon, " + count + " files walked", Unit: MiB, Targets: []Target{
			{Subject: DeepFUSE, AtMost: bound},
		}},
		{Name: w.Name() + "-forgotten", Title: "memory of the daemon, " + count + " files forgotten", Unit: MiB, Targets: []Target{
			{Subject: DeepFUSE, Against: DeepFUSE, AgainstFigure: w.Name(), AtMost: 1},
		}},
	}
}

// Depths keeps the number of directories on disk, which grows with the depth, bearable for the million.
func (w memory) Depths() []int {
	if w.million() {
		return []int{10}
	}
	return []int{100}
}

func (w memory) Needs() Needs { return Needs{Files: w.files, Daemon: true, Named: w.million()} }

func (w memory) Run(ctx context.Context, b *Bed) error {
	_, err := pinned(1, func(int) error {
		_, err := walk(ctx, b.Mount.Root)
		return err
	})
	if err != nil {
		return err
	}
	if err := recordResident(b, w.Name()); err != nil {
		return err
	}
	// A remount that changes nothing drops the mount's dentries and inodes, and no other mount's.
	if err := unix.Mount("", b.Mount.Root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("remount %s: %w", b.Mount.Root, err)
	}
	if err := pause(ctx, returnsMemoryWithin); err != nil {
		return err
	}
	return recordResident(b, w.Name()+"-forgotten")
}

// returnsMemoryWithin is how long a server gets to give memory back to the system.
const returnsMemoryWithin = 10 * time.Second

func recordResident(b *Bed, figure string) error {
	bytes, err := b.Mount.Daemon.Resident()
	if err == nil {
		b.Record(figure, float64(bytes)/(1<<20))
	}
	return err
}
