package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sampleTree makes a small tree with every type that is cut.
func sampleTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for i := range 200 {
		dir := filepath.Join(root, fmt.Sprintf("a%d/b%d/c%d", i%5, i%7, i%3))
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, fmt.Sprint("file", i))
		if err := os.WriteFile(name, []byte(name), os.FileMode(0o400+i%0o100)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(fmt.Sprint("file", i), name+".link"); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func mustRead(t *testing.T, root string) []entry {
	t.Helper()
	tree, skipped, err := readTree(root, bounds{entries: 10000, bytes: 1 << 20}, func() {})
	if err != nil || skipped > 0 {
		t.Fatalf("skipped %d, %v", skipped, err)
	}
	return tree
}

func mustCompare(t *testing.T, root string, tree []entry) []string {
	t.Helper()
	found, err := differences(root, tree, func() {})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestKernelMakesTheTreeAgain mounts the layers by kernel overlayfs: if their union is not the original there, the cut is
// wrong, and the demonstration would show nothing.
func TestKernelMakesTheTreeAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a mount by kernel overlayfs judges the cut")
	}
	root := sampleTree(t)
	tree := mustRead(t, root)
	for seed := range uint64(10) {
		base := t.TempDir()
		var layers []string
		for i := range 40 {
			layers = append(layers, filepath.Join(base, fmt.Sprint(i)))
			if err := os.Mkdir(layers[i], 0o755); err != nil {
				t.Fatal(err)
			}
		}
		c := newCutter(root, layers, seed)
		c.opaque, c.devs = "trusted.overlay.opaque", true
		for _, e := range tree {
			if err := c.place(e); err != nil {
				t.Fatal(err)
			}
		}
		for i := range layers {
			if err := c.seal(i); err != nil {
				t.Fatal(err)
			}
		}
		if c.counts.whiteouts == 0 || c.counts.opaques == 0 || c.counts.shadowed == 0 || c.counts.replaced == 0 {
			t.Errorf("seed %d hides too little: %+v", seed, c.counts)
		}
		merged := t.TempDir()
		if err := unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(layers, ":")); err != nil {
			t.Fatal(err)
		}
		found := mustCompare(t, merged, tree)
		if err := unix.Unmount(merged, 0); err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			t.Errorf("seed %d: %d differences, the first: %s", seed, len(found), found[0])
		}
	}
}

func TestDifferencesAreFound(t *testing.T) {
	for name, spoil := range map[string]func(root string) error{
		"mode":    func(root string) error { return os.Chmod(root+"/a0/b0/c0", 0o700) },
		"content": func(root string) error { return replace(root+"/a0/b0/c0/file0", len(root+"/a0/b0/c0/file0")) },
		"size":    func(root string) error { return replace(root+"/a0/b0/c0/file0", 1) },
		"missing": func(root string) error { return os.Remove(root + "/a0/b0/c0/file0") },
		"extra":   func(root string) error { return os.WriteFile(root+"/extra", nil, 0o600) },
		"target":  func(root string) error { return os.Rename(root+"/a1/b1/c1/file1.link", root+"/a0/b0/c0/file0.link") },
		"type": func(root string) error {
			os.Remove(root + "/a0/b0/c0/file0")
			return os.Mkdir(root+"/a0/b0/c0/file0", 0o700)
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := sampleTree(t)
			tree := mustRead(t, root)
			if found := mustCompare(t, root, tree); len(found) > 0 {
				t.Fatalf("differences before there are any: %v", found)
			}
			if err := spoil(root); err != nil {
				t.Fatal(err)
			}
			if found := mustCompare(t, root, tree); len(found) == 0 {
				t.Error("no difference found")
			}
		})
	}
}

// replace gives a file other content of the same size and mode.
func replace(path string, size int) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		return err
	}
	return os.Chmod(path, info.Mode())
}

func TestReadTreeKeepsItsBounds(t *testing.T) {
	root := sampleTree(t)
	tree, _, err := readTree(root, bounds{entries: 50, bytes: 1 << 20}, func() {})
	if err != nil || len(tree) != 50 {
		t.Errorf("%d entries, %v; want 50", len(tree), err)
	}
	if tree, _, err = readTree(root, bounds{entries: 1000, bytes: 100}, func() {}); err != nil || len(tree) > 50 {
		t.Errorf("%d entries within 100 bytes, %v", len(tree), err)
	}
}
