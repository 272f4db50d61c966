package perf

import "time"

const (
	// tick is how often the monitor looks while there are requests. A handler loses the turn after one to two of them:
	// late enough that handlers which work on cached metadata keep it, early enough to be no hitch that anyone sees.
	tick = 500 * time.Microsecond
	// idleTicks without a request park the monitor, so that an idle mount has no timer.
	idleTicks = 8
)

// watchReader is the monitor: it takes the turn to read from a loop whose handler is slow and hands it on.
func (c *Conn) watchReader() {
	for {
		select {
		case <-c.crew.wake:
			c.watchWhileBusy()
		case <-c.crew.ended:
			return
		}
	}
}

// watchWhileBusy looks at the reader every tick and returns, parked, when there is nothing to watch: no request for some
// ticks, or no reader, because every loop allowed handles a slow request and the first to finish will be the reader.
func (c *Conn) watchWhileBusy() {
	last, lastTurn := c.crew.readerTurn()
	for idle := 0; ; {
		time.Sleep(tick)
		l, turn := c.crew.readerTurn()
		switch {
		case l != last || turn != lastTurn:
			idle = 0
		case !handling(turn):
			idle++
		case l.turn.CompareAndSwap(turn, turn+1):
			c.counters.handovers.Add(1)
			c.handOver()
		}
		last, lastTurn = l, turn
		if idle >= idleTicks && c.park(l, turn) {
			return
		}
	}
}

// readerTurn returns the reader and its turn, nil and 0 while nobody reads.
func (w *crew) readerTurn() (*loop, uint64) {
	l := w.reader.Load()
	if l == nil {
		return nil, 0
	}
	return l, l.turn.Load()
}

// park announces that nobody watches and tells whether that is right: a loop that began to handle a request just before
// may have seen the monitor still awake, and would not wake it.
func (c *Conn) park(l *loop, turn uint64) bool {
	c.crew.watched.Store(false)
	if now, nowTurn := c.crew.readerTurn(); now == l && nowTurn == turn {
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
