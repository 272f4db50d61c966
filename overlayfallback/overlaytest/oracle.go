package overlaytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// oracle holds what the kernel says to a case, found when it is first needed. The lower layers are built once and serve
// every route, so that even their inodes' change times can be compared.
type oracle struct {
	c       Case
	lazy    bool // see Route.LazyOpens
	dir     string
	built   Layout
	clock   Clock
	outcome outcome
	again   Snapshot // the kernel's tree after a remount; nil if there is no upper
	ask     func() error
}

// newOracle prepares the oracle of a case for the time of the test.
func newOracle(t *testing.T, c Case, lazy bool) *oracle {
	o := &oracle{c: c, lazy: lazy}
	o.ask = sync.OnceValue(func() error {
		o.dir = TempDir(t)
		return o.answer(t)
	})
	return o
}

// answer builds the layers and runs the case on the kernel.
func (o *oracle) answer(t testing.TB) error {
	layers := filepath.Join(o.dir, "layers")
	err := prepare(t, o.c.LayersOn, layers)
	if err != nil {
		return err
	}
	build := o.c.Set.Build
	if o.c.Build != nil {
		build = o.c.Build
	}
	if o.built, err = build(layers); err != nil {
		return err
	}
	if o.c.Built != nil {
		if err := o.c.Built(t, layers); err != nil {
			return err
		}
	}
	if !o.c.ReadOnly {
		// The layers' own times have to lie before the clock's zero by more than the coarsest tick.
		time.Sleep(10 * time.Millisecond)
		o.clock = Clock{Since: time.Now()}
		time.Sleep(10 * time.Millisecond)
	}
	l, err := o.layout(t, "kernel")
	if err != nil {
		return err
	}
	o.outcome = o.c.runOn(t, Kernel, l, o.clock, o.lazy)
	if o.outcome.skip == "" && !o.c.ReadOnly {
		o.again, err = snapBy(t, Kernel, l, o.clock)
	}
	return err
}

// layout returns the case's layers with an upper of its own, or without one.
func (o *oracle) layout(t testing.TB, name string) (Layout, error) {
	if o.c.ReadOnly {
		return o.built, nil
	}
	dir := filepath.Join(o.dir, fmt.Sprintf("%s%d", name, rand.Uint32()))
	if err := prepare(t, o.c.UpperOn, dir); err != nil {
		return Layout{}, err
	}
	return o.built.WithUpper(o.c.Set, dir)
}

// Unsupported is the error of a fixture that this machine cannot provide. Its case judges nobody.
type Unsupported string

// Error says what is missing.
func (u Unsupported) Error() string { return string(u) }

// prepare makes the directory and mounts on it what the case wants there.
func prepare(t testing.TB, on func(testing.TB, string) error, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil || on == nil {
		return err
	}
	return on(t, dir)
}

// snapBy mounts the layout by the route and returns its tree.
func snapBy(t testing.TB, r Route, l Layout, clock Clock) (Snapshot, error) {
	m, err := TryMount(t, r, l)
	if err != nil {
		return nil, err
	}
	defer Bound(t, caseTime, m)()
	tree, err := Snap(m.Root, clock)
	return tree, errors.Join(err, m.Unmount())
}

// judge runs the case on a route and fails the test with every difference from the kernel.
func (o *oracle) judge(t *testing.T, route Route) {
	if why := o.c.notOn(route); why != "" {
		t.Skip(why)
	}
	err := o.ask()
	var missing Unsupported
	if errors.As(err, &missing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("the oracle failed: %v", err)
	}
	if o.outcome.skip != "" {
		t.Skipf("no judgement: %s", o.outcome.skip)
	}
	l, err := o.layout(t, "route")
	if err != nil {
		t.Fatal(err)
	}
	got := o.c.runOn(t, route, l, o.clock, o.lazy)
	if got.tree == nil {
		t.Fatalf("%s\n%s", got.skip, o.c.Set.Script())
	}
	report(t, route, "observations", compareNotes(o.outcome.notes, got.notes))
	report(t, route, remembers, got.stale)
	if why := o.c.NotesOn[route.Name()]; why != "" {
		t.Log(why)
		return
	}
	report(t, route, "tree", Compare(o.outcome.tree, got.tree, o.changing()))
	if o.c.ReadOnly {
		return
	}
	report(t, route, "upper directory", Compare(o.outcome.upper, got.upper, Changing))
	for _, other := range []struct {
		what string
		by   Route
		of   Layout
	}{{"tree when the kernel mounts the route's upper", Kernel, l}, {"tree when the route mounts the kernel's upper", route, o.outcome.layout}} {
		tree, err := snapBy(t, other.by, other.of, o.clock)
		if err != nil {
			t.Errorf("%s: %v", other.what, err)
			continue
		}
		report(t, route, other.what, Compare(o.again, tree, Changing))
	}
}

// changing leaves change times out where each mount has an upper of its own.
func (o *oracle) changing() Ignore {
	if o.c.ReadOnly {
		return nil
	}
	return Changing
}

// report fails the test with the differences that are not excused.
func report(t testing.TB, route Route, what string, diffs []Difference) {
	t.Helper()
	if diffs = Unexcused(route, diffs); len(diffs) > 0 {
		t.Errorf("%s differ from kernel overlayfs:\n%s", what, List(diffs, 20))
	}
}

// compareNotes compares two runs' observations, which have to be the same in the same order.
func compareNotes(want, got []note) []Difference {
	var diffs []Difference
	for i := range max(len(want), len(got)) {
		var w, g note
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w.label != g.label {
			return append(diffs, Difference{"observation", "order", w.label, g.label})
		}
		if w.value != g.value {
			diffs = append(diffs, Difference{w.label, "value", w.value, g.value})
		}
	}
	return diffs
}
