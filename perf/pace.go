package perf

import (
	"sync/atomic"
	"time"
)

// slowFrom is the handling time from which it pays to wake another loop, where more than one request is there: waking
// one takes some 20 us until it reads.
const slowFrom = 50 * time.Microsecond

// pace is how long requests of each kind have lately taken to handle. It foretells which ones will wait for a disk or a
// network, so that those behind them need not wait for the monitor's tick.
type pace struct {
	mean  [numOpcodes]atomic.Int64 // nanoseconds
	kinds atomic.Uint64            // a bit for each kind that is slow
}

// took enters one more time. Of two loops that do so at once one may be lost, which does no harm to a mean.
func (p *pace) took(opcode uint32, d time.Duration) {
	kind := min(opcode, numOpcodes-1)
	mean := &p.mean[kind]
	old := mean.Load()
	now := old + (int64(d)-old)/8
	mean.Store(now)
	bit := uint64(1) << kind
	switch slow, marked := now >= int64(slowFrom), p.kinds.Load()&bit != 0; {
	case slow && !marked:
		p.kinds.Or(bit)
	case !slow && marked:
		p.kinds.And(^bit)
	}
}

// someSlow reports whether requests of any kind are slow.
func (p *pace) someSlow() bool { return p.kinds.Load() != 0 }

// slow foretells whether handling a request of that kind takes long.
func (p *pace) slow(opcode uint32) bool {
	return p.mean[min(opcode, numOpcodes-1)].Load() >= int64(slowFrom)
}
