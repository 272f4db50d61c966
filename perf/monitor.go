package perf

import (
	"slices"
	"time"
)

const (
	// tick is how often the monitor looks within alertFor after a handler was so slow that it lost the reading. It loses it after
	// one to two ticks: late enough that handlers which work on cached metadata keep it, early enough to be no hitch that anyone sees.
	tick     = 500 * time.Microsecond
	alertFor = time.Second
	// calmTick is how often it looks otherwise. Each look wakes several threads of the runtime, for which the scheduler may move the
	// client from beside its loop.
	calmTick = 5 * time.Millisecond
	// idleTicks without a request park the monitor, so that an idle mount has no timer.
	idleTicks = 8
)

// sight is what the monitor sees at a tick.
type sight int

const (
	quiet sight = iota // no reader has done anything since the last tick
	busy               // one has
	stuck              // each of them still handles the request that it handled at the last tick
)

// watchReaders is the monitor: it takes the reading from loops whose handlers are slow.
func (c *Conn) watchReaders() {
	for {
		select {
		case <-c.crew.wake:
			c.watchWhileBusy()
		case <-c.crew.ended:
			return
		}
	}
}

// watchWhileBusy looks at the readers every tick and returns, parked, when there is nothing to watch: no request for some
// ticks, or no reader, because every loop allowed handles a slow request and the first to finish will be the reader.
func (c *Conn) watchWhileBusy() {
	c.crew.look()
	for idle := 0; ; {
		time.Sleep(c.untilNextLook())
		switch c.crew.look() {
		case busy:
			idle = 0
		case stuck:
			c.crew.relieved = time.Now()
			c.relieve()
		case quiet:
			idle++
		}
		if idle >= idleTicks && c.park() {
			return
		}
	}
}

func (c *Conn) untilNextLook() time.Duration {
	if time.Since(c.crew.relieved) < alertFor {
		return tick
	}
	return calmTick
}

// look compares the readers with what they did at the last look.
func (w *crew) look() sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, working := quiet, 0
	for _, l := range w.readers {
		turn := l.turn.Load()
		if turn != l.seen {
			s = busy
		}
		if handling(turn) {
			working++
		}
		l.seen = turn
	}
	if s == quiet && working > 0 && working == len(w.readers) {
		return stuck
	}
	return s
}

// relieve hands the reading on from the readers that still handle what they handled at the last look.
func (c *Conn) relieve() {
	w := &c.crew
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range slices.Clone(w.readers) {
		if handling(l.seen) && l.turn.CompareAndSwap(l.seen, l.seen+1) {
			c.counters.handovers.Add(1)
			w.dismissLocked(l)
		}
	}
	if len(w.readers) == 0 {
		c.enlistLocked(anywhere)
	}
}

// park announces that nobody watches and tells whether that is right: a loop that began to handle a request just before
// may have seen the monitor still awake, and would not wake it.
func (c *Conn) park() bool {
	c.crew.watched.Store(false)
	if c.crew.look() == quiet {
		return true
	}
	// If a loop has announced the opposite meanwhile, its wake-up is on its way.
	return !c.crew.watched.CompareAndSwap(false, true)
}

// watch wakes the monitor if it is parked.
func (c *Conn) watch() {
	if c.crew.watched.Load() || !c.crew.watched.CompareAndSwap(false, true) {
		return
	}
	c.crew.wake <- struct{}{}
}
