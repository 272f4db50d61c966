package overlayfallback

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const lingering = 300 * time.Millisecond

// TestServesElsewhere is the daemon of the test below: it mounts what its environment says, and takes its time to end.
func TestServesElsewhere(t *testing.T) {
	options := os.Getenv(insideVar)
	if !strings.HasPrefix(options, "lowerdir=") {
		t.Skip("only as a daemon")
	}
	options, target, _ := strings.Cut(options, " ")
	c, err := Parse(FSType, "daemon", target, []string{options})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Mount(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("serving")
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
	time.Sleep(lingering)
}

// Unmount returns when a daemon has ended, not only when the mount is gone; and gives up waiting when it is told to.
func TestUnmountAwaitsDaemon(t *testing.T) {
	needFUSE(t)
	for _, patience := range []time.Duration{20 * time.Second, lingering / 3} {
		s := newScene(t, 2)
		daemon := exec.Command(os.Args[0], "-test.run=^TestServesElsewhere$")
		daemon.Env = append(os.Environ(), insideVar+"="+s.config.OptionString()+" "+s.config.Target)
		out, err := daemon.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "serving\n" {
			t.Fatalf("the daemon said %q, %v", line, err)
		}
		s.verify(t)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err = Unmount(ctx, s.config.Target)
		took := time.Since(start)
		cancel()
		if patience > lingering && (err != nil || took < lingering) {
			t.Errorf("%v after %v; want no error, and the daemon to have ended", err, took)
		}
		if patience < lingering && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v after %v; want the deadline to have passed", err, took)
		}
		if err := daemon.Wait(); err != nil {
			t.Error(err)
		}
		s.nothingLeft(t)
	}
}

// mount.fuse3 may hand over a connection that it has mounted itself, as /dev/fd/N.
func TestServesMountedConnection(t *testing.T) {
	s := newScene(t, 3)
	m, dev := serveMounted(t, s, func(dev int) error { return mountFUSEBy2(&s.config, dev, s.config.Target) })
	if m.Route() != FUSE {
		t.Errorf("%+v", m.Plan())
	}
	if connectionOf(os.Getpid(), strconv.Itoa(dev)) == "" {
		t.Skip("this kernel does not say which connection a descriptor is for (Linux 6.16), so that reading here could hang")
	}
	pollIsSettled(t, m)
	s.verify(t)
	if err := m.Unmount(t.Context()); err == nil {
		t.Error("what someone else mounted was unmounted")
	}
	endServed(t, s, m)
}

// It may have mounted for another user than the one as whom it starts the server (setuid=USER), who then cannot look into the mount.
func TestServesMountOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 || Probe(t.Context()).UserNamespace {
		t.Skip("only root mounts for other users")
	}
	s := newScene(t, 2)
	m, _ := serveMounted(t, s, func(dev int) error {
		options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=65534,group_id=65534", dev)
		return unix.Mount("layers", s.config.Target, FSType, 0, options)
	})
	endServed(t, s, m)
}

// serveMounted has a connection mounted and then served, as the number of its descriptor.
func serveMounted(t *testing.T, s *scene, mount func(dev int) error) (m *Mounted, dev int) {
	t.Helper()
	needFUSE(t)
	dev, err := openDevice(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := mount(dev); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(s.config.Target, unix.MNT_DETACH) })
	served := s.config
	served.Target = fmt.Sprintf("/dev/fd/%d", dev)
	if m, err = Mount(t.Context(), served); err != nil {
		t.Fatal(err)
	}
	return m, dev
}

func endServed(t *testing.T, s *scene, m *Mounted) {
	t.Helper()
	if err := Unmount(t.Context(), s.config.Target); err != nil {
		t.Error(err)
	}
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
	s.nothingLeft(t)
}

// pollIsSettled checks that the kernel has been told already that files cannot be polled, since nobody could answer it while Go
// opens one.
func pollIsSettled(t *testing.T, m *Mounted) {
	t.Helper()
	if asked := m.Stats().Requests.Requests["POLL"]; asked.Count != 1 || asked.Errors != 1 {
		t.Errorf("%+v requests to poll a file were answered; want one, with an error", asked)
	}
}

// Without the new mount interface a FUSE mount gets its place first, and is served then.
func TestFUSEByMount2(t *testing.T) {
	needFUSE(t)
	s := newScene(t, 3)
	dev, err := openDevice(0)
	if err != nil {
		t.Fatal(err)
	}
	union, err := newUnion(&s.config, &Plan{ReadOnly: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	served := &server{union: union, ended: make(chan struct{})}
	if err := served.connectBy2(t.Context(), &s.config, dev, s.config.Target); err != nil {
		t.Fatal(err)
	}
	s.verify(t)
	if err := Unmount(t.Context(), s.config.Target); err != nil {
		t.Error(err)
	}
	<-served.ended
	s.nothingLeft(t)
}

// A mount that fails leaves nothing: here the context ends before the union is ready.
func TestFailureLeavesNothing(t *testing.T) {
	needMounts(t)
	for _, route := range []Route{Overlay, Stacked, FUSE} {
		s := newScene(t, 3)
		s.config.Route = route
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if m, err := Mount(ctx, s.config); err == nil {
			unmount(t, m)
			t.Errorf("%s: mounted with a context that had ended", route)
		}
		s.nothingLeft(t)
	}
	needFUSE(t)
	s := newScene(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	caps := Probe(t.Context())
	if _, err := mountAs(ctx, &s.config, &Plan{Route: FUSE}, &caps); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want it to have been cancelled", err)
	}
	s.nothingLeft(t)
}

// Wait returns when a kernel mount is gone, whoever unmounted it.
func TestWaitForKernelMount(t *testing.T) {
	needMounts(t)
	s := newScene(t, 2)
	m := mount(t, s.config)
	gone := make(chan error, 1)
	go func() { gone <- m.Wait() }()
	select {
	case err := <-gone:
		t.Fatalf("Wait returned with %v while it was mounted", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := unix.Unmount(s.config.Target, 0); err != nil {
		t.Fatal(err)
	}
	waitReturns(t, gone)
}

// waitReturns fails a test in which Wait, whose result comes by the channel, does not end by itself and well.
func waitReturns(t *testing.T, result <-chan error) {
	t.Helper()
	select {
	case err := <-result:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Wait did not return")
	}
}

func TestProbe(t *testing.T) {
	before := os.Getpid()
	start := time.Now()
	c := Probe(t.Context())
	t.Logf("%v: %+v", time.Since(start), c)
	if os.Geteuid() == 0 && !c.UserNamespace && !c.TrustedXattr.OK {
		t.Errorf("root cannot set trusted xattrs: %s", c.TrustedXattr.Why)
	}
	for name, a := range map[string]Ability{"mount API": c.MountAPI, "overlay": c.Overlay, "FUSE": c.FUSEMount, "openat2": c.Openat2} {
		if a.OK == (a.Why != "") {
			t.Errorf("%s: %+v", name, a)
		}
	}
	eachMount(func(m MountInfo) bool {
		if m.Point == os.TempDir() && m.isUnion() || before != os.Getpid() {
			t.Errorf("the probe left a mount: %+v", m)
		}
		return true
	})
}

// What older kernels are asked in a mount namespace of its own, this one has to answer alike.
func TestPrivateOverlay(t *testing.T) {
	needMounts(t)
	left := func() (mounts int, folders []string) {
		eachMount(func(MountInfo) bool { mounts++; return true })
		folders, err := filepath.Glob(os.TempDir() + "/[abm]")
		if err != nil {
			t.Fatal(err)
		}
		return mounts, folders
	}
	mounts, folders := left()
	if err := privateOverlay(); err != nil {
		t.Error(err)
	}
	if now, _ := left(); now > mounts {
		t.Errorf("%d mounts became %d", mounts, now)
	}
	if _, now := left(); len(now) > len(folders) {
		t.Errorf("folders were left: %v", now)
	}
}

func BenchmarkProbe(b *testing.B) {
	for b.Loop() {
		Probe(b.Context())
	}
}
