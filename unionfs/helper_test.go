package unionfs

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
)

// Copies that are built in files made before are like others, whatever modes and owners there are, and when the copy-ups are over no file
// waits for the next one.
func TestManyCopyUps(t *testing.T) {
	needFUSE(t)
	const files = 600
	d := makeDirs(t, "")
	for i := range files {
		path := fmt.Sprint(d.lower, "/f", i)
		write(t, path, fmt.Sprint("content ", i))
		if err := os.Chmod(path, 0o400|os.FileMode(i%512)); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			os.Chown(path, i%3, i%2)
		}
	}
	m := mount(t, d.options(Options{Volatile: true, Fastpath: perf.Cache}))
	before := m.descriptors()
	for i := range files {
		if err := os.Chtimes(m.p(fmt.Sprint("f", i)), time.Time{}, time.Unix(int64(i), 0)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range files {
		name := fmt.Sprint("/f", i)
		var lower, upper unix.Stat_t
		if unix.Stat(d.lower+name, &lower) != nil || unix.Stat(d.upper+name, &upper) != nil {
			t.Fatalf("%s was not copied up", name)
		}
		if lower.Mode != upper.Mode || lower.Uid != upper.Uid || lower.Gid != upper.Gid || upper.Mtim.Sec != int64(i) {
			t.Errorf("%s: mode %o, owner %d:%d of a file with %o, %d:%d", name, upper.Mode, upper.Uid, upper.Gid, lower.Mode, lower.Uid, lower.Gid)
		}
		if got := read(t, d.upper+name); got != fmt.Sprint("content ", i) {
			t.Errorf("%s holds %q", name, got)
		}
	}
	m.expectDescriptors(t, before+8) // directories that the copy-ups have opened
	m.unmount()
	d.noLeftovers(t)
}

// What is removed is closed, and what is open then goes on, in whichever order it is closed.
func TestManyRemovals(t *testing.T) {
	needFUSE(t)
	for _, profile := range []perf.Profile{perf.Cache, perf.Off} {
		d := makeDirs(t, "")
		m := mount(t, d.options(Options{Fastpath: profile}))
		before := m.descriptors()
		var open []*os.File
		for i := range 1000 {
			path := m.p(fmt.Sprint("f", i))
			write(t, path, fmt.Sprint("content ", i))
			if i%100 == 0 {
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, f)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		m.expectDescriptors(t, before+len(open)+8)
		for i, f := range open {
			var b [32]byte
			n, err := f.Read(b[:])
			if want := fmt.Sprint("content ", i*100); string(b[:n]) != want {
				t.Errorf("an open file holds %q, %v, want %q", b[:n], err, want)
			}
			f.Close()
		}
		m.expectDescriptors(t, before+8)
		m.unmount()
		d.noLeftovers(t)
	}
}

// descriptors is how many descriptors the server has. It is counted from outside, since state settles the helper.
func (m *served) descriptors() int {
	m.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid))
	if err != nil {
		m.t.Fatal(err)
	}
	return len(fds)
}

// expectDescriptors waits until the server has no more than that.
func (m *served) expectDescriptors(t *testing.T, most int) {
	t.Helper()
	if !eventually(func() bool { return m.descriptors() <= most }) {
		t.Errorf("the server has %d descriptors, want at most %d", m.descriptors(), most)
	}
}
