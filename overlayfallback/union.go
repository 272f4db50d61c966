package overlayfallback

import (
	"os"
	"time"

	"github.com/unionfs-deep/unionfs-deep/perf"
	"github.com/unionfs-deep/unionfs-deep/unionfs"
)

// newUnion makes the FUSE union of a configuration. at is the mount point, nil if it is not known. Layers change only through
// the union while it is mounted, so the kernel may keep what it was told for as long as it likes.
func newUnion(c *Config, p *Plan, at *os.File) (*unionfs.FS, error) {
	o, s := c.Options, c.stack()
	timeout := time.Duration(unionfs.Forever)
	if o.Timeout.Set {
		timeout = o.Timeout.Time
	}
	return unionfs.New(unionfs.Options{
		Lower: s.lower, Data: s.data, Upper: s.upper, Work: s.work,
		ReadOnly:      p.ReadOnly,
		UserXattr:     o.UserXattr,
		RedirectDir:   o.RedirectDir,
		Metacopy:      o.Metacopy == "on",
		Index:         o.Index == "on",
		Volatile:      o.Volatile,
		NFSExport:     o.NFSExport == "on",
		AUFSWhiteouts: p.AUFS,
		Timeout:       timeout,
		Writeback:     o.Writeback,
		Fastpath:      perf.Profile(o.Fastpath),
		MountPoint:    at,
		Log:           c.Log,
	})
}

// Stats returns the counters of a union that this process serves; they are all zero for a route of the kernel's.
func (m *Mounted) Stats() unionfs.Stats {
	if m.server == nil {
		return unionfs.Stats{}
	}
	return m.server.union.Stats()
}

// Unmounted is closed once the FUSE union that this process serves is unmounted. Its place and its device number can belong to
// another from then on, while the server still syncs what was written: see Wait. It is nil for a route of the kernel's.
func (m *Mounted) Unmounted() <-chan struct{} {
	if m.server == nil {
		return nil
	}
	return m.server.union.Unmounted()
}
