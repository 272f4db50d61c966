package overlayfallback

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scene is a set of layers on disk: each holds `top` with its own number, a file of its own, and a folder that all share. The
// third layer from the top hides the file of the lowest.
type scene struct {
	dir    string
	config Config
}

func newScene(t *testing.T, layers int) *scene {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "overlayfallback")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := &scene{dir: dir, config: Config{Target: filepath.Join(dir, "merged")}}
	for i := range layers {
		s.addLayer(t, filepath.Join(dir, "layers", strconv.Itoa(i)))
	}
	mkdir(t, s.config.Target)
	return s
}

// addLayer makes a folder the lowest layer.
func (s *scene) addLayer(t *testing.T, layer string) {
	t.Helper()
	number := strconv.Itoa(len(s.config.Lower))
	for _, name := range []string{"top", "own" + number, "shared/from" + number} {
		write(t, layer, name, number)
	}
	s.config.Lower = append(s.config.Lower, layer)
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	mkdir(t, filepath.Dir(filepath.Join(dir, name)))
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// top gives a scene of the topmost layers of this one, with a mount point of its own.
func (s *scene) top(t *testing.T, layers int) *scene {
	t.Helper()
	other := newScene(t, 0)
	other.config.Lower = s.config.Lower[:layers]
	return other
}

// writable gives the scene an upper layer.
func (s *scene) writable(t *testing.T) *scene {
	t.Helper()
	s.config.Upper, s.config.Work = filepath.Join(s.dir, "upper"), filepath.Join(s.dir, "work")
	mkdir(t, s.config.Upper)
	mkdir(t, s.config.Work)
	return s
}

// needMounts skips where nothing can be mounted at all.
func needMounts(t *testing.T) Capabilities {
	t.Helper()
	c := Probe(t.Context())
	if !c.Overlay.OK {
		t.Skipf("kernel overlayfs cannot be mounted here: %s", c.Overlay.Why)
	}
	return c
}

// mount mounts, and skips the rest of a test where that takes FUSE and there is none.
func mount(t *testing.T, c Config) *Mounted {
	t.Helper()
	if c.Route == FUSE {
		needFUSE(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := Mount(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, m) })
	return m
}

// unmount takes a mount away, if the test has not done it itself.
func unmount(t *testing.T, m *Mounted) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.Unmount(ctx); err != nil {
		t.Error(err)
	}
}

// verify reads the union through its mount point.
func (s *scene) verify(t *testing.T) {
	t.Helper()
	n := len(s.config.Lower)
	want := map[string]string{"top": "0", "own0": "0", "shared/from0": "0"}
	for _, i := range []int{n / 2, n - 1} {
		want["own"+strconv.Itoa(i)], want["shared/from"+strconv.Itoa(i)] = strconv.Itoa(i), strconv.Itoa(i)
	}
	for name, content := range want {
		got, err := os.ReadFile(filepath.Join(s.config.Target, name))
		if err != nil || string(got) != content {
			t.Errorf("%s: %q, %v; want %q", name, got, err, content)
		}
	}
	shared, err := os.ReadDir(filepath.Join(s.config.Target, "shared"))
	if err != nil || len(shared) != n {
		t.Errorf("shared holds %d entries, %v; want %d", len(shared), err, n)
	}
}

// verifyWritable changes the union and looks for the changes in the upper layer.
func (s *scene) verifyWritable(t *testing.T) {
	t.Helper()
	last := "own" + strconv.Itoa(len(s.config.Lower)-1)
	write(t, s.config.Target, "new", "new")
	write(t, s.config.Target, "top", "changed")
	if err := os.Remove(filepath.Join(s.config.Target, last)); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Join(s.config.Target, "shared")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(s.config.Target, last)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s was removed and is there: %v", last, err)
	}
	if got, err := os.ReadFile(filepath.Join(s.config.Upper, "top")); err != nil || string(got) != "changed" {
		t.Errorf("the upper layer's top: %q, %v", got, err)
	}
	if got, _ := os.ReadFile(filepath.Join(s.config.Lower[0], "top")); string(got) != "0" {
		t.Errorf("the lower layer was changed: top is %q", got)
	}
}

// nothingLeft checks that an unmounted scene is as it was.
func (s *scene) nothingLeft(t *testing.T) {
	t.Helper()
	eachMount(func(m MountInfo) bool {
		if strings.HasPrefix(m.Point, s.dir) {
			t.Errorf("a mount is left: %+v", m)
		}
		return true
	})
	if left, err := os.ReadDir(s.config.Target); err != nil || len(left) > 0 {
		t.Errorf("the mount point holds %v, %v", left, err)
	}
	if err := unix.Rmdir(s.config.Target); err != nil {
		t.Errorf("the mount point is held: %v", err)
	}
}

func TestKernelRoutes(t *testing.T) {
	caps := needMounts(t)
	depth := maxStacked
	if testing.Short() {
		depth = maxLayers + 1
	}
	deep := newScene(t, depth)
	for _, c := range []struct {
		route  Route
		naming Naming
		layers int
	}{
		{Overlay, "", 1}, {Overlay, "", 2}, {Overlay, Relative, 2}, {Overlay, Descriptor, 3}, {Overlay, FSConfig, 3},
		{Overlay, Relative, 100}, {Overlay, Descriptor, maxLayers}, {Overlay, FSConfig, maxLayers}, {Overlay, "", maxLayers},
		{Stacked, "", 1}, {Stacked, "", 2}, {Stacked, "", 7}, {Stacked, "", 501}, {Stacked, "", maxStacked}, {Auto, "", maxStacked},
	} {
		for _, writable := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%s/%d/writable=%t", c.route, c.naming, c.layers, writable), func(t *testing.T) {
				if c.naming == FSConfig && !caps.LowerPaths.OK {
					t.Skipf("this kernel's fsconfig takes no layers: %s", caps.LowerPaths.Why)
				}
				if c.layers > depth {
					t.Skip("left out by -short")
				}
				s := deep.top(t, c.layers)
				if writable {
					s.writable(t)
				}
				s.config.Route, s.config.Naming = c.route, c.naming
				start := time.Now()
				m := mount(t, s.config)
				t.Logf("%v: %+v", time.Since(start), *m.Plan())
				s.verify(t)
				if writable {
					s.verifyWritable(t)
				}
				unmount(t, m)
				s.nothingLeft(t)
			})
		}
	}
}

// A folder of 30 bytes and 500 layers named absolutely does not fit; with short names it does.
func TestAbsoluteNames(t *testing.T) {
	needMounts(t)
	s := newScene(t, 0)
	short, err := os.MkdirTemp("/tmp", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	t.Chdir(short)
	for i := range maxLayers {
		s.addLayer(t, strconv.FormatInt(int64(i), 36))
	}
	m := mount(t, s.config)
	if m.Plan().Naming != Absolute {
		t.Errorf("named by %s", m.Plan().Naming)
	}
	s.verify(t)
}

func TestWorkingDirectoryStays(t *testing.T) {
	needMounts(t)
	const mounts = 100
	before, err := unix.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	scenes := make([]*scene, mounts)
	for i := range scenes {
		scenes[i] = newScene(t, 3)
		scenes[i].config.Naming = []Naming{Relative, Descriptor}[i%2]
	}
	stop, watched := make(chan struct{}), make(chan error, 1)
	go func() { watched <- watchFolder(before, stop) }()
	for _, s := range scenes {
		group.Go(func() { mount(t, s.config) })
	}
	group.Wait()
	close(stop)
	if err := <-watched; err != nil {
		t.Error(err)
	}
	if after, err := unix.Getwd(); err != nil || after != before {
		t.Errorf("the working directory was %q and is %q, %v", before, after, err)
	}
	for _, s := range scenes {
		s.verify(t)
	}
}

// watchFolder looks at the working directory of whatever thread it runs on, over and over.
func watchFolder(want string, stop chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if got, err := unix.Getwd(); err != nil || got != want {
			return fmt.Errorf("the working directory became %q, %v", got, err)
		}
		time.Sleep(time.Millisecond)
	}
}
