package perf

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// defaultMaxLoops bounds the slow requests handled at once. Each holds a thread, whose stack and touched buffer
	// pages take some 50 KiB, so the bound is a matter of memory: about 25 MiB of it.
	defaultMaxLoops = 512
	// maxSpare is how many loops stay parked for the next slow request; making one anew takes about 100 us.
	maxSpare = 16
)

// crew is the loops of one Conn and which of them read.
type crew struct {
	running sync.WaitGroup
	ended   chan struct{} // closed when the connection is over
	wake    chan struct{} // wakes the parked monitor
	watched atomic.Bool   // the monitor is not parked
	// relieved is when the monitor last took the reading from a loop; the monitor's own.
	relieved time.Time

	mu    sync.Mutex
	all   map[*loop]struct{} // guarded by mu
	spare []*loop            // parked loops, the last parked last; guarded by mu
	// readers are the loops that read, each for as long as it finds something and the last of them for good. Where it is
	// empty, MaxLoops requests are being handled and are slow: the first loop to finish reads. Guarded by mu.
	readers []*loop
	over    bool  // ended is closed; guarded by mu
	err     error // why, written before ended is closed
}

func (w *crew) init() {
	w.all = make(map[*loop]struct{})
	w.ended = make(chan struct{})
	w.wake = make(chan struct{}, 1)
}

// handOver takes a reader (nil for none) off the reading, and sees to it that another loop reads.
func (c *Conn) handOver(l *loop) {
	w := &c.crew
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dismissLocked(l)
	if len(w.readers) == 0 {
		c.enlistLocked(anywhere)
	}
}

// invite makes a further loop read, on a processor, unless one reads there or on each processor already.
func (c *Conn) invite(processor int32) {
	w := &c.crew
	w.mu.Lock()
	defer w.mu.Unlock()
	there := func(l *loop) bool { return l.processor.Load() == processor }
	if len(w.readers) < len(c.processors) && !slices.ContainsFunc(w.readers, there) {
		c.enlistLocked(processor)
	}
}

// enlistLocked makes a parked loop read, or a new one while there are fewer than MaxLoops. Beyond that the next loop whose
// handler returns reads.
func (c *Conn) enlistLocked(processor int32) {
	w := &c.crew
	var l *loop
	switch n := len(w.spare); {
	case w.over:
		return
	case n > 0:
		l = w.spare[n-1]
		w.spare = w.spare[:n-1]
		l.wake <- struct{}{}
	case len(w.all) < c.cfg.MaxLoops:
		l = newLoop(c)
		w.all[l] = struct{}{}
		w.running.Go(l.run)
	default:
		return
	}
	l.processor.Store(processor)
	w.readers = append(w.readers, l)
}

// dismissLocked takes a loop off the reading.
func (w *crew) dismissLocked(l *loop) {
	if i := slices.Index(w.readers, l); i >= 0 {
		w.readers = slices.Delete(w.readers, i, i+1)
	}
}

// mayRest lets a reader that finds nothing to read stop, unless it is the last.
func (w *crew) mayRest(l *loop) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.readers) < 2 {
		return false
	}
	w.dismissLocked(l)
	return true
}

// enter returns true when l is to read, parking it until then. It returns false when l should end: because the connection
// is over or enough loops are parked already.
func (w *crew) enter(l *loop) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case w.over:
			return false
		case slices.Contains(w.readers, l):
			return true
		case len(w.readers) == 0:
			w.readers = append(w.readers, l)
			return true
		case len(w.spare) >= maxSpare:
			return false
		}
		w.spare = append(w.spare, l)
		w.mu.Unlock()
		<-l.wake
		w.mu.Lock()
	}
}

// leave takes an ended loop out of the lists. If it was to read, a parked one does.
func (c *Conn) leave(l *loop) {
	w := &c.crew
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, l)
	w.dismissLocked(l)
	if len(w.readers) == 0 && len(w.spare) > 0 {
		c.enlistLocked(anywhere)
	}
}

// alone tells whether l is the only loop that there is.
func (w *crew) alone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all) == 1
}

// end makes all loops end as soon as their handlers have returned. Only the first error counts.
func (w *crew) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.over, w.err = true, err
	for _, l := range w.spare {
		l.wake <- struct{}{}
	}
	w.spare = nil
	close(w.ended)
}

// inFlight returns the unique numbers of the requests whose handlers have not returned.
func (w *crew) inFlight() []uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var uniques []uint64
	for l := range w.all {
		if u := l.unique.Load(); u != 0 {
			uniques = append(uniques, u)
		}
	}
	return uniques
}
