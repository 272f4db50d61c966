package overlayfallback

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func needFUSE(t *testing.T) {
	t.Helper()
	if c := Probe(t.Context()); !c.FUSEMount.OK {
		t.Skipf("FUSE cannot be mounted here: %s", c.FUSEMount.Why)
	}
}

func TestFUSERoute(t *testing.T) {
	needFUSE(t)
	depths := []int{1, 7, 2 * maxLayers, 10_000}
	if testing.Short() {
		depths = depths[:3]
	}
	deep := newScene(t, depths[len(depths)-1])
	for _, layers := range depths {
		for _, writable := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/writable=%t", layers, writable), func(t *testing.T) {
				s := deep.top(t, layers)
				if writable {
					s.writable(t)
				}
				s.config.Route = FUSE
				start := time.Now()
				m := mount(t, s.config)
				t.Logf("%v: %+v", time.Since(start), *m.Plan())
				pollIsSettled(t, m)
				s.verify(t)
				if writable {
					s.verifyWritable(t)
				}
				unmount(t, m)
				if err := m.Wait(); err != nil {
					t.Errorf("the server ended with %v", err)
				}
				s.nothingLeft(t)
			})
		}
	}
}

// Beyond what two kernel overlays hold, and for AUFS whiteouts, FUSE is chosen by itself.
func TestAutoTakesFUSE(t *testing.T) {
	needMounts(t)
	needFUSE(t)
	s := newScene(t, 3)
	write(t, s.config.Lower[0], ".wh.own2", "")
	m := mount(t, s.config)
	if m.Route() != FUSE || !m.Plan().AUFS || len(m.Plan().Passed) != 2 {
		t.Errorf("%+v", *m.Plan())
	}
	if _, err := os.Lstat(filepath.Join(s.config.Target, "own2")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the whiteout hides nothing: %v", err)
	}
}

func TestFUSEUnmountElsewhere(t *testing.T) {
	needFUSE(t)
	s := newScene(t, 2).writable(t)
	s.config.Route = FUSE
	m := mount(t, s.config)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := Unmount(ctx, s.config.Target); err != nil {
		t.Error(err)
	}
	if holds(os.Getpid(), m.entry.minor()) {
		t.Error("Unmount returned before the server let go of the connection")
	}
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
	mount(t, s.config) // the upper layer is free at once
}

func TestUnmountBusy(t *testing.T) {
	needMounts(t)
	for _, route := range []Route{Overlay, FUSE} {
		s := newScene(t, 2)
		s.config.Route = route
		m := mount(t, s.config)
		file, err := os.Open(filepath.Join(s.config.Target, "top"))
		if err != nil {
			t.Fatal(err)
		}
		if err := Unmount(t.Context(), s.config.Target); !errors.Is(err, unix.EBUSY) {
			t.Errorf("%s: an open file, and unmounting gave %v", route, err)
		}
		s.verify(t)
		file.Close()
		unmount(t, m)
	}
}

// A mount point that is a layer too is reached by the descriptor taken before, so that the union does not read itself.
func TestLayerBelowMountPoint(t *testing.T) {
	needMounts(t)
	for _, route := range []Route{Overlay, Stacked, FUSE} {
		s := newScene(t, 3)
		s.config.Target, s.config.Route = s.config.Lower[1], route
		m := mount(t, s.config)
		s.verify(t)
		unmount(t, m)
	}
}

// A server whose connection dies takes its mount away: nobody is left with ENOTCONN.
func TestFUSEConnectionDies(t *testing.T) {
	needFUSE(t)
	s := newScene(t, 2)
	s.config.Route = FUSE
	m := mount(t, s.config)
	abort := fmt.Sprintf("/sys/fs/fuse/connections/%s/abort", m.entry.minor())
	if err := os.WriteFile(abort, []byte("1"), 0); err != nil {
		t.Skipf("the connection cannot be aborted: %v", err)
	}
	m.Wait()
	if _, found := m.current(); found {
		t.Error("the dead mount is still there")
	}
}
