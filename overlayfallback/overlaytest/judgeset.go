package overlaytest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// JudgeSet compares the whole tree of a set between the kernel and a route: first without an upper, then with one. What
// fails is shrunk and printed as a script. A set that the kernel refuses to mount judges nobody.
func JudgeSet(t *testing.T, route Route, s Set) {
	for _, readOnly := range []bool{true, false} {
		diffs, err := compareSet(t, route, s, readOnly)
		if err != nil {
			t.Fatal(err)
		}
		if len(diffs) == 0 {
			continue
		}
		small := ShrinkSet(s, func(s Set) bool {
			d, err := compareSet(t, route, s, readOnly)
			return err == nil && slices.ContainsFunc(d, func(d Difference) bool { return d.Field == diffs[0].Field })
		})
		if d, err := compareSet(t, route, small, readOnly); err == nil && len(d) > 0 {
			diffs = d
		}
		t.Errorf("read-only %v: differs from kernel overlayfs:\n%s\n%s", readOnly, List(diffs, 20), small.Script())
	}
}

// compareSet builds the set and lists the differences between the kernel's tree and the route's, cold and once more warm.
func compareSet(t testing.TB, route Route, s Set, readOnly bool) ([]Difference, error) {
	dir, err := makeTemp()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	l, err := s.Build(dir)
	if err != nil {
		return nil, err
	}
	kernel, judged := l, l
	if !readOnly {
		if kernel, err = l.WithUpper(s, filepath.Join(dir, "k")); err != nil {
			return nil, err
		}
		if judged, err = l.WithUpper(s, filepath.Join(dir, "r")); err != nil {
			return nil, err
		}
	}
	want, err := trees(t, Kernel, kernel)
	if err != nil {
		return nil, nil
	}
	got, err := trees(t, route, judged)
	if err != nil {
		return []Difference{{"mount", string(route), "ok", err.Error()}}, nil
	}
	return compareTrees(route, want, got, readOnly), nil
}

// compareTrees compares what trees returned. Without an upper even the change times have to be equal.
func compareTrees(route Route, want, got []Snapshot, readOnly bool) []Difference {
	ignore := Changing
	if readOnly {
		ignore = nil
	}
	var diffs []Difference
	for i := range want {
		diffs = append(diffs, Unexcused(route, Compare(want[i], got[i], ignore))...)
	}
	return diffs
}

// trees mounts the layout and takes its tree twice: what is served from a cache has to be the same.
func trees(t testing.TB, route Route, l Layout) ([]Snapshot, error) {
	m := &Mounted{Route: route, Layout: l, Root: l.Lower[0] + ".m"}
	if err := os.Mkdir(m.Root, 0o755); err != nil && !os.IsExist(err) {
		return nil, err
	}
	if err := m.start(); err != nil {
		return nil, err
	}
	defer func() {
		if err := m.Unmount(); err != nil {
			t.Errorf("unmount %s: %v", route, err)
		}
	}()
	first, err := Snap(m.Root, Clock{})
	if err != nil {
		return nil, err
	}
	second, err := Snap(m.Root, Clock{})
	return []Snapshot{first, second}, err
}
