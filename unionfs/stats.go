package unionfs

import (
	"github.com/unionfs-deep/unionfs-deep/perf"
)

// Stats are what a union has done and what it holds.
type Stats struct {
	Profile  perf.Profile  `json:"profile"`  // how much is left to the kernel
	Requests perf.Snapshot `json:"requests"` // by kind, and the values that addValues adds
}

// Stats returns the counters. It may be called at any time.
func (f *FS) Stats() Stats {
	s := Stats{Profile: f.profile}
	if conn := f.conn.Load(); conn != nil {
		s.Requests = conn.Counters().Snapshot()
	}
	return s
}

// addValues makes the union's own figures part of its connection's counters.
func (f *FS) addValues(c *perf.Counters) {
	for _, v := range []perf.Value{
		{Name: "copy_ups", Help: "files and directories copied up", Cumulative: true, Read: func() int64 { return int64(f.copyUps.Load()) }},
		{Name: "copy_up_bytes", Help: "bytes of data copied up", Cumulative: true, Read: func() int64 { return int64(f.copied.Load()) }},
		{Name: "nodes", Help: "inodes that the kernel knows", Read: f.countNodes},
		{Name: "descriptors", Help: "descriptors of layers that are kept open", Read: func() int64 { return int64(f.stack.Cache.Len()) }},
		{Name: "backing_files", Help: "files registered for passthrough", Read: func() int64 { return int64(f.backings.Registered()) }},
	} {
		c.Add(v)
	}
}

func (f *FS) countNodes() int64 {
	f.tree.RLock()
	defer f.tree.RUnlock()
	return int64(len(f.nodes))
}
