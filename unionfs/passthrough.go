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

// errSetID says why a file with set-id bits is not handed over: the kernel writes to it with the server's rights, and would
// leave them.
var errSetID = errors.New("a file with set-id bits is not passed through")

// errNearlyFull says why a file is not handed over to be written: a write that finds no room cannot wait for room in the kernel, as it
// does here (makeRoom).
var errNearlyFull = errors.New("a file of a file system that is nearly full is not passed through to be written")

func hasSetID(fd int) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		err = errSetID
	}
	return err
}

// opens keeps the backing of each open by its file handle.
type opens struct {
	mu     sync.Mutex
	last   uint64                // guarded by mu
	byFH   map[uint64]openedFile // guarded by mu
	passed map[uint64]bool       // nodes that were passed through last; guarded by mu

	writers map[uint64]int // how often a node is open for writing; guarded by mu
}

// openedFile is one open: of which node, and by what.
type openedFile struct {
	node    uint64
	backing *perf.Backing
}

// enter counts an open. It reports whether the file was open for writing already: then the kernel, which in the profile off drops
// a file's pages at each open, must not. A page that is dropped while it is being written may be read again from before the
// write, by whoever reads first, and stays so. The kernel drops the pages a moment after it was told: who opens the file for
// writing just then, and writes, may meet the same still.
func (o *opens) enter(node uint64, flags uint32) (keep bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	keep = o.writers[node] > 0
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		if o.writers == nil {
			o.writers = make(map[uint64]int)
		}
		o.writers[node]++
	}
	return keep
}

// written tells whether a node is open for writing.
func (o *opens) written(node uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.writers[node] > 0
}

// leave takes back enter.
func (o *opens) leave(node uint64, flags uint32) {
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writers[node] > 1 {
		o.writers[node]--
	} else {
		delete(o.writers, node)
	}
}

// add enters an open of a node. keep says that the kernel's pages of the file are good: it has not been passed through since
// the last open that was not. They are to be dropped in that case alone, since a page that is dropped while a write of another
// opener is under way is read again without that.
func (o *opens) add(node uint64, b *perf.Backing) (fh uint64, keep bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byFH == nil {
		o.byFH, o.passed = make(map[uint64]openedFile), make(map[uint64]bool)
	}
	o.last++
	o.byFH[o.last] = openedFile{node, b}
	keep = !o.passed[node]
	if b.ID != 0 {
		o.passed[node] = true
	} else {
		delete(o.passed, node)
	}
	return o.last, keep
}

// passingThrough tells whether the node is open and passed through.
func (o *opens) passingThrough(node uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.passed[node] {
		return false
	}
	for _, open := range o.byFH {
		if open.node == node && open.backing.ID != 0 {
			return true
		}
	}
	return false
}

// forget forgets a node.
func (o *opens) forget(node uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.passed, node)
	delete(o.writers, node) // of an open whose caller was killed before the answer, there is no RELEASE
}

func (o *opens) take(fh uint64) *perf.Backing {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.byFH[fh].backing
	delete(o.byFH, fh)
	return b
}

// openPassthrough decides how an open in the profile passthrough is served.
func (f *FS) openPassthrough(n *node, flags uint32, out *fuse.OpenOut) error {
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
		if flags&unix.O_ACCMODE != unix.O_RDONLY && f.upper.nearlyFull() {
			return -1, errNearlyFull
		}
		return file.FD, hasSetID(file.FD)
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
	var keep bool
	f.opens.enter(n.id, flags)
	out.Fh, keep = f.opens.add(n.id, b)
	switch {
	case b.ID != 0:
		out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH, b.ID
	case keep:
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	}
	return nil
}

func (f *FS) closePassthrough(in *fuse.ReleaseIn) {
	if b := f.opens.take(in.Fh); b != nil {
		b.Close()
	}
}
