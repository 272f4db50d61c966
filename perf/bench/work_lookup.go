package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lookupRounds times all files of a directory are asked for; each makes one LOOKUP and one GETATTR, since the mount lets the
// kernel cache neither.
const lookupRounds = 50

// lookups measures what a message to the server costs: with one client, with two, on a machine that has other work for each
// processor, and on a single processor.
type lookups struct{}

func (lookups) Name() string { return "lookup" }

func (lookups) Figures() []Figure {
	ops := lookupRounds * filesInDirectory
	return []Figure{
		{Name: "lookup", Title: "uncached LOOKUP and GETATTR", Unit: Microseconds, Ops: ops, Targets: []Target{
			{Subject: DeepFUSE, Against: FasterFuseOverlayfs, AtMost: 0.4},
		}},
		{Name: "lookup-2", Title: "uncached LOOKUP and GETATTR, two clients at once, each", Unit: Microseconds, Ops: ops, Targets: []Target{
			{Subject: DeepFUSE, Against: FasterFuseOverlayfs, AtMost: 0.5},
		}},
		{Name: "lookup-busy", Title: "uncached LOOKUP and GETATTR, every processor busy", Unit: Microseconds, Ops: ops, Targets: []Target{
			{Subject: DeepFUSE, Against: FasterFuseOverlayfs, AtMost: 1},
		}},
		{Name: "lookup-single", Title: "uncached LOOKUP and GETATTR, client and server on one processor", Unit: Microseconds, Ops: ops},
	}
}

func (lookups) Depths() []int { return []int{2} }

func (lookups) Needs() Needs { return Needs{Uncached: true, Daemon: true} }

func (lookups) Run(ctx context.Context, b *Bed) error {
	if b.Set.Directories() < 2 {
		return fmt.Errorf("the layer set needs at least %d files", 2*filesInDirectory)
	}
	if err := timeLookups(ctx, b, "lookup", 1, anyProcessor); err != nil {
		return err
	}
	if err := timeLookups(ctx, b, "lookup-2", 2, anyProcessor); err != nil {
		return err
	}
	idle := keepBusy(ctx)
	err := timeLookups(ctx, b, "lookup-busy", 1, anyProcessor)
	idle()
	if err != nil {
		return err
	}
	return onFirstProcessor(b.Mount.Daemon.Pid, func(first unix.CPUSet) error {
		return timeLookups(ctx, b, "lookup-single", 1, func() func() { return confine(0, first) })
	})
}

// timeLookups lets each client stat the files of a directory of its own. Each runs place first, and what that returns last.
func timeLookups(ctx context.Context, b *Bed, figure string, clients int, place func() func()) error {
	roots := make([]int, clients)
	files := make([][]*byte, clients)
	for i := range clients {
		root, err := openRoot(filepath.Join(b.Mount.Root, directoryName(i)))
		if err != nil {
			return err
		}
		defer unix.Close(root)
		roots[i] = root
		files[i] = slices.Repeat(cstrings(b.Set.filesOf(i)), lookupRounds)
	}
	err := b.Time(ctx, figure, func() (time.Duration, error) {
		return pinned(clients, func(client int) error {
			defer place()()
			return statFiles(ctx, roots[client], files[client])
		})
	})
	if err == nil && b.samples[figure].CPU < leastMessageCPU.Seconds()*float64(clients*len(files[0])) {
		delete(b.samples, figure)
		err = errors.New("the server was not asked: its mount caches in spite of timeout=0")
	}
	return err
}

// leastMessageCPU is less than any server takes for a LOOKUP and a GETATTR: two reads and two writes on /dev/fuse.
const leastMessageCPU = 2 * time.Microsecond

// filesOf returns the names of the first filesInDirectory files of a directory.
func (s *LayerSet) filesOf(dir int) []string {
	var out []string
	prefix := directoryName(dir) + "/"
	for _, path := range s.Small {
		if name, ok := strings.CutPrefix(path, prefix); ok && len(out) < filesInDirectory {
			out = append(out, name)
		}
	}
	return out
}
