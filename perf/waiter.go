package perf

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// spinFor is how long a reader waits actively for the next request: a little longer than a client on another
	// processor takes from one answer to its next request.
	spinFor = 30 * time.Microsecond
	// maxCredit is how many active waits in vain it takes to stop them.
	maxCredit = 8
	// stolenFrom is the length of a yield that tells that another program has used the processor meanwhile.
	stolenFrom = 8 * spinFor
	// After a stolen yield there is no active wait for minCalm, after the next ones for four times as long each, up to maxCalm.
	// A stolen yield costs up to a time slice, some 3 ms, so a busy machine loses less than a thousandth.
	minCalm = 100 * time.Millisecond
	maxCalm = 10 * time.Second
)

// spinners counts the readers of this process that wait actively. There may be one for each processor, so that a process that
// serves many mounts leaves them to their clients.
var spinners atomic.Int32

// waiter decides how a reader waits for the next request.
type waiter struct {
	// credit says whether waiting actively has paid lately: it is tried while positive.
	credit     int
	processors int
	// calmUntil is the end of the time without active waits after a stolen yield, calm the length of that time.
	calmUntil time.Time
	calm      time.Duration
	counters  *Counters
}

func (w *waiter) init(counters *Counters, processors int) {
	w.counters = counters
	w.credit = maxCredit
	w.processors = min(processors, runtime.GOMAXPROCS(0))
}

func again(errno syscall.Errno) bool {
	return errno == syscall.EAGAIN || errno == syscall.EINTR
}

// mayWaitActively tells whether waiting actively promises anything.
func (w *waiter) mayWaitActively(now time.Time) bool {
	return w.credit > 0 && w.processors > 1 && !now.Before(w.calmUntil)
}

// waitActively tries to read for a while, where that promises anything, and gives EAGAIN where nothing came.
func (w *waiter) waitActively(tryRead func() (int, syscall.Errno), start time.Time) (int, syscall.Errno) {
	if !w.mayWaitActively(start) {
		return 0, syscall.EAGAIN
	}
	defer spinners.Add(-1)
	if spinners.Add(1) > int32(w.processors) {
		return 0, syscall.EAGAIN
	}
	return w.spin(tryRead, start)
}

// spin tries to read for spinFor, yielding the processor between tries so that a client on the same one can run.
func (w *waiter) spin(tryRead func() (int, syscall.Errno), start time.Time) (n int, errno syscall.Errno) {
	for now := start; ; {
		yieldProcessor()
		n, errno = tryRead()
		before := now
		now = time.Now()
		if now.Sub(before) > stolenFrom {
			w.calmDown(now)
		}
		switch {
		case !again(errno):
			w.earn(1)
			w.counters.spinHits.Add(1)
			return n, errno
		case now.Sub(start) > spinFor:
			w.credit--
			w.counters.spinMisses.Add(1)
			return n, errno
		}
	}
}

// calmDown ends active waits for a while because a yield gave the processor to another program. On a busy machine
// sleeping is better: waking takes the processor back at once, the return from a yield comes when the others have used
// their time slices up, whatever requests have come meanwhile.
func (w *waiter) calmDown(now time.Time) {
	if now.Sub(w.calmUntil) > w.calm {
		w.calm = minCalm
	} else {
		w.calm = min(4*w.calm, maxCalm)
	}
	w.calmUntil = now.Add(w.calm)
}

// earn adds credit.
func (w *waiter) earn(credit int) {
	w.credit = min(w.credit+credit, maxCredit)
}

// slept counts a sleep since start, if that is given. One so short that an active wait would have met the request earns credit:
// enough for two tries, so that in bursts of two requests the second is met although the wait after it was in vain.
func (w *waiter) slept(start time.Time) {
	w.counters.sleeps.Add(1)
	if !start.IsZero() && time.Since(start) < 2*spinFor {
		w.earn(2)
	}
}
