package perf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// passFS is a memFS whose files' data lies in files of a directory, to which the kernel may go by itself.
type passFS struct {
	*memFS
	dir      string
	backings *Backings
	mu       sync.Mutex
	opens    map[uint64]*Backing // by file handle; guarded by mu
	version  uint64
}

func (f *passFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	var file *os.File
	b, err := f.backings.Open(in.NodeId, f.version, func() (fd int, err error) {
		file, err = os.OpenFile(filepath.Join(f.dir, fmt.Sprint(f.version)), os.O_RDWR, 0)
		if err != nil {
			return -1, err
		}
		return int(file.Fd()), nil
	})
	if file != nil {
		defer file.Close()
	}
	if errors.Is(err, ErrOtherFile) {
		return fuse.Status(syscall.ESTALE)
	}
	out.Fh = uint64(len(f.opens) + 1)
	f.opens[out.Fh] = b
	if b.ID != 0 {
		out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH, b.ID
	}
	return fuse.OK
}

func (f *passFS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opens[in.Fh].Close()
}

func mountPassFS(t *testing.T, limit int) (*mounted, *passFS) {
	t.Helper()
	f := &passFS{memFS: newMemFS(), dir: t.TempDir(), opens: map[uint64]*Backing{}}
	for version, content := range []string{"lower", "upper"} {
		if err := os.WriteFile(filepath.Join(f.dir, fmt.Sprint(version)), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := prepareMount(t, f, f.memFS, Config{Log: discardLog()})
	f.backings = NewBackings(m.conn, limit)
	m.serve(t)
	if m.conn.Negotiated()&fuse.CAP_PASSTHROUGH == 0 {
		t.Skip("this kernel has no FUSE passthrough")
	}
	f.memFS.mu.Lock()
	defer f.memFS.mu.Unlock()
	for i := range 10 {
		f.memFS.nodes[fmt.Sprintf("f%d", i)] = uint64(i + 2)
		f.memFS.data[uint64(i+2)] = make([]byte, len("lower")) // for the size
	}
	return m, f
}

func TestPassthrough(t *testing.T) {
	m, f := mountPassFS(t, 0)
	for range 3 {
		got, err := os.ReadFile(m.path("f0"))
		if err != nil || string(got) != "lower" {
			t.Errorf("read through: %q, %v", got, err)
		}
	}
	s := m.conn.Counters().Snapshot()
	if n := s.Requests["READ"].Count; n != 0 {
		t.Errorf("%d READ requests reached the daemon, want none", n)
	}
	if n := f.backings.Registered(); n != 1 {
		t.Errorf("%d files are registered for one node opened three times", n)
	}
}

// TestBackingChangesUnderReaders is a copy-up while the file is open.
func TestBackingChangesUnderReaders(t *testing.T) {
	m, f := mountPassFS(t, 0)
	reader, err := os.Open(m.path("f0"))
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.version = 1
	f.mu.Unlock()
	f.backings.Drop(2)
	if _, err := os.Open(m.path("f0")); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("open through another file: %v, want ESTALE", err)
	}
	buf := make([]byte, 5)
	if _, err := reader.Read(buf); err != nil || string(buf) != "lower" {
		t.Errorf("the reader of before got %q, %v", buf, err)
	}
	reader.Close()
	eventually(t, "registered files", func() (int, bool) { n := f.backings.Registered(); return n, n == 0 })
	if got, err := os.ReadFile(m.path("f0")); err != nil || string(got) != "upper" {
		t.Errorf("read after the last close: %q, %v", got, err)
	}
}

func TestBackingsLimit(t *testing.T) {
	m, f := mountPassFS(t, 2)
	for i := range 10 {
		if got, err := os.ReadFile(m.path(fmt.Sprintf("f%d", i))); err != nil || string(got) != "lower" {
			t.Fatalf("file %d: %q, %v", i, got, err)
		}
		if n := f.backings.Registered(); n > 2 {
			t.Errorf("%d files are registered, want at most 2", n)
		}
	}
	var open []*os.File
	for i := range 3 { // all in use: the third is served by the daemon
		file, err := os.Open(m.path(fmt.Sprintf("f%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, file)
	}
	before := m.conn.Counters().Snapshot().Requests["READ"].Count
	buf := make([]byte, 5)
	if _, err := open[2].Read(buf); err != nil || string(buf) == "lower" {
		t.Errorf("the file beyond the limit was passed through: %q, %v", buf, err)
	}
	if after := m.conn.Counters().Snapshot().Requests["READ"].Count; after == before {
		t.Error("the file beyond the limit was read without the daemon")
	}
	for _, file := range open {
		file.Close()
	}
}

// refusing is a kernel that registers nothing.
type refusing struct {
	err   error
	asked int
}

func (r *refusing) RegisterBacking(int) (int32, error)       { r.asked++; return 0, r.err }
func (r *refusing) UnregisterBacking(int32) error            { return nil }
func fileZero() (int, error)                                 { return 0, nil }
func openBacking(b *Backings, node uint64) (*Backing, error) { return b.Open(node, 0, fileZero) }

func TestBackingsRefused(t *testing.T) {
	for _, c := range []struct {
		err   error
		asked int // for three files
	}{{syscall.EPERM, 1}, {syscall.ENOTTY, 1}, {syscall.ELOOP, 3}} {
		r := &refusing{err: c.err}
		b := NewBackings(r, 4)
		for node := range uint64(3) {
			o, err := openBacking(b, node)
			if err != nil || o.ID != 0 || !errors.Is(o.Err, c.err) {
				t.Errorf("%v: open gave %+v, %v", c.err, o, err)
			}
			o.Close()
		}
		if r.asked != c.asked || b.Registered() != 0 || len(b.nodes) != 0 {
			t.Errorf("%v: asked %d times, want %d; %d registered, %d nodes left", c.err, r.asked, c.asked, b.Registered(), len(b.nodes))
		}
	}
}

func TestRegisterBackingErrors(t *testing.T) {
	m, _ := mountPassFS(t, 0)
	if _, err := m.conn.RegisterBacking(-1); !errors.Is(err, syscall.EBADF) {
		t.Errorf("register no descriptor: %v, want EBADF", err)
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := m.conn.RegisterBacking(int(dir.Fd())); err == nil {
		t.Error("a directory was registered")
	}
	if err := m.conn.UnregisterBacking(12345); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("unregister an unknown id: %v, want ENOENT", err)
	}
}
