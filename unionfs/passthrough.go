package unionfs

import (
	"errors"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// Passthrough hands the kernel the layer's file itself. Which file that is must not change while the node is open, and the
// kernel opens it again with each opener's flags. So the files that are handed over are those of the upper layer and, where
// nothing may be written, of lower ones. A lower file of a writable union may be copied up under its readers, who must see
// what is written from then on: it is served through the page cache.

// errMayBeCopiedUp says why a lower file is not handed over.
var errMayBeCopiedUp = errors.New("a lower file of a writable union is not passed through")

// opens keeps the backing of each open by its file handle.
type opens struct {
	mu   sync.Mutex
	last uint64                   // guarded by mu
	byFH map[uint64]*perf.Backing // guarded by mu
}

func (o *opens) add(b *perf.Backing) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byFH == nil {
		o.byFH = make(map[uint64]*perf.Backing)
	}
	o.last++
	o.byFH[o.last] = b
	return o.last
}

func (o *opens) take(fh uint64) *perf.Backing {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.byFH[fh]
	delete(o.byFH, fh)
	return b
}

// openPassthrough decides how an open in the profile passthrough is served.
func (f *FS) openPassthrough(n *node, out *fuse.OpenOut) error {
	if n.kind != unix.S_IFREG {
		return nil
	}
	state := f.dataState(n)
	var file *layers.File
	b, err := f.backings.Open(n.id, state.upper, func() (int, error) {
		if state.upper == 0 && f.writable() == nil {
			return -1, errMayBeCopiedUp
		}
		var err error
		if file, err = f.data(n); err != nil {
			return -1, err
		}
		return file.FD, nil
	})
	if file != nil {
		file.Release() // the kernel has its own reference
	}
	if errors.Is(err, perf.ErrOtherFile) {
		return unix.ESTALE
	}
	if err != nil {
		return err
	}
	out.Fh = f.opens.add(b)
	if b.ID != 0 {
		out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH, b.ID
	} else if state.upper == 0 {
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE // pages of a lower file never grow old
	}
	return nil
}

func (f *FS) closePassthrough(in *fuse.ReleaseIn) {
	if b := f.opens.take(in.Fh); b != nil {
		b.Close()
	}
}
