package perf

import (
	"container/list"
	"errors"
	"fmt"
	"sync"
	"syscall"
)

// DefaultBackings is a good number of files to keep registered: each costs kernel memory and, in this process, nothing.
const DefaultBackings = 512

var (
	// ErrOtherFile is the error of Backings.Open for a node that is open through another version of its file, as when a
	// file was copied up under its readers. The kernel allows an inode one backing file at a time, so the open cannot be
	// served; ESTALE makes the VFS look the name up again.
	ErrOtherFile = errors.New("the node is open through another backing file")
	// ErrBackingsFull is why a Backing is not passed through when as many files as allowed are registered and in use.
	ErrBackingsFull = errors.New("too many files are open through passthrough")
)

// Registrar makes files known to the kernel and forgets them again; a Conn is one.
type Registrar interface {
	RegisterBacking(fd int) (int32, error)
	UnregisterBacking(id int32) error
}

var _ Registrar = (*Conn)(nil)

// Backings keeps the backing files of a file system's nodes registered: one a node, shared by its opens, and kept after
// the last one is closed until others need the room. It sees to the kernel's rules: while a node is open, all its opens
// are passed through to the same registered file, or none is passed through (fs/fuse/iomode.c). All methods may be called
// from any goroutine.
type Backings struct {
	registrar Registrar
	limit     int

	mu    sync.Mutex
	nodes map[uint64]*backingFile // guarded by mu
	// idle holds the registered files that no open uses, the least recently used first; guarded by mu.
	idle       *list.List
	registered int   // guarded by mu
	refused    error // why no file at all can be registered, nil while unknown; guarded by mu
}

// backingFile is what the opens of one node share.
type backingFile struct {
	node    uint64
	version uint64
	once    sync.Once // registers the file

	id    int32 // 0: not passed through; guarded by Backings.mu
	err   error // why; guarded by Backings.mu
	known bool  // id and err are set; guarded by Backings.mu
	refs  int   // guarded by Backings.mu
	// dropped files go at the last close; guarded by Backings.mu.
	dropped bool
	place   *list.Element // in Backings.idle, nil while in use; guarded by Backings.mu
}

// Backing is one open of a node.
type Backing struct {
	// ID is for OpenOut.BackingID, with fuse.FOPEN_PASSTHROUGH. 0 means that the open is served by READ and WRITE.
	ID int32
	// Err says why ID is 0.
	Err error

	file *backingFile
	of   *Backings
}

// NewBackings returns an empty cache that keeps at most limit files registered (DefaultBackings if limit is 0 or less).
func NewBackings(r Registrar, limit int) *Backings {
	if limit <= 0 {
		limit = DefaultBackings
	}
	return &Backings{registrar: r, limit: limit, nodes: make(map[uint64]*backingFile), idle: list.New()}
}

// Open decides how an open of a node is served. version is any number that changes when the node's file becomes another
// one, by copy-up. file is called, at most once for the opens that share a registration, for a descriptor of the file; it
// is not closed here and may be closed when Open has returned. The kernel opens the file again by its path with the
// flags of each opener, so file must never name a file that the opener may not change, such as one of a lower layer for
// a writer. The only error is ErrOtherFile. Close the Backing when the kernel has released the open.
func (b *Backings) Open(node, version uint64, file func() (int, error)) (*Backing, error) {
	f, stale, err := b.enter(node, version)
	b.unregister(stale)
	if err != nil {
		return nil, err
	}
	f.once.Do(func() { b.register(f, file) })
	b.mu.Lock()
	defer b.mu.Unlock()
	return &Backing{ID: f.id, Err: f.err, file: f, of: b}, nil
}

// enter counts one more open of node. stale is the id, if not 0, of a file that the node does not use any more.
func (b *Backings) enter(node, version uint64) (f *backingFile, stale int32, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f = b.nodes[node]
	if f != nil && f.version != version {
		switch {
		case f.refs == 0:
			stale = b.removeLocked(f)
			f = nil
		case !f.known || f.id != 0:
			return nil, 0, fmt.Errorf("open node %d: %w", node, ErrOtherFile)
		}
	}
	if f == nil {
		f = &backingFile{node: node, version: version}
		b.nodes[node] = f
	}
	f.refs++
	if f.place != nil {
		b.idle.Remove(f.place)
		f.place = nil
	}
	return f, stale, nil
}

// register makes f's file known to the kernel, or finds out why not.
func (b *Backings) register(f *backingFile, file func() (int, error)) {
	evicted, err := b.reserve()
	b.unregister(evicted)
	var id int32
	if err == nil {
		var fd int
		if fd, err = file(); err == nil {
			id, err = b.registrar.RegisterBacking(fd)
		}
		if err != nil {
			b.giveUp(err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	f.id, f.err, f.known = id, err, true
}

// reserve counts one registered file more, and makes room for it: evicted is the id, if not 0, to unregister first.
func (b *Backings) reserve() (evicted int32, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refused != nil {
		return 0, b.refused
	}
	if b.registered >= b.limit {
		oldest := b.idle.Front()
		if oldest == nil {
			return 0, ErrBackingsFull
		}
		evicted = b.removeLocked(oldest.Value.(*backingFile))
	}
	b.registered++
	return evicted, nil
}

// giveUp takes back what reserve has counted. Errors that have nothing to do with the one file stand for all later ones.
func (b *Backings) giveUp(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.registered--
	for _, lasting := range []error{syscall.EPERM, syscall.ENOTTY, syscall.EOPNOTSUPP} {
		if errors.Is(err, lasting) {
			b.refused = err
		}
	}
}

// Close ends one open. It may be called once.
func (o *Backing) Close() {
	b := o.of
	b.mu.Lock()
	f := o.file
	var unused int32
	f.refs--
	switch {
	case f.refs > 0:
	case f.id == 0 || f.dropped:
		unused = b.removeLocked(f)
	default:
		f.place = b.idle.PushBack(f)
	}
	b.mu.Unlock()
	b.unregister(unused)
}

// Drop unregisters the file of a node that the kernel has forgotten, or whose file has been copied up or is about to go.
// While it is open it stays registered, since the kernel would let the node be opened through no other, until the last
// close.
func (b *Backings) Drop(node uint64) {
	b.mu.Lock()
	f := b.nodes[node]
	var unused int32
	switch {
	case f == nil:
	case f.refs == 0:
		unused = b.removeLocked(f)
	default:
		f.dropped = true
	}
	b.mu.Unlock()
	b.unregister(unused)
}

// Registered returns how many files are registered.
func (b *Backings) Registered() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.registered
}

// removeLocked takes an unused file out of the cache and returns its id for unregister.
func (b *Backings) removeLocked(f *backingFile) int32 {
	if f.place != nil {
		b.idle.Remove(f.place)
		f.place = nil
	}
	delete(b.nodes, f.node)
	if f.id != 0 {
		b.registered--
	}
	return f.id
}

// unregister gives an id back to the kernel; 0 is none. That cannot fail for an id that was registered, but for a
// connection which is over, and then the kernel has forgotten it anyway.
func (b *Backings) unregister(id int32) {
	if id != 0 {
		_ = b.registrar.UnregisterBacking(id)
	}
}
