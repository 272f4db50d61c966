package unionfs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
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
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !e.Type().IsRegular() {
			return nil
		}
		files++
		if !data {
			_, err = os.Lstat(path)
			return err
		}
		_, err = os.ReadFile(path)
		return err
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

// What the kernel forgets is let go: its nodes, and of its memory all but what file handles may need, which is bounded.
func TestMemoryFallsAfterForget(t *testing.T) {
	needFUSE(t)
	lower, count := manyLayers(t, 10, 20_000)
	m := mount(t, Options{Lower: lower, Fastpath: "cache"})
	var rests []serverState
	for range 2 {
		if n := walk(t, m.root, false); n != count {
			t.Fatalf("%d files of %d", n, count)
		}
		full := m.state()
		if full.Nodes < count {
			t.Fatalf("only %d nodes after a walk over %d files", full.Nodes, count)
		}
		if !eventually(func() bool { dropCaches(t); return m.state().Nodes < count/20 }) {
			t.Fatalf("%d nodes of %d are left after the caches were dropped", m.state().Nodes, full.Nodes)
		}
		rest := m.state()
		if rest.HeapMB >= full.HeapMB || rest.Handles > maxHandles {
			t.Errorf("from %+v memory fell to %+v", full, rest)
		}
		rests = append(rests, rest)
	}
	if rests[1].HeapMB > 1.2*rests[0].HeapMB+0.5 {
		t.Errorf("it grows: %+v", rests)
	}
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
