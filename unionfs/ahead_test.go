package unionfs

import (
	"errors"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
)

// aheadUnion is a union of two layers that both hold six directories with a file, and the directories in the order of their listing.
func aheadUnion(t *testing.T) (*FS, []*node) {
	lower := []string{t.TempDir(), t.TempDir()}
	for _, l := range lower {
		for i := range 6 {
			write(t, filepath.Join(l, "d"+strconv.Itoa(i), "f"), "content")
		}
	}
	f, err := New(Options{Lower: lower})
	if err != nil {
		t.Fatal(err)
	}
	f.backings = perf.NewBackings(nil, 0) // as Serve does
	t.Cleanup(func() { f.Close() })
	if err := f.list(f.root); err != nil {
		t.Fatal(err)
	}
	var dirs []*node
	for cookie := uint64(0); ; {
		e := f.root.dir.listing.After(cookie)
		if e == nil {
			return f, dirs
		}
		cookie = e.Cookie
		n, err := f.child(f.root, e.Name)
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, n)
	}
}

// TestMergeAhead checks that the directories which a walk lists next are merged before they are asked for, and none in any other
// order.
func TestMergeAhead(t *testing.T) {
	f, dirs := aheadUnion(t)
	merged := func(n *node) bool {
		f.tree.RLock()
		defer f.tree.RUnlock()
		return n.dir.listing != nil
	}
	f.mergeAhead(dirs[0], false)
	f.mergeAhead(dirs[2], false)
	f.tree.RLock()
	merging := f.merging
	f.tree.RUnlock()
	if merging > 0 || merged(dirs[1]) || merged(dirs[3]) {
		t.Error("a directory was merged that no walk leads to")
	}
	f.mergeAhead(dirs[3], false)
	if !eventually(func() bool { return merged(dirs[4]) && merged(dirs[5]) }) {
		t.Error("the next directories of a walk were not merged")
	}
	f.mergeAhead(dirs[5], false) // the last: nothing comes after it
}

// TestLookUpAhead checks that a walk which asks for attributes finds what directories hold looked up, as it is, and that this is let
// go of when they are listed.
func TestLookUpAhead(t *testing.T) {
	f, dirs := aheadUnion(t)
	nodes := func() int {
		f.tree.RLock()
		defer f.tree.RUnlock()
		return len(f.nodes)
	}
	before := nodes()
	f.mergeAhead(dirs[3], true)
	f.mergeAhead(dirs[4], true)
	if !eventually(func() bool { return nodes() == before+1 }) {
		t.Fatal("what the next directory of a walk holds was not looked up")
	}
	var ahead, now unix.Statx_t
	n, err := f.childStat(dirs[5], "f", &ahead)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.statReal(n, &now); err != nil || ahead != now {
		t.Errorf("attributes read ahead are %+v, those of the layer %+v, %v", ahead, now, err)
	}
	f.dropLookedUp(dirs[5])
	f.dropLookedUp(dirs[5])
	if got := nodes(); got != before+1 {
		t.Errorf("a node that is known was forgotten, or others are there: %d, want %d", got, before+1)
	}
	f.Forget(n.id, 1)
	if got := nodes(); got != before {
		t.Errorf("%d nodes are left, %d were there before", got, before)
	}
}

// A file that was looked up ahead and is then copied up and removed is gone once the kernel has forgotten it: its space is not kept
// for a walk that may never come.
func TestLookedUpAheadThenRemoved(t *testing.T) {
	d := makeDirs(t, "")
	write(t, d.lower+"/dir/f", "content")
	f, err := New(d.options(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.backings = perf.NewBackings(nil, 0)
	dir, err := f.child(f.root, "dir")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.list(dir); err != nil {
		t.Fatal(err)
	}
	f.lookUpAhead(dir)
	n, err := f.child(dir, "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.copyUpData(nil, n, wholeFile), f.remove(nil, dir.id, "f", false)); err != nil {
		t.Fatal(err)
	}
	f.Forget(n.id, 1)
	f.helper.settle()
	if _, err := f.node(n.id); err != unix.ESTALE || f.pins > 0 {
		t.Errorf("the removed file is still there: %v, %d kept open", err, f.pins)
	}
}
