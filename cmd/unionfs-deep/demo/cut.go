package main

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// cutter spreads a tree over layers so that their union is that tree again, and hides rubbish below it: with every means
// by which a layer hides what lies below, so that a union that gets one of them wrong differs from the original.
//
// Each directory has a floor, the deepest layer that may hold anything of it that must be seen. Below the floor lies only
// rubbish, hidden by an opaque directory or by a file of the directory's name. Layer 0 is the topmost.
type cutter struct {
	origin string   // the original's root
	layers []string // the layers' roots, the topmost first
	opaque string   // the xattr that makes a directory opaque; empty: this user cannot set it
	devs   bool     // whether this user can make whiteouts
	random *rand.Rand
	modes  map[string]fs.FileMode // of the original's directories
	floors map[string]int
	counts counts
	rubble int // numbers the rubbish
}

// counts says how often each way of hiding was used.
type counts struct{ whiteouts, opaques, shadowed, replaced int }

func newCutter(origin string, layers []string, seed uint64) *cutter {
	return &cutter{
		origin: origin, layers: layers, random: rand.New(rand.NewPCG(seed, 0)),
		modes: map[string]fs.FileMode{}, floors: map[string]int{},
	}
}

// place puts one entry, whose parent has been placed, into the layers.
func (c *cutter) place(e entry) error {
	if e.mode.IsDir() {
		return c.placeDir(e)
	}
	parent := filepath.Dir(e.path)
	layer := c.random.IntN(c.floors[parent] + 1)
	if err := c.makeDir(layer, parent); err != nil {
		return err
	}
	if err := c.copyEntry(layer, e); err != nil {
		return err
	}
	below, ok := c.below(layer, c.floors[parent])
	if !ok {
		return nil
	}
	switch c.random.IntN(6) {
	case 0:
		c.counts.shadowed++
		return c.rubbishFile(below, e.path)
	case 1:
		c.counts.replaced++
		return c.rubbishDir(below, e.path)
	case 2:
		return c.whiteout(layer, below, parent)
	}
	return nil
}

// placeDir gives a directory its floor, hides rubbish below it, and makes sure that it exists somewhere.
func (c *cutter) placeDir(e entry) error {
	c.modes[e.path] = e.mode
	if e.path == "." {
		c.floors["."] = len(c.layers) - 1
		return c.makeDir(0, ".")
	}
	outer := c.floors[filepath.Dir(e.path)]
	c.floors[e.path] = outer
	// A floor cuts the layers that are left to a subtree, so a shallow subtree gets none.
	if outer > len(c.layers)/4 {
		floor := outer/2 + c.random.IntN(outer/2)
		switch c.random.IntN(8) {
		case 0:
			return c.opaqueDir(e.path, floor)
		case 1:
			return c.fileBelowDir(e.path, floor)
		}
	}
	return c.makeDir(c.random.IntN(outer+1), e.path)
}

func (c *cutter) opaqueDir(path string, floor int) error {
	if c.opaque == "" {
		return c.makeDir(floor, path)
	}
	below, _ := c.below(floor, c.floors[path])
	if err := c.rubbishDir(below, path); err != nil {
		return err
	}
	if err := c.makeDir(floor, path); err != nil {
		return err
	}
	c.floors[path] = floor
	c.counts.opaques++
	return wrap("make opaque", c.at(floor, path), unix.Lsetxattr(c.at(floor, path), c.opaque, []byte("y"), 0))
}

func (c *cutter) fileBelowDir(path string, floor int) error {
	if err := c.makeDir(floor, path); err != nil {
		return err
	}
	if err := c.rubbishFile(floor+1, path); err != nil {
		return err
	}
	c.floors[path] = floor
	c.counts.replaced++
	return nil
}

// whiteout puts a name that the original does not have into a lower layer, and its whiteout into an upper one.
func (c *cutter) whiteout(upper, lower int, parent string) error {
	if !c.devs {
		return nil
	}
	c.rubble++
	path := filepath.Join(parent, "removed."+strconv.Itoa(c.rubble))
	if err := c.rubbishFile(lower, path); err != nil {
		return err
	}
	c.counts.whiteouts++
	return wrap("make a whiteout", c.at(upper, path), unix.Mknod(c.at(upper, path), unix.S_IFCHR, 0))
}

// below picks a layer under the given one, down to a floor.
func (c *cutter) below(layer, floor int) (int, bool) {
	if layer >= floor {
		return 0, false
	}
	return layer + 1 + c.random.IntN(floor-layer), true
}

func (c *cutter) at(layer int, path string) string { return filepath.Join(c.layers[layer], path) }

// makeDir makes a directory and its parents in a layer, open to us until seal gives each the original's mode.
func (c *cutter) makeDir(layer int, path string) error { return os.MkdirAll(c.at(layer, path), 0o755) }

func (c *cutter) rubbishFile(layer int, path string) error {
	if err := c.makeDir(layer, filepath.Dir(path)); err != nil {
		return err
	}
	return os.WriteFile(c.at(layer, path), fmt.Appendf(nil, "must not be seen: %s\n", path), 0o600)
}

func (c *cutter) rubbishDir(layer int, path string) error {
	return c.rubbishFile(layer, filepath.Join(path, "hidden"))
}

func (c *cutter) copyEntry(layer int, e entry) error {
	to := c.at(layer, e.path)
	if e.mode.Type() == fs.ModeSymlink {
		return os.Symlink(e.target, to)
	}
	from, err := os.Open(filepath.Join(c.origin, e.path))
	if err != nil {
		return err
	}
	defer from.Close()
	file, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, from); err != nil {
		file.Close()
		return err
	}
	if err := file.Chmod(e.mode); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

// seal gives the directories of a layer the original's modes, children before parents so that a parent without write
// permission stops nothing.
func (c *cutter) seal(layer int) error {
	var dirs []string
	err := filepath.WalkDir(c.layers[layer], func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		rel, _ := filepath.Rel(c.layers[layer], dirs[i])
		if mode, ok := c.modes[rel]; ok {
			err = os.Chmod(dirs[i], mode)
		}
	}
	return err
}

func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %s: %w", op, path, err)
}
