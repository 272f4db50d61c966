package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// leastGarbage is how much garbage may always gather before it is collected, in bytes. Each request leaves about a
	// kilobyte, and a collection costs the same however little there is to keep.
	leastGarbage = 12 << 20
	// leastPercent bounds how often a large heap is collected.
	leastPercent = 30
	mostPercent  = 1000
)

// paceCollections sets after each garbage collection when the next one comes: a small union is not collected all the time,
// and a large one does not take twice the memory that it needs.
func paceCollections() {
	type sentinel struct{ _ [16]byte }
	var again func(*sentinel)
	again = func(s *sentinel) {
		debug.SetGCPercent(percentFor(liveHeap()))
		runtime.SetFinalizer(s, again)
	}
	again(new(sentinel))
}

func percentFor(live uint64) int {
	return int(min(mostPercent, max(leastPercent, 100*leastGarbage/max(live, 1))))
}

// liveHeap is what the last collection kept, in bytes.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
