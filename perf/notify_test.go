package perf

import (
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// cachingFS is a memFS whose names and attributes the kernel keeps.
type cachingFS struct{ *memFS }

func (f cachingFS) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	out.AttrValid, out.EntryValid = 3600, 3600
	return f.memFS.Lookup(cancel, h, name, out)
}

func (f cachingFS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.AttrValid = 3600
	return f.memFS.GetAttr(cancel, in, out)
}

func TestNotifications(t *testing.T) {
	mem := newMemFS()
	m := prepareMount(t, cachingFS{mem}, mem, Config{Log: discardLog()})
	m.serve(t)
	counted := func(kind string) uint64 { return m.conn.Counters().Snapshot().Requests[kind].Count }
	stat := func() {
		t.Helper()
		if _, err := os.Stat(m.path("f")); err != nil {
			t.Fatal(err)
		}
	}
	stat()
	for _, c := range []struct {
		what, sends string
		notify      func() error
	}{
		{"nothing", "", func() error { return nil }},
		{"InvalInode", "GETATTR", func() error { return m.conn.InvalInode(2, -1, 0) }},
		{"InvalInode of pages", "GETATTR", func() error { return m.conn.InvalInode(2, 0, 0) }},
		{"InvalEntry", "LOOKUP", func() error { return m.conn.InvalEntry(fuse.FUSE_ROOT_ID, "f") }},
		{"Delete", "LOOKUP", func() error { return m.conn.Delete(fuse.FUSE_ROOT_ID, 2, "f") }},
		{"what the kernel does not know", "", func() error { return m.conn.InvalInode(999, 0, 0) }},
		{"a name that the kernel does not know", "", func() error { return m.conn.InvalEntry(fuse.FUSE_ROOT_ID, "other") }},
	} {
		if err := c.notify(); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		lookups, attrs := counted("LOOKUP"), counted("GETATTR")
		stat()
		if got := counted("LOOKUP") > lookups; got != (c.sends == "LOOKUP") {
			t.Errorf("after %s a look-up was sent: %v", c.what, got)
		}
		if got := counted("GETATTR") > attrs; c.sends != "LOOKUP" && got != (c.sends == "GETATTR") {
			t.Errorf("after %s the attributes were asked for: %v", c.what, got)
		}
	}
	m.unmount(t)
	if err := m.conn.InvalInode(2, 0, 0); err == nil {
		t.Error("a notification after the unmount succeeded")
	}
}
