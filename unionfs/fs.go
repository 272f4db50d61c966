package unionfs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// FS is a union file system, served by one FUSE connection. See the package comment for its parts and their locks.
type FS struct {
	fuse.RawFileSystem // answers ENOSYS to what is not defined here

	opts    Options
	log     *slog.Logger
	stack   *layers.Stack
	creds   credentials
	upper   *upperLayer // nil for a read-only union
	conn    atomic.Pointer[perf.Conn]
	ready   chan struct{}
	gone    chan struct{}
	profile perf.Profile
	owners  ownerCheck

	root *node

	// tree guards the inode table and all that ties nodes to names: each field of node and directory that says so. It is
	// held for work in memory alone.
	tree      sync.RWMutex
	nodes     map[uint64]*node   // by node id
	mostNodes int                // the most that nodes has held since it was made
	lastID    uint64             // node id given last
	byInode   map[inodeKey]*node // nodes with several names in their layer
	handles   handleTable        // forgotten nodes for which file handles may be around
	lookedUp  []*node            // directories of which something was looked up ahead, the oldest first
	merging   int                // how many goroutines merge directories ahead
	pins      int                // inodes that are kept open
	maxPins   int                // how many may be, where there is another way; immutable
	keeping   atomic.Int64       // inodes without a name that are kept
	freed     atomic.Int64       // when room was last given back, in nanoseconds since epoch
	copyUps   atomic.Uint64
	copied    atomic.Uint64 // bytes that copy-ups have written
	backings  *perf.Backings
	opens     opens
	helper    *helper

	uuidsOnce  sync.Once
	uuids      map[[16]byte]*layers.Layer // a lower layer on each file system, by its UUID; nil where two have it
	deviceUUID map[uint64][16]byte        // of each lower layer's file system, by its device
	// uuidShared says that two have, with which there can be no index.
	uuidShared bool
}

// inodeKey names an inode that has several names in its layer.
type inodeKey struct {
	upper bool
	ino   uint64 // of the upper layer, or as the union numbers it
}

// New opens the layers, prepares the work directory and returns a union that is ready to be served. An error names the
// layer or directory it is about; the descriptors are closed then and nothing has changed on disk.
func New(o Options) (*FS, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	ns := whiteout.Trusted
	if o.UserXattr {
		ns = whiteout.User
	}
	stack, err := layers.Open(layers.Config{
		Upper: o.Upper, Lower: o.Lower, Data: o.Data,
		Namespace:  ns,
		Redirect:   o.RedirectDir != RedirectNoFollow && !o.UserXattr,
		Metacopy:   o.Metacopy,
		AUFS:       o.AUFSWhiteouts,
		MountPoint: o.MountPoint, Descriptors: descriptorBudget(),
	})
	if err != nil {
		return nil, err
	}
	f := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		opts:          o, log: o.Log, stack: stack,
		ready:   make(chan struct{}),
		gone:    make(chan struct{}),
		nodes:   make(map[uint64]*node),
		byInode: make(map[inodeKey]*node),
		lastID:  fuse.FUSE_ROOT_ID,
		maxPins: descriptorBudget() / 2,
	}
	f.helper = newHelper(f)
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if err := f.start(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// start makes what needs the layers to be open.
func (f *FS) start() error {
	f.creds = newCredentials()
	f.owners = newOwnerCheck()
	if f.opts.Index {
		if f.uuidsOnce.Do(f.readUUIDs); f.uuidShared {
			f.log.Warn("index=on does not hold: two of the layers' file systems have the same UUID, or none")
			f.opts.Index = false
		}
	}
	if f.stack.Upper != nil {
		up, err := openUpper(f.stack, f.opts)
		if err != nil {
			return err
		}
		f.upper = up
	}
	return f.makeRoot()
}

// descriptorBudget is how many idle descriptors are kept: half of what the process may open, since requests, pinned files
// and the rest of the program need theirs.
func descriptorBudget() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 256
	}
	return int(max(16, min(lim.Cur/2, 4096)))
}

// growTable makes room in the process's descriptor table for the descriptors that are kept, and for some besides. The kernel
// would double it again and again, and each time wait some 10 ms until all processors have seen the new one (expand_files).
// That it cannot be done is no error.
func growTable(kept int) {
	const besides = 128
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if last, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, kept+besides); err == nil {
		unix.Close(last)
	}
}

// Serve answers the requests of a mounted /dev/fuse descriptor until the file system is unmounted. Before it returns, all
// that was written has been synced to the upper layer (unless volatile).
func (f *FS) Serve(dev *os.File) error {
	conn, err := perf.NewConn(dev, f, f.mountOptions(), perf.Config{
		ThreadInit: f.creds.initThread, MakeRoom: f.makeRoom, Log: f.log,
	})
	if err != nil {
		return err
	}

	f.backings = perf.NewBackings(conn, f.opts.Backings)
	f.addValues(conn.Counters())
	f.conn.Store(conn)
	go growTable(descriptorBudget())
	go func() {
		<-conn.Ready()
		close(f.ready)
	}()
	err = conn.Serve()
	close(f.gone)
	if f.upper != nil {
		if serr := f.upper.sync(); err == nil && serr != nil {
			err = fmt.Errorf("sync %s: %w", f.opts.Upper, serr)
		}
	}
	return err
}

// Ready is closed once the kernel and the union have agreed on the protocol and requests are answered.
func (f *FS) Ready() <-chan struct{} { return f.ready }

// Unmounted is closed once no request can come any more. Serve may go on for a while then: what was written is being synced.
func (f *FS) Unmounted() <-chan struct{} { return f.gone }

// SettlePoll is for a process that uses the union which it serves itself. It is to be called with the path of the mount
// before the first file there is opened by os.Open, which otherwise can hang: see perf.Conn.SettlePoll. It gives ENOTCONN
// before Serve.
func (f *FS) SettlePoll(mountPoint string) error {
	conn := f.conn.Load()
	if conn == nil {
		return unix.ENOTCONN
	}
	return conn.SettlePoll(mountPoint)
}

// Close gives back the descriptors and the work directory's lock. It is called after Serve has returned.
func (f *FS) Close() error {
	f.helper.stop()
	f.stack.Close()
	if f.upper != nil {
		f.removeParked()
		f.upper.close()
	}
	return nil
}

// String names the file system, for go-fuse.
func (f *FS) String() string { return "unionfs-deep" }

// writable returns EROFS where nothing may be written.
func (f *FS) writable() error {
	if f.upper == nil || f.opts.ReadOnly {
		return unix.EROFS
	}
	return nil
}

// mountOptions are what the connection is set up with: which requests the kernel leaves to itself.
func (f *FS) mountOptions() *fuse.MountOptions {
	f.profile = f.opts.profile()
	caching := f.profile != perf.Off
	o := &fuse.MountOptions{
		Name: "unionfs-deep", MaxWrite: 1 << 20, MaxBackground: 64,
		EnableAcl:            true,
		EnableSymlinkCaching: caching,
		// The other way is that the kernel drops a file's pages where its time of modification has changed, also by a write
		// that is under way: see opens.enter.
		ExplicitDataCacheControl: true,
		ExtraCapabilities: fuse.CAP_DONT_MASK | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_EXPORT_SUPPORT |
			fuse.CAP_SETXATTR_EXT | fuse.CAP_ASYNC_DIO | fuse.CAP_DIRECT_IO_ALLOW_MMAP,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
	}
	if f.profile == perf.Cache {
		o.ExtraCapabilities |= fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_NO_OPENDIR_SUPPORT
	} else {
		o.ExtraCapabilities |= fuse.CAP_ATOMIC_O_TRUNC
		o.DisabledCapabilities |= fuse.CAP_NO_OPEN_SUPPORT
	}
	if f.profile == perf.Passthrough {
		o.DisabledCapabilities &^= fuse.CAP_PASSTHROUGH
		o.MaxStackDepth = 1
	}
	if f.writeback() {
		o.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
	}
	return o
}

// writeback tells whether the kernel gathers writes in its cache.
func (f *FS) writeback() bool { return f.opts.Writeback && f.profile != perf.Passthrough }

// validity is how long the kernel may keep what it was told. It may be for ever: lower layers do not change, and the upper one
// changes through this union alone.
func (f *FS) validity() (sec uint64, nsec uint32) {
	if f.profile == perf.Off {
		return 0, 0
	}
	return uint64(f.opts.Timeout / time.Second), uint32(f.opts.Timeout % time.Second)
}

// attrValidity is validity of a node's attributes. In the profile passthrough a file that is open for writing may be written to by
// a mapping of the layer's own file, of which the kernel's FUSE client does not notice the new times.
func (f *FS) attrValidity(n *node) (sec uint64, nsec uint32) {
	if f.profile == perf.Passthrough && f.opens.written(n.id) {
		return 0, 0
	}
	return f.validity()
}

// status turns an error into what FUSE is told. A layer's ENOSYS is not passed on: the kernel would never ask this union for
// such an operation again.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var e unix.Errno
	switch {
	case !errors.As(err, &e):
		return fuse.EIO
	case e == unix.ENOSYS:
		return fuse.Status(unix.EOPNOTSUPP)
	}
	return fuse.Status(e)
}

// SetDebug is required by go-fuse and does nothing: the connection logs.
func (f *FS) SetDebug(bool) {}

// Init is required by go-fuse and does nothing: the connection is not go-fuse's.
func (f *FS) Init(*fuse.Server) {}

// OnUnmount is called by the connection when the last request has been answered.
func (f *FS) OnUnmount() { runtime.KeepAlive(f) }
