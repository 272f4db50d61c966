package overlayfallback

import (
	"testing"

	"golang.org/x/sys/unix"
)

// replaced unmounts a union as others would, and mounts another one in its place that the kernel lists under the same number.
func replaced(t *testing.T, s *scene, old *Mounted) *Mounted {
	t.Helper()
	for range 50 {
		if err := unix.Unmount(s.config.Target, 0); err != nil {
			t.Fatal(err)
		}
		if old.server != nil {
			<-old.server.ended
		}
		next := mount(t, s.config)
		if next.entry == old.entry {
			return next
		}
		old = next
	}
	t.Fatal("the kernel has given no number twice")
	return nil
}

func needUniqueNumbers(t *testing.T, m *Mounted) {
	t.Helper()
	if m.unique == 0 {
		t.Skip("this kernel does not tell a mount from the next one of the same number (statmount(2), Linux 6.8)")
	}
}

// A server that has ended takes its own dead mount away, and never the one that somebody has made in its place meanwhile.
func TestSuccessorIsLeftAlone(t *testing.T) {
	needFUSE(t)
	s := newScene(t, 2)
	s.config.Route = FUSE
	old := mount(t, s.config)
	next := replaced(t, s, old)
	old.tidyUp()
	s.verify(t)
	needUniqueNumbers(t, old)
	if err := old.Unmount(t.Context()); err != nil {
		t.Errorf("unmount what is unmounted: %v", err)
	}
	s.verify(t)
	unmount(t, next)
}

// Wait on a kernel mount returns when that mount is gone, though another one stands in its place.
func TestWaitDoesNotTakeSuccessorForItself(t *testing.T) {
	needMounts(t)
	s := newScene(t, 2)
	s.config.Route = Overlay
	old := mount(t, s.config)
	needUniqueNumbers(t, old)
	next := replaced(t, s, old)
	ended := make(chan error, 1)
	go func() { ended <- old.Wait() }()
	waitReturns(t, ended)
	s.verify(t)
	unmount(t, next)
}
