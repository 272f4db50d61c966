package overlaytest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unmountTime is how long an unmount may take before the connection is aborted and the mount detached.
const unmountTime = 20 * time.Second

// Mounted is a union mounted for a test.
type Mounted struct {
	Route  Route
	Layout Layout
	Root   string // the mount point

	server *server // the process that serves a FUSE route; nil for others
	mu     sync.Mutex
	done   bool // guarded by mu
}

// Mount mounts the layout by the route and fails the test where that does not work.
func Mount(t testing.TB, r Route, l Layout) *Mounted {
	t.Helper()
	m, err := TryMount(t, r, l)
	if err != nil {
		t.Fatalf("mount by %s: %v", r, err)
	}
	return m
}

// TryMount mounts the layout by the route at a new directory, in one of its own: symbolic links that lead up and out of the union
// lead to no file that another union has too. The mount is undone at the end of the test, with force if its server hangs, which
// fails the test.
func TryMount(t testing.TB, r Route, l Layout) (*Mounted, error) {
	t.Helper()
	m := &Mounted{Route: r, Layout: l, Root: filepath.Join(TempDir(t), "m")}
	if err := os.Mkdir(m.Root, 0o755); err != nil {
		return nil, err
	}
	if err := m.start(); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Errorf("unmount %s: %v", r, err)
		}
	})
	return m, nil
}

// start mounts m.
func (m *Mounted) start() (err error) {
	switch {
	case m.Route == Kernel:
		// Its upper stays in use for as long as a mount namespace that another test has just left holds a copy of the last mount.
		return whileBusy(func() error { return mountKernel(m.Layout, m.Root) })
	case m.Route.Program() != "":
		return mountProgram(m.Route, m.Layout, m.Root)
	}
	m.server, err = startServer(m.Route, m.Layout, m.Root)
	return err
}

// Unmount undoes the mount and waits until its server has ended. When that takes too long the connection is aborted, the
// mount detached and the server killed, and the error says so. Further calls do nothing.
func (m *Mounted) Unmount() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done {
		return nil
	}
	m.done = true
	end := make(chan error, 1)
	go func() { end <- m.stop() }()
	select {
	case err := <-end:
		if err != nil {
			m.Abort()
		}
		return err
	case <-time.After(unmountTime):
		m.Abort()
		return fmt.Errorf("not unmounted within %v: connection aborted", unmountTime)
	}
}

// stop asks for the unmount in the way of the route.
func (m *Mounted) stop() error {
	if m.server != nil {
		return m.server.stop()
	}
	return unmountPath(m.Root)
}

// unmountPath unmounts what is mounted at p, waiting a little for descriptors that are still being closed.
func unmountPath(p string) error {
	return os.NewSyscallError("umount", whileBusy(func() error { return unix.Unmount(p, 0) }))
}

// whileBusy repeats for a little while what gives EBUSY.
func whileBusy(f func() error) (err error) {
	for range 100 {
		if err = f(); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// Abort ends the mount at once: its FUSE connection is aborted, so that no call hangs on it any longer, it is detached, and its
// server is killed.
func (m *Mounted) Abort() {
	abortConnection(m.Root)
	unix.Unmount(m.Root, unix.MNT_DETACH)
	if m.server != nil {
		m.server.kill()
	}
}

// Kill kills the serving process as kill -9 does. The dead mount stays in its place, answering ENOTCONN, until [Mounted.Clear].
func (m *Mounted) Kill() {
	if m.server != nil {
		m.server.kill()
		abortConnection(m.Root)
	}
}

// Clear takes a mount away whose server has been killed.
func (m *Mounted) Clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = true
	unix.Unmount(m.Root, unix.MNT_DETACH)
}

// Bound aborts the mounts when the test lasts longer than d, and fails it: calls that hang on a FUSE server then return
// with an error, and the test goes on to its end. The bound ends with the test, or before it when stop is called.
func Bound(t testing.TB, d time.Duration, mounts ...*Mounted) (stop func()) {
	timer := time.AfterFunc(d, func() {
		t.Errorf("still running after %v: mounts aborted", d)
		for _, m := range mounts {
			if m.Route.FUSE() {
				m.Abort()
			}
		}
	})
	stop = func() { timer.Stop() }
	t.Cleanup(stop)
	return stop
}
