package perf

import (
	"sync"
	"sync/atomic"
)

const (
	// defaultMaxLoops bounds the slow requests handled at once. Each holds a thread, whose stack and touched buffer
	// pages take some 50 KiB, so the bound is a matter of memory: about 25 MiB of it.
	defaultMaxLoops = 512
	// maxSpare is how many loops stay parked for the next slow request; making one anew takes about 100 us.
	maxSpare = 16
)

// crew is the loops of one Conn and whose turn it is to read.
type crew struct {
	// reader is the loop whose turn it is, nil while free. Written with mu held.
	reader  atomic.Pointer[loop]
	running sync.WaitGroup
	ended   chan struct{} // closed when the connection is over
	wake    chan struct{} // wakes the parked monitor
	watched atomic.Bool   // the monitor is not parked

	mu    sync.Mutex
	all   map[*loop]struct{} // guarded by mu
	spare []*loop            // parked loops, the last parked last; guarded by mu
	free  bool               // the turn is nobody's: whichever loop comes first takes it; guarded by mu
	over  bool               // ended is closed; guarded by mu
	err   error              // why, written before ended is closed
}

func (w *crew) init() {
	w.all = make(map[*loop]struct{})
	w.ended = make(chan struct{})
	w.wake = make(chan struct{}, 1)
}

// handOver frees the turn and sees to it that a loop comes for it: a parked one, or a new one while there are fewer than
// MaxLoops. Beyond that the next loop whose handler returns takes it.
func (c *Conn) handOver() {
	w := &c.crew
	w.mu.Lock()
	defer w.mu.Unlock()
	w.free = true
	w.reader.Store(nil)
	switch n := len(w.spare); {
	case w.over:
	case n > 0:
		w.spare[n-1].wake <- struct{}{}
		w.spare = w.spare[:n-1]
	case len(w.all) < c.cfg.MaxLoops:
		l := &loop{conn: c, wake: make(chan struct{}, 1)}
		w.all[l] = struct{}{}
		w.running.Go(l.run)
	}
}

// takeTurn returns true when it has become l's turn to read, parking l until then. It returns false when l should end:
// because the connection is over or enough loops are parked already.
func (w *crew) takeTurn(l *loop) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case w.over:
			return false
		case w.free:
			w.free = false
			w.reader.Store(l)
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

// leave takes an ended loop out of the list.
func (w *crew) leave(l *loop) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, l)
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
