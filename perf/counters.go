package perf

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// numOpcodes is more than the highest request kind that Linux has; what lies beyond is counted as the last.
const numOpcodes = 64

// Counters counts what reached the daemon. All methods may be called at any time from any goroutine. The zero value is
// ready for use.
type Counters struct {
	requests, failures                    [numOpcodes]atomic.Uint64
	bytesIn, bytesOut                     atomic.Uint64
	handovers, panics                     atomic.Uint64
	spinHits, spinMisses, sleeps, notices atomic.Uint64

	mu     sync.Mutex
	values []Value // guarded by mu
}

// Value is a figure that the file system adds to the counters of its connection, such as copy-ups or the size of a cache.
type Value struct {
	// Name in lower case with underscores, as in "copy_ups".
	Name string
	// Help is one line that says what is counted and in which unit.
	Help string
	// Cumulative figures only grow (copy-ups); others go up and down (nodes held).
	Cumulative bool
	// Read returns the figure. It is called from any goroutine and must not block.
	Read func() int64
}

// Add makes v part of every Snapshot. A second value of the same name takes the place of the first.
func (c *Counters) Add(v Value) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values = slices.DeleteFunc(c.values, func(old Value) bool { return old.Name == v.Name })
	c.values = append(c.values, v)
}

// count enters one request: the bytes of the request and of its reply (0: none was due), and whether the reply is an error.
func (c *Counters) count(opcode uint32, in, out int, failed bool) {
	i := min(opcode, numOpcodes-1)
	c.requests[i].Add(1)
	if failed {
		c.failures[i].Add(1)
	}
	c.bytesIn.Add(uint64(in))
	c.bytesOut.Add(uint64(out))
}

// Snapshot is the counters at one moment.
type Snapshot struct {
	// Total and Errors count requests, and those answered with an error (a name that is not there included).
	Total  uint64 `json:"total"`
	Errors uint64 `json:"errors"`
	// Requests by kind, named as in the kernel: "LOOKUP".
	Requests map[string]RequestCount `json:"requests"`
	// BytesIn and BytesOut count whole messages on /dev/fuse: requests read, replies written.
	BytesIn  uint64 `json:"bytes_in"`
	BytesOut uint64 `json:"bytes_out"`
	// Loop tells how the request loop fared.
	Loop LoopCount `json:"loop"`
	// Values are the file system's own figures, in the order in which they were added.
	Values []ValueCount `json:"values"`
}

// RequestCount counts one kind of request.
type RequestCount struct {
	Count  uint64 `json:"count"`
	Errors uint64 `json:"errors"`
}

// LoopCount counts how requests were waited for and served.
type LoopCount struct {
	// ActiveHits and ActiveMisses count active waits in which a request came, and in which none did.
	ActiveHits   uint64 `json:"active_hits"`
	ActiveMisses uint64 `json:"active_misses"`
	// Sleeps counts the requests that had to wake the reader.
	Sleeps uint64 `json:"sleeps"`
	// Handovers counts slow requests, beside which another thread took over the reading.
	Handovers uint64 `json:"handovers"`
	// Panics counts handlers that panicked.
	Panics uint64 `json:"panics"`
	// Notifications counts invalidations sent to the kernel.
	Notifications uint64 `json:"notifications"`
}

// ValueCount is a Value at one moment.
type ValueCount struct {
	Name       string `json:"name"`
	Help       string `json:"-"`
	Cumulative bool   `json:"-"`
	Value      int64  `json:"value"`
}

// Snapshot reads all counters. Requests that are served meanwhile may be in some of its figures and not yet in others.
func (c *Counters) Snapshot() Snapshot {
	s := Snapshot{
		Requests: make(map[string]RequestCount),
		BytesIn:  c.bytesIn.Load(),
		BytesOut: c.bytesOut.Load(),
		Loop: LoopCount{
			ActiveHits: c.spinHits.Load(), ActiveMisses: c.spinMisses.Load(), Sleeps: c.sleeps.Load(),
			Handovers: c.handovers.Load(), Panics: c.panics.Load(), Notifications: c.notices.Load(),
		},
		Values: c.readValues(),
	}
	for op := range c.requests {
		r := RequestCount{c.requests[op].Load(), c.failures[op].Load()}
		if r.Count > 0 {
			s.Requests[opcodeName(uint32(op))] = r
			s.Total += r.Count
			s.Errors += r.Errors
		}
	}
	return s
}

func (c *Counters) readValues() []ValueCount {
	c.mu.Lock()
	values := slices.Clone(c.values)
	c.mu.Unlock()
	counts := make([]ValueCount, 0, len(values))
	for _, v := range values {
		counts = append(counts, ValueCount{v.Name, v.Help, v.Cumulative, v.Read()})
	}
	return counts
}

// String renders the snapshot for a log: one line, the most frequent requests first, "LOOKUP=12(3 failed)".
func (s Snapshot) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "requests=%d errors=%d", s.Total, s.Errors)
	for _, name := range s.byFrequency() {
		r := s.Requests[name]
		fmt.Fprintf(&b, " %s=%d", name, r.Count)
		if r.Errors > 0 {
			fmt.Fprintf(&b, "(%d failed)", r.Errors)
		}
	}
	fmt.Fprintf(&b, " bytes_in=%d bytes_out=%d active_hits=%d active_misses=%d sleeps=%d handovers=%d panics=%d notifications=%d",
		s.BytesIn, s.BytesOut, s.Loop.ActiveHits, s.Loop.ActiveMisses, s.Loop.Sleeps, s.Loop.Handovers, s.Loop.Panics,
		s.Loop.Notifications)
	for _, v := range s.Values {
		fmt.Fprintf(&b, " %s=%d", v.Name, v.Value)
	}
	return b.String()
}

func (s Snapshot) byFrequency() []string {
	names := make([]string, 0, len(s.Requests))
	for name := range s.Requests {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if x, y := s.Requests[a].Count, s.Requests[b].Count; x != y {
			if x > y {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return names
}
