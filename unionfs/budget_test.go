package unionfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manyLayers makes layers that each hold one directory of their own and part of a shared one, and returns their paths and
// how many files the union has.
func manyLayers(t testing.TB, layers, files int) (lower []string, count int) {
	t.Helper()
	base := t.TempDir()
	for i := range layers {
		dir := fmt.Sprint(base, "/", i)
		lower = append(lower, dir)
		for j := range files / layers {
			write(t, fmt.Sprintf("%s/own%d/f%d", dir, i, j), "x")
			count++
		}
		write(t, fmt.Sprintf("%s/shared/f%d", dir, i), "x")
		count++
	}
	return lower, count
}

// walk reads a whole tree and returns how many regular files it holds.
func walk(t testing.TB, root string, data bool) (files int) {
	t.Helper()
	return eachFile(t, root, func(path string) error {
		if data {
			_, err := os.ReadFile(path)
			return err
		}
		_, err := os.Lstat(path)
		return err
	})
}

// eachFile visits the regular files of a tree, and counts them.
func eachFile(t testing.TB, root string, visit func(path string) error) (files int) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		files++
		return visit(path)
	})
	if err != nil {
		t.Error(err)
	}
	return files
}

// 2,000 layers are walked and read by several processes with 1,024 descriptors, and the union holds no more than half of
// these when it rests.
func TestFewDescriptors(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 2,000 layers")
	}
	needFUSE(t)
	lower, count := manyLayers(t, 2000, 10_000)
	d := makeDirs(t, "")
	m, err := tryMount(t, job{Options: Options{Lower: lower, Upper: d.upper, Work: d.work, Fastpath: "cache"}, Files: 1024})
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	for range 3 {
		done.Go(func() {
			if n := walk(t, m.root, true); n != count {
				t.Errorf("%d files of %d", n, count)
			}
		})
	}
	done.Wait()
	if s := m.state(); s.Cached > 512 || s.Descriptors > 600 {
		t.Errorf("at rest: %+v", s)
	}
	// Copying up needs descriptors as well.
	for i := range 100 {
		if err := os.Chmod(m.p("shared", fmt.Sprint("f", i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Hundreds of unlinked files that are still open each hold a descriptor of the server. It goes with the last close.
func TestUnlinkedFilesGiveDescriptorsBack(t *testing.T) {
	eachProfile(t, func(t *testing.T, o Options) {
		needFUSE(t)
		d := makeDirs(t, "")
		m := mount(t, d.options(o))
		before := m.state().Descriptors
		var open []*os.File
		for i := range 200 {
			f, err := os.Create(m.p(fmt.Sprint(i)))
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, f)
			if err := os.Remove(f.Name()); err != nil {
				t.Fatal(err)
			}
		}
		for i, f := range open {
			if _, err := fmt.Fprint(f, i); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		if !eventually(func() bool { return m.state().Descriptors <= before+8 }) {
			t.Errorf("%d descriptors before, %d after", before, m.state().Descriptors)
		}
	})
}

// Far more files than the server may open are unlinked and still open: each keeps its content, whatever the kernel has
// dropped, and a link count of 0; and nothing of it is left in the work directory once they are closed.
func TestUnlinkedFilesBeyondDescriptors(t *testing.T) {
	const files = 5000
	raiseFiles(t, files+1000)
	eachProfile(t, func(t *testing.T, o Options) {
		needFUSE(t)
		d := makeDirs(t, "")
		for i := range files {
			if kind := i % 5; kind == 2 || kind == 3 {
				write(t, fmt.Sprint(d.lower, "/file", i), fmt.Sprint("first ", i))
			}
			if i%5 == 3 {
				if err := os.Link(fmt.Sprint(d.lower, "/file", i), fmt.Sprint(d.lower, "/link", i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		o.Index = true
		m, err := tryMount(t, job{Options: d.options(o), Files: 1024})
		if err != nil {
			t.Fatal(err)
		}
		unlinkedFiles(t, m, d, files)
		m.unmount()
		d.noLeftovers(t)
	})
}

// raiseFiles lets the test itself, not its servers, open more files.
func raiseFiles(t *testing.T, files uint64) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if before.Cur >= files {
		return
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: max(files, before.Max)}); err != nil {
		t.Skipf("needs %d open files: %v", files, err)
	}
	t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
}

// unnamedFile opens a file that has no name any more, in one of five ways: it never had one, another was renamed over
// it, it is a lower file, or one with two names, which share an index, or it was made and unlinked.
func unnamedFile(m *served, i int) (f *os.File, err error) {
	text, path := fmt.Sprint("first ", i), m.p(fmt.Sprint("file", i))
	switch i % 5 {
	case 0:
		f, err = os.OpenFile(m.root, unix.O_TMPFILE|os.O_RDWR, 0o600)
	case 2, 3:
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	default:
		f, err = os.Create(path)
	}
	if err != nil {
		return nil, err
	}
	switch i % 5 {
	case 0, 1, 4:
		_, err = f.WriteString(text)
	case 3:
		err = os.Remove(m.p(fmt.Sprint("link", i)))
	}
	switch {
	case err != nil || i%5 == 0:
		return f, err
	case i%5 == 1:
		other := m.p("other")
		return f, errors.Join(os.WriteFile(other, nil, 0o600), os.Rename(other, path))
	}
	return f, os.Remove(path)
}

// unlinkedFiles has so many of them open at the same time.
func unlinkedFiles(t *testing.T, m *served, d dirs, files int) {
	t.Helper()
	var open []*os.File
	for i := range files {
		f, err := unnamedFile(m, i)
		if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		defer f.Close()
		open = append(open, f)
	}
	dropCaches(t)
	for i, f := range open {
		text := fmt.Sprint("first ", i)
		b := make([]byte, len(text))
		if _, err := f.ReadAt(b, 0); err != nil || string(b) != text {
			t.Fatalf("file %d has %q, %v, want %q", i, b, err, text)
		}
		if _, err := f.WriteAt([]byte("again"), 0); err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 0 || st.Size != int64(len(text)) {
			t.Fatalf("file %d: %d links, %d bytes, %v", i, st.Nlink, st.Size, err)
		}
	}
	if s := m.state(); s.Descriptors > 800 {
		t.Errorf("the server has %d descriptors", s.Descriptors)
	}
	for _, f := range open {
		f.Close()
	}
	parked := func() int {
		entries, err := os.ReadDir(d.work + "/work")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if !eventually(func() bool { return parked() <= 1 }) { // one is the whiteout of which others are links
		t.Errorf("%d names in the work directory once all are closed", parked())
	}
}

// What the kernel forgets is let go: its nodes, and of its memory all but what file handles may need, which is bounded.
func TestMemoryFallsAfterForget(t *testing.T) {
	needFUSE(t)
	lower, count := manyLayers(t, 10, 20_000)
	m := mount(t, Options{Lower: lower, Fastpath: "cache"})
	var rests []serverState
	for range 2 {
		n, release := hold(t, m.root)
		if n != count {
			t.Fatalf("%d files of %d", n, count)
		}
		full := m.state()
		if full.Nodes < count {
			t.Fatalf("only %d nodes after a walk over %d files", full.Nodes, count)
		}
		release()
		if !eventually(func() bool { dropCaches(t); return m.state().Nodes < count/20 }) {
			t.Fatalf("%d nodes of %d are left after the caches were dropped", m.state().Nodes, full.Nodes)
		}
		rest := m.state()
		if rest.HeapMB >= full.HeapMB || rest.Handles > maxHandles {
			t.Errorf("from %+v memory fell to %+v", full, rest)
		}
		rests = append(rests, rest)
	}
	if !eventually(func() bool { return m.state().HeapMB <= 1.2*rests[0].HeapMB+0.5 }) { // what was done ahead of the walk may still be at work
		t.Errorf("it grows: %+v, and is %+v", rests, m.state())
	}
}

// hold walks a tree and keeps the kernel from forgetting its files, as it may whatever is done elsewhere on the machine, until release.
func hold(t *testing.T, root string) (files int, release func()) {
	t.Helper()
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { unix.Close(watch) })
	t.Cleanup(release)
	files = eachFile(t, root, func(path string) error {
		_, err := unix.InotifyAddWatch(watch, path, unix.IN_DELETE_SELF)
		if err == unix.ENOSPC {
			t.Skip("fs.inotify.max_user_watches is less than there are files")
		}
		return err
	})
	return files, release
}

// The same work again and again takes no more memory, nodes or descriptors.
func TestSoak(t *testing.T) {
	needFUSE(t)
	lower, _ := manyLayers(t, 5, 500)
	d := makeDirs(t, "")
	m := mount(t, Options{Lower: lower, Upper: d.upper, Work: d.work, Fastpath: "cache"})
	rounds, warm := 60, 15
	if testing.Short() {
		rounds, warm = 20, 10
	}
	var first serverState
	end := time.Now().Add(15 * time.Second)
	for i := range rounds {
		if i > warm && time.Now().After(end) {
			break
		}
		churn(t, m)
		if i == warm {
			first = m.state()
		}
	}
	last := m.state()
	t.Logf("%+v, then %+v", first, last)
	if last.HeapMB > first.HeapMB*1.3+1 || last.Nodes > first.Nodes+100 || last.Descriptors > first.Descriptors+20 {
		t.Errorf("grew from %+v to %+v", first, last)
	}
	m.unmount()
	d.noLeftovers(t)
}

// churn makes, changes, renames, links and removes files.
func churn(t *testing.T, m *served) {
	t.Helper()
	dir := m.p("churn")
	for i := range 40 {
		name := filepath.Join(dir, "d", fmt.Sprint(i))
		write(t, name, strings.Repeat("x", i))
		if err := os.Rename(name, name+"-renamed"); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(name+"-renamed", name); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(filepath.Join(dir, "d", "7"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	walk(t, m.p("shared"), true)
}
