package perf

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// memFS is a file system of one directory: any name "f..." is a file whose node is made at its first look-up, with
// content in memory. Nothing is cached by the kernel, so that each stat sends a LOOKUP and a GETATTR.
type memFS struct {
	fuse.RawFileSystem
	mu        sync.Mutex
	nodes     map[string]uint64
	data      map[uint64][]byte
	release   chan struct{} // ends the handlers of "slow" names
	entered   chan struct{} // gets a token for each handler of a "slow" name
	canceled  atomic.Int32
	unmounted atomic.Bool
	room      atomic.Bool  // there is room for "full"
	sleep     atomic.Int64 // what each READ waits, in nanoseconds
}

func newMemFS() *memFS {
	return &memFS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		nodes:         map[string]uint64{},
		data:          map[uint64][]byte{},
		release:       make(chan struct{}),
		entered:       make(chan struct{}, 1024),
	}
}

func (f *memFS) OnUnmount() { f.unmounted.Store(true) }

func (f *memFS) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	switch {
	case name == "panic":
		panic("as asked")
	case name == "mad":
		return fuse.Status(5000) // no error that the kernel takes
	case strings.HasPrefix(name, "slow"):
		return f.block(cancel)
	case name == "full" && !f.room.Load():
		return fuse.Status(unix.ENOSPC)
	case name[0] != 'f':
		return fuse.ENOENT
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	node, ok := f.nodes[name]
	if !ok {
		node = uint64(len(f.nodes) + 2)
		f.nodes[name] = node
	}
	out.NodeId = node
	f.attrLocked(node, &out.Attr)
	return fuse.OK
}

// block waits for release or an interrupt.
func (f *memFS) block(cancel <-chan struct{}) fuse.Status {
	f.entered <- struct{}{}
	select {
	case <-cancel:
		f.canceled.Add(1)
		return fuse.EINTR
	case <-f.release:
		return fuse.ENOENT
	}
}

func (f *memFS) attrLocked(node uint64, a *fuse.Attr) {
	a.Ino, a.Nlink, a.Mode = node, 1, unix.S_IFREG|0o644
	if node == fuse.FUSE_ROOT_ID {
		a.Mode = unix.S_IFDIR | 0o755
		return
	}
	a.Size = uint64(len(f.data[node]))
}

func (f *memFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attrLocked(in.NodeId, &out.Attr)
	return fuse.OK
}

func (f *memFS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		f.data[in.NodeId] = append(f.data[in.NodeId], make([]byte, size)...)[:size]
	}
	f.attrLocked(in.NodeId, &out.Attr)
	return fuse.OK
}

func (f *memFS) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

func (f *memFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	time.Sleep(time.Duration(f.sleep.Load()))
	f.mu.Lock()
	defer f.mu.Unlock()
	data := f.data[in.NodeId]
	n := 0
	if in.Offset < uint64(len(data)) {
		n = copy(buf, data[in.Offset:])
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (f *memFS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := int(in.Offset) + len(data)
	if have := f.data[in.NodeId]; end > len(have) {
		f.data[in.NodeId] = append(have, make([]byte, end-len(have))...)
	}
	copy(f.data[in.NodeId][in.Offset:], data)
	return uint32(len(data)), fuse.OK
}

// mounted is a memFS on a real mount.
type mounted struct {
	*memFS
	conn *Conn
	dir  string
	dev  *os.File
	end  chan error // gets what Serve returned
}

func mountMemFS(t testing.TB, cfg Config) *mounted {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = discardLog()
	}
	fs := newMemFS()
	m := prepareMount(t, fs, fs, cfg)
	m.serve(t)
	return m
}

// prepareMount mounts fs, which builds on mem, without serving it yet.
func prepareMount(t testing.TB, fs fuse.RawFileSystem, mem *memFS, cfg Config) *mounted {
	t.Helper()
	m := &mounted{memFS: mem, end: make(chan error, 1)}
	m.dir, m.dev = mountFUSE(t)
	conn, err := NewConn(m.dev, fs, &fuse.MountOptions{MaxWrite: 1 << 20}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.conn = conn
	return m
}

func (m *mounted) serve(t testing.TB) {
	t.Helper()
	end := m.end
	go func() { end <- m.conn.Serve() }()
	t.Cleanup(func() { m.unmount(t) })
	select {
	case <-m.conn.Ready():
	case <-time.After(5 * time.Second):
		t.Fatal("INIT was not answered within 5 s")
	}
	if err := m.conn.SettlePoll(m.dir); err != nil {
		t.Fatal(err)
	}
}

// mountFUSE mounts a file system of type fuse that nobody serves yet.
func mountFUSE(t testing.TB) (string, *os.File) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mount(2) of type fuse needs root")
	}
	dev, err := os.OpenFile(devicePath, os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	t.Cleanup(func() { dev.Close() })
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	opts := "fd=" + strconv.Itoa(int(dev.Fd())) + ",rootmode=40000,user_id=0,group_id=0,default_permissions"
	if err := unix.Mount("perf-test", dir, "fuse.perf-test", unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		t.Fatalf("mount fuse on %s: %v", dir, err)
	}
	return dir, dev
}

// unmount unmounts, if that has not been done, and waits for Serve to return.
func (m *mounted) unmount(t testing.TB) {
	t.Helper()
	if m.end == nil {
		return
	}
	if err := unix.Unmount(m.dir, unix.MNT_DETACH); err != nil {
		t.Errorf("unmount %s: %v", m.dir, err)
	}
	m.expectEnd(t)
}

func (m *mounted) path(name string) string { return filepath.Join(m.dir, name) }
