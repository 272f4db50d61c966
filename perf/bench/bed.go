package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// Bed is what a work has for one run: a subject's mount, and where to put what it measures.
type Bed struct {
	Subject Subject
	Request *Request
	Set     *LayerSet
	Mount   *Mount // nil for a work that mounts by itself
	Shared  string // a directory outside of the mount that lasts as long as Run
	figures map[string]Figure
	samples map[string]Sample // by figure
}

// Sample is what one run showed of one figure.
type Sample struct {
	Value    float64 // in the figure's unit
	CPU      float64 // processor time of the daemon meanwhile, in seconds; negative: not known
	Requests int64   // that the daemon served meanwhile; negative: not known
	Exceeded bool    // the run was cut: Value is a lower bound
}

// Scratch makes and returns a new directory in the mount, to write in.
func (b *Bed) Scratch() (string, error) {
	path := filepath.Join(b.Mount.Root, scratch)
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", fmt.Errorf("make %s: %w", path, err)
	}
	return path, nil
}

// Record stores a figure that is not a time.
func (b *Bed) Record(figure string, value float64) {
	b.samples[figure] = Sample{Value: value, CPU: -1, Requests: -1}
}

// Time stores how long f says that it took, with the daemon's processor time and requests meanwhile. A run that is cut by
// its context is stored as a lower bound.
func (b *Bed) Time(ctx context.Context, figure string, f func() (time.Duration, error)) error {
	requests := b.countRequests(ctx)
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	cpu := b.daemonCPU()
	began := time.Now()
	took, err := f()
	if err != nil && ctx.Err() != nil {
		b.samples[figure] = Sample{Value: b.figures[figure].value(time.Since(began)), CPU: -1, Requests: -1, Exceeded: true}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", figure, err)
	}
	s := Sample{Value: b.figures[figure].value(took), CPU: -1}
	if after := b.daemonCPU(); after >= 0 {
		s.CPU = (after - cpu).Seconds()
	}
	s.Requests = requests()
	b.samples[figure] = s
	return nil
}

func (f Figure) value(d time.Duration) float64 {
	if f.Unit == Microseconds {
		return float64(d.Nanoseconds()) / 1e3 / float64(max(1, f.Ops))
	}
	return d.Seconds()
}

func (b *Bed) daemonCPU() time.Duration {
	if b.Mount == nil || b.Mount.Daemon == nil {
		return -1
	}
	cpu, err := b.Mount.Daemon.CPU()
	if err != nil {
		return -1
	}
	return cpu
}

// countRequests returns a function that tells how many requests came since, not counting those that asking itself takes.
func (b *Bed) countRequests(ctx context.Context) func() int64 {
	unknown := func() int64 { return -1 }
	if b.Mount == nil {
		return unknown
	}
	first, ok1 := b.Mount.Requests(ctx)
	before, ok2 := b.Mount.Requests(ctx)
	if !ok1 || !ok2 {
		return unknown
	}
	return func() int64 {
		after, ok := b.Mount.Requests(ctx)
		if !ok {
			return -1
		}
		return max(0, after-before-(before-first))
	}
}

// stopwatch times f.
func stopwatch(f func() error) (time.Duration, error) {
	began := time.Now()
	err := f()
	return time.Since(began), err
}

// settle waits until the file system of path has written back everything.
func settle(path string) {
	if fd, err := openRoot(path); err == nil {
		_ = unix.Syncfs(fd)
		unix.Close(fd)
	}
}
