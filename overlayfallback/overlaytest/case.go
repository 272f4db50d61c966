package overlaytest

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Case is a small program with observations. What it notes on the kernel is what it has to note on every route.
type Case struct {
	Name     string
	Set      Set
	ReadOnly bool // mount without an upper
	Run      func(*Run)
	NotOn    map[string]string // why the case does not apply to the routes of that name
	NotesOn  map[string]string // why on the routes of that name nothing but the observations is compared

	// What is mounted on the empty directories that are to hold the layers and, for each run, the upper; nil for nothing.
	LayersOn, UpperOn func(t testing.TB, dir string) error
	Built             func(t testing.TB, dir string) error // what happens to the directory of the layers when they have been built
	Build             func(dir string) (Layout, error)     // in place of Set.Build
}

// notOn returns why the case does not apply to the route; empty if it does.
func (c Case) notOn(r Route) string {
	if r.Name() == "stacked" && slices.Contains(c.Set.Options, "index=on") {
		return "index needs file handles, which the overlay that is the lowest layer does not have"
	}
	return c.NotOn[r.Name()]
}

// Run is one run of a case on one mount.
type Run struct {
	T       testing.TB
	Root    string
	Mounted *Mounted
	Clock   Clock

	lazy    bool // see Route.LazyOpens
	notes   []note
	skipped string
	open    map[int]bool // descriptors to close at the end
}

// note is one observation.
type note struct{ label, value string }

// Path returns the path of a name in the union.
func (r *Run) Path(name string) string { return filepath.Join(r.Root, name) }

// Note records an observation.
func (r *Run) Note(label string, values ...any) {
	r.notes = append(r.notes, note{label, fmt.Sprint(values...)})
}

// Err records the errno of a call and tells whether it succeeded.
func (r *Run) Err(label string, err error) bool {
	r.Note(label, Errno(err))
	return err == nil
}

// Skip says why this machine cannot run the case. On the oracle it means that the case judges nobody.
func (r *Run) Skip(why string) { r.skipped = why }

// closeAll closes what the case left open, which would keep the mount busy.
func (r *Run) closeAll() {
	for fd := range r.open {
		unix.Close(fd)
	}
	clear(r.open)
}

// Remount unmounts the union and mounts the same layers again.
func (r *Run) Remount() {
	r.T.Helper()
	r.closeAll()
	if err := r.Mounted.Unmount(); err != nil {
		r.T.Fatalf("remount: %v", err)
	}
	r.Mounted = Mount(r.T, r.Mounted.Route, r.Mounted.Layout)
	r.Root = r.Mounted.Root
}

// outcome is all that a run of a case leaves to compare.
type outcome struct {
	notes  []note
	stale  []Difference // see Remembered
	tree   Snapshot
	upper  Snapshot
	layout Layout
	skip   string
}

// caseTime bounds one run of a case.
const caseTime = 60 * time.Second

// runOn runs the case on the layout by the route and takes all down, leaving the upper on disk.
func (c Case) runOn(t testing.TB, r Route, l Layout, clock Clock, lazy bool) outcome {
	t.Helper()
	m, err := TryMount(t, r, l)
	if err != nil {
		return outcome{notes: []note{{"mount", err.Error()}}, skip: fmt.Sprintf("%s does not mount this: %v", r, err), layout: l}
	}
	run := &Run{T: t, Root: m.Root, Mounted: m, Clock: clock, lazy: lazy, open: map[int]bool{}}
	defer Bound(t, caseTime, m)() // t may be the test of all cases, which lasts longer
	if c.Run != nil {
		c.Run(run)
	}
	run.closeAll()
	out := outcome{notes: run.notes, skip: run.skipped, layout: l}
	if r.FUSE() {
		out.stale = Remembered(run.Root, SnapAnew)
	}
	out.tree = mustSnap(t, run.Root, clock)
	if err := run.Mounted.Unmount(); err != nil {
		t.Errorf("unmount %s: %v", r, err)
	}
	if l.Upper != "" {
		if out.upper, err = SnapUpper(l.Upper, clock); err != nil {
			t.Error(err)
		}
	}
	return out
}

// mustSnap takes a snapshot; failing to read the root is a failure of the test.
func mustSnap(t testing.TB, root string, clock Clock) Snapshot {
	t.Helper()
	tree, err := Snap(root, clock)
	if err != nil {
		t.Error(err)
	}
	return tree
}

// RunCases runs each case on the kernel and on each route, as subtests "route/case". The kernel is asked once for all routes,
// and once more for those with lazy opens, where the case runs a little differently.
func RunCases(t *testing.T, cases []Case, routes []Route) {
	type key struct {
		name string
		lazy bool
	}
	oracles := map[key]*oracle{}
	for _, c := range cases {
		if oracles[key{c.Name, true}] != nil {
			t.Fatalf("two cases are called %s", c.Name)
		}
		for _, lazy := range []bool{true, false} {
			oracles[key{c.Name, lazy}] = newOracle(t, c, lazy && !c.ReadOnly)
		}
	}
	for _, route := range routes {
		t.Run(route.Title(), func(t *testing.T) {
			for _, c := range cases {
				t.Run(c.Name, func(t *testing.T) {
					t.Parallel() // most of a case is waiting for the disk
					oracles[key{c.Name, route.LazyOpens()}].judge(t, route)
				})
			}
		})
	}
}
