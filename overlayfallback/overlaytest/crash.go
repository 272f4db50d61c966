package overlaytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Crash kills the server of a FUSE route at random moments while workers change the union. Each worker does the same to a
// plain directory, its shadow, once the union has answered. So after a kill the worker's part of the union has to be as its
// shadow is, or as the shadow becomes by the one operation that was not answered.
type Crash struct {
	Route   Route
	Options []string
	Seed    uint64

	t       testing.TB
	rand    *rand.Rand
	dir     string
	layout  Layout
	workers []*crashWorker
}

// crashWorker changes one directory of the union.
type crashWorker struct {
	name    string
	shadow  string
	drawer  *drawer
	pending *Op   // the operation that the kill left unanswered
	done    int   // operations answered so far
	err     error // an answer that the shadow does not give
}

// crashWorkers is the number of workers; each has its own directory.
const crashWorkers = 3

// Run kills the server the given number of times and fails the test with the first damage.
func (c *Crash) Run(t testing.TB, kills int) {
	c.t = t
	if err := c.build(); err != nil {
		t.Fatal(err)
	}
	for i := range kills {
		if err := c.round(i); err != nil {
			t.Fatalf("kill %d of seed %d: %v", i, c.Seed, err)
		}
	}
	total := 0
	for _, w := range c.workers {
		total += w.done
	}
	t.Logf("%d kills, %d operations answered", kills, total)
}

// build makes the layers and each worker's shadow, which holds what the layers do.
func (c *Crash) build() error {
	c.rand = rand.New(rand.NewPCG(c.Seed, 0xdead))
	c.dir = TempDir(c.t)
	s := Set{Options: c.Options}
	var all Layer
	for i := range crashWorkers {
		w := &crashWorker{name: fmt.Sprint("w", i), shadow: filepath.Join(c.dir, fmt.Sprint("shadow", i))}
		c.workers = append(c.workers, w)
		own := crashLayer()
		if err := own.build(filepath.Join(w.shadow, w.name)); err != nil {
			return err
		}
		w.start(c.Seed+uint64(i), own)
		for _, e := range own {
			e.Path = w.name + "/" + e.Path
			all = append(all, e)
		}
	}
	s.Lower = []Layer{all, {}}
	l, err := s.Build(c.dir)
	if err != nil {
		return err
	}
	c.layout, err = l.WithUpper(s, c.dir)
	return err
}

// crashLayer is what each worker finds: files large enough that a copy-up takes a while, and directories.
func crashLayer() Layer {
	var l Layer
	for i := range 12 {
		dir := []string{"", "d1/", "d1/e/", "d2/"}[i%4]
		l = append(l, Entry{Path: fmt.Sprintf("%sf%d", dir, i), Kind: File, Seed: fmt.Sprint("file ", i), Size: []int{100, 70_000, 1 << 20}[i%3]})
	}
	return append(l, Entry{Path: "empty", Kind: Dir}, Entry{Path: "link", Kind: Symlink, Target: "f0"})
}

// crashWeights are the calls that change one thing at once, so that there is no state in between.
var crashWeights = []weighted{
	{8, "store", drawStore}, {3, "truncate", drawTruncate}, {3, "chmod", drawChmod}, {3, "setxattr", drawUserXattr}, {2, "mkdir", drawMkdir},
	{3, "mknod", drawRegular}, {1, "symlink", drawSymlink}, {2, "link", drawTwo}, {4, "unlink", drawFile}, {2, "rmdir", drawDir}, {6, "rename", drawRename},
}

// drawStore draws a write into one page: a longer one may be done in part.
func drawStore(d *drawer) {
	drawFile(d)
	d.op.Off = pick[int64](d.generator, 0, 4096, 49_152, 1<<20)
	d.op.Len = pick[int64](d.generator, 1, 100, 4096)
	d.op.Data = pick(d.generator, "stored ", "S", "again ")
}

func drawUserXattr(d *drawer) {
	drawPath(d)
	d.op.Name, d.op.Data = "user.x", pick(d.generator, "1", "two")
}

func drawRegular(d *drawer) {
	d.op.Path = d.newFile()
	d.op.Mode = unix.S_IFREG | 0o644
}

// start gives the worker its stream of operations.
func (w *crashWorker) start(seed uint64, own Layer) {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0xc4a5)), prefix: TrustedOverlay}
	files, dirs := Set{Lower: []Layer{own}}.paths()
	w.drawer = &drawer{generator: g, files: map[int][]string{0: files}, dirs: map[int][]string{0: append(dirs, ".", "d1", "d1/e", "d2")}, open: map[int][]int{}}
}

// next draws the worker's next operation, in its own directory.
func (w *crashWorker) next() Op {
	op := w.drawer.drawFrom(crashWeights, 0)
	op.User, op.Umask = false, 0
	if op.Call == "rename" && op.Flags&unix.RENAME_WHITEOUT != 0 {
		op.Flags = 0
	}
	op.Path = filepath.Join(w.name, op.Path)
	if calls[op.Call].path2 {
		op.Path2 = filepath.Join(w.name, op.Path2)
	}
	return op
}

// round mounts, loads, kills and checks.
func (c *Crash) round(i int) error {
	m, err := TryMount(c.t, c.Route, c.layout)
	if err != nil {
		return fmt.Errorf("mount after the last kill: %w", err)
	}
	stop := make(chan struct{})
	var group sync.WaitGroup
	for _, w := range c.workers {
		group.Go(func() { w.run(m.Root, stop) })
	}
	time.Sleep(time.Duration(1+c.rand.IntN(80)) * time.Millisecond)
	m.Kill()
	close(stop)
	group.Wait()
	m.Clear()
	for _, w := range c.workers {
		err = errors.Join(err, w.err)
	}
	if err != nil {
		return err
	}
	return c.check(i)
}

// run changes the union at root until the server dies; stop is for the kernel, which does not.
func (w *crashWorker) run(root string, stop chan struct{}) {
	union, shadow := newExecutor(root, Clock{}), newExecutor(w.shadow, Clock{})
	defer union.close()
	defer shadow.close()
	for {
		select {
		case <-stop:
			return
		default:
		}
		op := w.next()
		if w.pending != nil {
			op = *w.pending // it is known by now that this one was not done
		}
		got := union.run(op)["errno"]
		if slices.Contains([]string{"ENOTCONN", "ECONNABORTED", "EIO"}, got) {
			w.pending = &op
			return
		}
		w.pending = nil
		if want := shadow.run(op)["errno"]; want != got {
			w.err = fmt.Errorf("%s: %s, and %s in a plain directory", op, got, want)
			return
		}
		w.done++
	}
}

// check mounts what the kill left, by the kernel and by the route, first the one and then the other, and compares the trees.
func (c *Crash) check(i int) error {
	order := []Route{Kernel, c.Route}
	if i%2 == 1 {
		slices.Reverse(order)
	}
	var trees [2]Snapshot
	for k, r := range order {
		m, err := TryMount(c.t, r, c.layout)
		if err != nil {
			return fmt.Errorf("mount what is left: %w", err)
		}
		if trees[k], err = Snap(m.Root, Clock{}); err != nil {
			return err
		}
		if err := errors.Join(m.Unmount(), c.leftovers(r)); err != nil {
			return err
		}
	}
	if diffs := Compare(trees[0], trees[1], Changing); len(diffs) > 0 {
		return fmt.Errorf("%s and %s disagree about what is left:\n%s", order[0], order[1], List(diffs, 10))
	}
	for _, w := range c.workers {
		if err := w.settle(trees[0]); err != nil {
			return err
		}
	}
	return nil
}

// leftovers tells what a mount has left in the work directory.
func (c *Crash) leftovers(r Route) error {
	entries, err := os.ReadDir(filepath.Join(c.layout.Work, "work"))
	if err != nil || len(entries) == 0 {
		return nil
	}
	return fmt.Errorf("%s left %d entries in the work directory, such as %s", r, len(entries), entries[0].Name())
}

// settle finds out whether the pending operation was done, and brings the shadow there. Neither is damage.
func (w *crashWorker) settle(tree Snapshot) error {
	before := w.compare(tree)
	if len(before) == 0 {
		return nil
	}
	if w.pending == nil {
		return fmt.Errorf("%s is damaged though nothing was under way:\n%s", w.name, List(before, 10))
	}
	shadow := newExecutor(w.shadow, Clock{})
	defer shadow.close()
	shadow.run(*w.pending)
	after := w.compare(tree)
	if len(after) == 0 {
		w.pending = nil
		return nil
	}
	return fmt.Errorf("%s is neither as before %s:\n%snor as after it:\n%s", w.name, w.pending, List(before, 10), List(after, 10))
}

// compare compares the worker's part of the union with its shadow.
func (w *crashWorker) compare(tree Snapshot) []Difference {
	shadow, err := Snap(w.shadow, Clock{})
	if err != nil {
		return []Difference{{w.shadow, "snapshot", "ok", err.Error()}}
	}
	delete(shadow, ".")
	own := Snapshot{}
	for p, n := range tree {
		if p == w.name || len(p) > len(w.name) && p[:len(w.name)+1] == w.name+"/" {
			own[p] = n
		}
	}
	return Compare(shadow, own, func(p, field string) bool {
		kept := []string{"type", "mode", "uid", "gid", "data", "target", "xattr user.x", "name"}
		return !slices.Contains(kept, field)
	})
}
