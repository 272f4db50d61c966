package layers

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenNamesTheLayerThatFails(t *testing.T) {
	dirs := plantLayers(t, "f a 1", "f b 1")
	file := filepath.Join(dirs[0], "a")
	for _, c := range []struct {
		path string
		want error
	}{{filepath.Join(dirs[0], "none"), unix.ENOENT}, {file, unix.ENOTDIR}} {
		before := openDescriptors(t)
		_, err := Open(Config{Lower: []string{dirs[1], c.path}, Namespace: namespace, Descriptors: 8})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s: %v", c.path, err)
		}
		if after := openDescriptors(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	}
}

func TestOpenOrder(t *testing.T) {
	dirs := plantLayers(t, "", "", "", "")
	s := openStack(t, Config{Upper: dirs[0], Lower: dirs[1:3], Data: dirs[3:]})
	all := append(append([]*Layer{s.Upper}, s.Lower...), s.Data...)
	for i, l := range all {
		if l.Index != i || l.Path() != dirs[i] {
			t.Errorf("layer %d is number %d, %s", i, l.Index, l.Path())
		}
	}
	if roots := s.Roots(); len(roots) != 2 || roots[0].Layer != s.Lower[0] || roots[1].Layer != s.Lower[1] {
		t.Errorf("roots %+v", roots)
	}
	if n := s.Cache.Len(); n != 0 {
		t.Errorf("%d descriptors are held before anything was read", n)
	}
}

// A layer's symbolic link counts when the stack is opened. What stands at its path later is another layer's business.
func TestLayerReplaced(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "f one/a 1\nf two/a 2\nl link one")
	s := openStack(t, Config{Lower: []string{filepath.Join(dir, "link")}})
	place := s.Roots()[0]
	if place.Layer.Path() != filepath.Join(dir, "one") {
		t.Errorf("the layer is %s", place.Layer.Path())
	}
	if err := os.Rename(dir+"/one", dir+"/old"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenDir(place); err != unix.ENOENT {
		t.Errorf("of a layer that is gone: %v", err)
	}
	for _, other := range []string{"d one", "l one two", "f one x", "p one"} {
		os.RemoveAll(dir + "/one")
		plant(t, dir, other)
		if f, err := s.OpenDir(place); err == nil {
			f.Release()
			t.Errorf("%q was taken for the layer", other)
		}
	}
}

// Layers at and below the mount point are reached through a descriptor of it.
func TestLayersBelowTheMountPoint(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "f mnt/top 1\nf mnt/sub/layer/a 2\nf mnt2/b 3")
	mp, err := os.OpenFile(dir+"/mnt", unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer mp.Close()
	s := openStack(t, Config{Lower: []string{dir + "/mnt", dir + "/mnt/sub/layer", dir + "/mnt2"}, MountPoint: mp})
	if err := os.Rename(dir+"/mnt", dir+"/hidden"); err != nil { // as if something were mounted there
		t.Fatal(err)
	}
	for i, want := range []string{"top", "a", "b"} {
		f, err := s.OpenDir(s.Roots()[i])
		if err != nil {
			t.Errorf("layer %d: %v", i, err)
			continue
		}
		var st unix.Statx_t
		if err := Stat(f, want, &st); err != nil {
			t.Errorf("%s in layer %d: %v", want, i, err)
		}
		f.Release()
	}
}

// A directory of a layer becomes a symbolic link, a file, nothing: an errno, and nothing outside is seen.
func TestDirectoryChangesType(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "f layer/d/a 1\nf outside/secret 2")
	s := openStack(t, Config{Lower: []string{dir + "/layer"}, Descriptors: 1})
	place := s.Roots()[0].child("d")
	f, err := s.OpenDir(place)
	if err != nil {
		t.Fatal(err)
	}
	f.Release()
	for _, other := range []string{"l layer/d ../outside", "f layer/d x", "p layer/d", "f layer/other x"} {
		if err := os.RemoveAll(dir + "/layer/d"); err != nil {
			t.Fatal(err)
		}
		plant(t, dir, other)
		s.Cache.shrink(0)
		if f, err := s.OpenDir(place); err == nil {
			f.Release()
			t.Errorf("%q was opened as a directory", other)
		}
		if _, err := Merge[int](s, nil, []Place{place}); err == nil {
			t.Errorf("%q was read as a directory", other)
		}
	}
}

// The stack holds no more descriptors than it may, whatever is read.
func TestDescriptorsAreBounded(t *testing.T) {
	var trees []string
	for range 30 {
		trees = append(trees, "f a/b/c 1\nf d/e 2")
	}
	s := openStack(t, Config{Lower: plantLayers(t, trees...), Descriptors: 5})
	before := openDescriptors(t)
	walkStack(s)
	if held := openDescriptors(t) - before; held > 5 || s.Cache.Len() > 5 {
		t.Errorf("%d descriptors are held, %d by the cache", held, s.Cache.Len())
	}
	s.Close()
	if held := openDescriptors(t) - before; held != 0 {
		t.Errorf("%d descriptors are held after Close", held)
	}
}
