package unionfs

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestMergeAhead checks that the directory which a walk lists next is merged before it is asked for, and none in any other
// order.
func TestMergeAhead(t *testing.T) {
	lower := []string{t.TempDir(), t.TempDir()}
	for _, l := range lower {
		for i := range 6 {
			if err := os.Mkdir(filepath.Join(l, "d"+strconv.Itoa(i)), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	f, err := New(Options{Lower: lower})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.list(f.root); err != nil {
		t.Fatal(err)
	}
	var dirs []*node // in the order of the listing
	for cookie := uint64(0); ; {
		e := f.root.dir.listing.After(cookie)
		if e == nil {
			break
		}
		cookie = e.Cookie
		n, err := f.child(f.root, e.Name)
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, n)
	}
	merged := func(n *node) bool {
		f.tree.RLock()
		defer f.tree.RUnlock()
		return n.dir.listing != nil
	}
	f.mergeAhead(dirs[0])
	f.mergeAhead(dirs[3])
	if f.merging.Load() || merged(dirs[1]) || merged(dirs[4]) {
		t.Error("a directory was merged that no walk leads to")
	}
	f.mergeAhead(dirs[4])
	if !eventually(func() bool { return merged(dirs[5]) }) {
		t.Error("the next directory of a walk was not merged")
	}
	f.mergeAhead(dirs[5]) // the last: nothing comes after it
}
