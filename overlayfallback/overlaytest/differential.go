package overlaytest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Failure is where a program first showed something else on a route than on the kernel.
type Failure struct {
	At    int // the operation's place in the program; its length for what was found after the last
	Stage string
	Diffs []Difference
}

// programTime bounds one run of a program.
const programTime = 120 * time.Second

// Differential runs a program on the kernel and on a route in lock step, compares every result, then the trees, the upper
// directories, and both uppers mounted the other way about. It returns the first failure, nil if there is none; the error
// is for a test that could not be run.
func Differential(t testing.TB, route Route, s Set, p Program) (*Failure, error) {
	d, err := newDuel(t, route, s)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(d.dir)
	f := d.fight(p)
	d.end(f != nil)
	if f != nil {
		return f, nil
	}
	return d.compareUppers(len(p))
}

// duel is the same program running on two mounts.
type duel struct {
	t       testing.TB
	dir     string
	clock   Clock
	mounts  [2]*Mounted               // the kernel's and the route's
	workers [2][threads + 1]*executor // by mount and thread
	bound   *time.Timer
}

// newDuel builds the set and mounts it twice.
func newDuel(t testing.TB, route Route, s Set) (*duel, error) {
	dir, err := makeTemp()
	if err != nil {
		return nil, err
	}
	d := &duel{t: t, dir: dir}
	if err := d.begin(route, s); err != nil {
		d.abandon()
		return nil, err
	}
	d.bound = time.AfterFunc(programTime, func() {
		t.Errorf("a program hung for %v: mounts aborted", programTime)
		d.mounts[1].Abort()
	})
	return d, nil
}

// abandon unmounts what has been mounted.
func (d *duel) abandon() {
	for _, m := range d.mounts {
		if m != nil {
			m.Abort()
		}
	}
	os.RemoveAll(d.dir)
}

// begin builds the layers, mounts both, and starts the threads.
func (d *duel) begin(route Route, s Set) error {
	built, err := s.Build(d.dir)
	if err != nil {
		return err
	}
	// The layers' change times have to lie before the clock's zero by more than the coarsest tick.
	time.Sleep(10 * time.Millisecond)
	d.clock = Clock{Since: time.Now()}
	time.Sleep(10 * time.Millisecond)
	for i, r := range []Route{Kernel, route} {
		l, err := built.WithUpper(s, filepath.Join(d.dir, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		// Each in a directory of its own, as in TryMount.
		d.mounts[i] = &Mounted{Route: r, Layout: l, Root: filepath.Join(d.dir, fmt.Sprint("m", i), "m")}
		if err := d.remount(i); err != nil {
			return err
		}
		for thread := range d.workers[i] {
			d.workers[i][thread] = newExecutor(d.mounts[i].Root, d.clock)
			d.workers[i][thread].lazy = route.LazyOpens()
			d.workers[i][thread].holes = !route.Writeback()
			if r == Kernel {
				d.workers[i][thread].upper = l.Upper
			}
		}
	}
	return nil
}

// remount mounts the i-th layout.
func (d *duel) remount(i int) error {
	m := d.mounts[i]
	if err := os.MkdirAll(m.Root, 0o755); err != nil {
		return err
	}
	m.done = false
	if err := m.start(); err != nil {
		return fmt.Errorf("mount by %s: %w", m.Route, err)
	}
	return nil
}

// lookEvery is after how many operations it is compared what the kernel remembers, which later ones may have it ask for anew.
const lookEvery = 100

// fight runs the program and compares the results and then the trees.
func (d *duel) fight(p Program) *Failure {
	looked := 0
	for at := 0; at < len(p); {
		n := 1
		if p[at].Thread != 0 {
			for at+n < len(p) && p[at+n].Thread != 0 {
				n++
			}
		}
		if f := d.step(p[at:at+n], at); f != nil {
			return f
		}
		if at += n; at-looked >= lookEvery {
			looked = at
			if f := d.compareRemembered(at, SnapAnew); f != nil {
				return f
			}
		}
	}
	for _, w := range d.workers[1] {
		w.dropAll()
	}
	if f := d.compareRemembered(len(p), snapForgotten); f != nil {
		return f
	}
	return d.compareTrees(len(p), "tree")
}

// compareRemembered compares what the kernel remembers of the route's tree with what anew says. The oracle's is read too, by which its
// directories lose the same marks.
func (d *duel) compareRemembered(at int, anew func(string) (Snapshot, error)) *Failure {
	if _, err := SnapRemembered(d.mounts[0].Root); err != nil {
		return &Failure{At: at, Stage: remembers, Diffs: []Difference{{d.mounts[0].Root, "snapshot", "ok", err.Error()}}}
	}
	return failure(d.mounts[1].Route, at, remembers, Remembered(d.mounts[1].Root, anew))
}

// snapForgotten is SnapRemembered once the kernel has forgotten all that it knew.
func snapForgotten(root string) (Snapshot, error) {
	if err := callForget(nil, Op{}, nil); err != nil {
		return nil, err
	}
	return SnapRemembered(root)
}

// step runs operations that may go beside each other, on both mounts, and compares their results.
func (d *duel) step(ops Program, at int) *Failure {
	var results [2][]Node
	for _, w := range d.workers[0] { // each looks after its own descriptors while it runs, but not after another's
		w.look()
	}
	results[0] = d.parallel(0, ops, nil)
	results[1] = d.parallel(1, ops, results[0])
	for k, op := range ops {
		call := op
		call.Thread = 0 // which does not tell calls apart
		all := compareNodes(call.String(), results[0][k], results[1][k], nil)
		diffs := Unexcused(d.mounts[1].Route, all)
		if len(diffs) > 0 {
			return &Failure{At: at + k, Stage: op.String(), Diffs: diffs}
		}
		if len(all) > 0 { // excused: what happened to the descriptor may differ from here on
			d.workers[0][op.Thread].drop(op.Slot)
			d.workers[1][op.Thread].drop(op.Slot)
		}
	}
	return nil
}

// parallel runs the operations on one mount, each thread's in order, but those that the oracle left out, whose results are
// given to the route.
func (d *duel) parallel(mount int, ops Program, oracle []Node) []Node {
	results := make([]Node, len(ops))
	var group sync.WaitGroup
	for thread, worker := range d.workers[mount] {
		group.Go(func() {
			for i, op := range ops {
				switch {
				case op.Thread != thread:
				case oracle != nil && oracle[i]["errno"] == notRun:
					results[i] = oracle[i]
				default:
					results[i] = worker.run(op)
				}
			}
		})
	}
	group.Wait()
	return results
}

// compareTrees compares both mounts as they are.
func (d *duel) compareTrees(at int, stage string) *Failure {
	var trees [2]Snapshot
	for i, m := range d.mounts {
		var err error
		if trees[i], err = Snap(m.Root, d.clock); err != nil {
			return &Failure{At: at, Stage: stage, Diffs: []Difference{{m.Root, "snapshot", "ok", err.Error()}}}
		}
	}
	return failure(d.mounts[1].Route, at, stage, Compare(trees[0], trees[1], IgnoreFields("btime")))
}

// end closes all descriptors and unmounts both.
func (d *duel) end(failed bool) {
	d.bound.Stop()
	for i, m := range d.mounts {
		for _, w := range d.workers[i] {
			w.close()
		}
		if err := m.Unmount(); err != nil && !failed {
			d.t.Errorf("unmount %s: %v", m.Route, err)
		}
	}
}

// compareUppers compares the upper directories as they lie on the disk, and then the trees when each side mounts the other's.
func (d *duel) compareUppers(at int) (*Failure, error) {
	route := d.mounts[1].Route
	var uppers [2]Snapshot
	for i, m := range d.mounts {
		var err error
		if uppers[i], err = SnapUpper(m.Layout.Upper, d.clock); err != nil {
			return nil, err
		}
	}
	if f := failure(route, at, "upper directory", Compare(uppers[0], uppers[1], Changing)); f != nil {
		return f, nil
	}
	d.mounts[0].Layout, d.mounts[1].Layout = d.mounts[1].Layout, d.mounts[0].Layout
	for i := range d.mounts {
		if err := d.remount(i); err != nil {
			return &Failure{At: at, Stage: "mounting the other's upper", Diffs: []Difference{{"mount", string(d.mounts[i].Route), "ok", err.Error()}}}, nil
		}
		defer d.mounts[i].Unmount()
	}
	return d.compareTrees(at, "tree with the uppers exchanged"), nil
}

// failure returns the differences that nothing excuses as a failure, nil if there are none.
func failure(route Route, at int, stage string, diffs []Difference) *Failure {
	if diffs = Unexcused(route, diffs); len(diffs) > 0 {
		return &Failure{At: at, Stage: stage, Diffs: diffs}
	}
	return nil
}

// JudgeProgram runs a program and fails the test with a shrunk one if it shows a difference.
func JudgeProgram(t *testing.T, route Route, s Set, p Program) {
	t.Helper()
	f, err := Differential(t, route, s, p)
	if err != nil {
		t.Fatal(err)
	}
	if f == nil {
		return
	}
	fails := func(s Set, p Program) bool {
		g, err := Differential(t, route, s, p)
		if err != nil || g == nil || g.Diffs[0].Field != f.Diffs[0].Field {
			return false
		}
		f = g
		return true
	}
	p = Shrink(p[:min(f.At+1, len(p))], func(p Program) bool { return fails(s, p) })
	s = ShrinkSet(s, func(s Set) bool { return fails(s, p) })
	t.Errorf("%s: differs from kernel overlayfs:\n%s\n%s\n%s", f.Stage, List(f.Diffs, 10), s.Script(), p)
}
