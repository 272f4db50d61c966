// Command demo shows unionfs-deep at work on a tree of this machine: it cuts the tree into many layers, mounts them by
// the route that unionfs-deep chooses and again by FUSE, and checks that each union is the tree again. It needs the
// program built, and leaves nothing behind. `make demo` runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/cmd/unionfs-deep/progress"
)

// maxKernelLayers is what the stacked route can carry, for a machine without FUSE.
const maxKernelLayers = 999

// demo is one demonstration.
type demo struct {
	ctx     context.Context
	program string // unionfs-deep
	origin  string // the tree to cut
	dir     string // everything that is made lies below
	limit   bounds
	seed    uint64
	footing footing
	layers  []string
	tree    []entry
}

func main() {
	if status, entered := enterNamespace(); entered {
		os.Exit(status)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	var d demo
	pflag.StringVar(&d.program, "program", "bin/unionfs-deep", "the unionfs-deep to show")
	pflag.StringVar(&d.origin, "tree", defaultTree(), "the tree to cut into layers")
	count := pflag.Int("layers", 1200, "number of layers")
	pflag.IntVar(&d.limit.entries, "entries", 8000, "take at most this many names of the tree")
	pflag.Int64Var(&d.limit.bytes, "bytes", 96<<20, "take at most this many bytes of the tree")
	pflag.Uint64Var(&d.seed, "seed", 1, "seed of the cut")
	pflag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	d.ctx = ctx
	if d.dir, err = os.MkdirTemp("", "unionfs-deep-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.cleanUp()) }()
	return d.show(*count)
}

// defaultTree is a tree that nearly every machine has.
func defaultTree() string {
	for _, dir := range []string{"/usr/share", "/usr/lib"} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
	}
	return "/etc"
}

func (d *demo) show(count int) error {
	d.footing = findFooting(d.dir)
	fmt.Printf("Running as %s.\n", d.footing.who)
	if !d.footing.fuse && count > maxKernelLayers {
		d.footing.leave(fmt.Sprintf("%d of %d layers: the kernel alone carries %d", count-maxKernelLayers, count, maxKernelLayers))
		count = maxKernelLayers
	}
	for _, what := range d.footing.leftOut {
		fmt.Println("Left out:", what)
	}
	if err := d.readOrigin(); err != nil {
		return err
	}
	if err := d.cut(count); err != nil {
		return err
	}
	if err := d.printPlan(); err != nil {
		return err
	}
	routes := []string{"auto"}
	if d.footing.fuse {
		routes = append(routes, "fuse")
	}
	return d.showRoutes(routes)
}

func (d *demo) readOrigin() error {
	bar := progress.New(os.Stderr, "reading "+d.origin, d.limit.entries)
	tree, skipped, err := readTree(d.origin, d.limit, func() { bar.Add(1) })
	bar.End()
	if err != nil {
		return fmt.Errorf("read %s: %w", d.origin, err)
	}
	var bytes int64
	for _, e := range tree {
		bytes += e.size
	}
	fmt.Printf("\n%s: took %d names, %d MiB", d.origin, len(tree), bytes>>20)
	if skipped > 0 {
		fmt.Printf("; left out %d that this user cannot read or that are no files", skipped)
	}
	fmt.Println(".")
	d.tree = tree
	return nil
}

func (d *demo) cut(count int) error {
	for i := range count {
		layer := filepath.Join(d.dir, "layers", fmt.Sprintf("%04d", i))
		if err := os.MkdirAll(layer, 0o755); err != nil {
			return err
		}
		d.layers = append(d.layers, layer)
	}
	c := newCutter(d.origin, d.layers, d.seed)
	c.opaque, c.devs = d.footing.opaque, d.footing.whiteout
	bar := progress.New(os.Stderr, "cutting", len(d.tree)+count)
	defer bar.End()
	for _, e := range d.tree {
		if err := errors.Join(d.ctx.Err(), c.place(e)); err != nil {
			return fmt.Errorf("cut into layers: %w", err)
		}
		bar.Add(1)
	}
	for layer := range d.layers {
		if err := errors.Join(d.ctx.Err(), c.seal(layer)); err != nil {
			return fmt.Errorf("cut into layers: %w", err)
		}
		bar.Add(1)
	}
	fmt.Printf("Cut it into %d layers: %d whiteouts, %d opaque directories, %d shadowed files, %d replaced types.\n",
		count, c.counts.whiteouts, c.counts.opaques, c.counts.shadowed, c.counts.replaced)
	return os.WriteFile(d.list(), []byte(strings.Join(d.layers, "\n")+"\n"), 0o600)
}

func (d *demo) list() string       { return filepath.Join(d.dir, "layers.txt") }
func (d *demo) mountPoint() string { return filepath.Join(d.dir, "merged") }

// timed runs what it is given and returns how long it took.
func timed(work func() error) (time.Duration, error) {
	start := time.Now()
	err := work()
	return time.Since(start), err
}
