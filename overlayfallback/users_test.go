package overlayfallback

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// insideVar marks a test binary that was started by one of the tests below.
const insideVar = "OVERLAYFALLBACK_TEST_INSIDE"

// again runs some of this package's tests in another process, started by a command.
func again(t *testing.T, words ...string) string {
	t.Helper()
	if os.Getenv(insideVar) != "" {
		t.Skip("this is the inner process already")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(os.Environ(), insideVar+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %v\n%s", words, err, out.String())
	}
	return out.String()
}

// needNamespaces skips where a user may have no namespace of its own.
func needNamespaces(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("unshare", "-Urm", "true").CombinedOutput(); err != nil {
		t.Skipf("user namespaces are not to be had: %v: %s", err, out)
	}
}

// All the tests in a user namespace, where user.overlay.* takes the place of trusted.overlay.*.
func TestInUserNamespace(t *testing.T) {
	needNamespaces(t)
	out := again(t, "unshare", "-Urm", os.Args[0], "-test.v", "-test.short", "-test.timeout=80s")
	names := []string{"TestKernelRoutes", "TestFUSERoute", "TestChoosesUserXattr"}
	if !Probe(t.Context()).Device.OK {
		names = names[:1] // the others mount FUSE too
	}
	for _, name := range names {
		if !strings.Contains(out, "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass in there:\n%s", name, out)
		}
	}
}

func TestChoosesUserXattr(t *testing.T) {
	caps := needMounts(t)
	if !caps.UserNamespace {
		t.Skip("only in a user namespace")
	}
	for _, route := range []Route{Overlay, Stacked, FUSE} {
		s := newScene(t, 3).writable(t)
		s.config.Route = route
		m := mount(t, s.config)
		if !m.Plan().UserXattr {
			t.Errorf("%s: %+v", route, m.Plan())
		}
		s.verifyWritable(t)
		mkdir(t, filepath.Join(s.config.Target, "shared"))
		value := make([]byte, 8)
		n, err := unix.Getxattr(filepath.Join(s.config.Upper, "shared"), "user.overlay.opaque", value)
		if err != nil || string(value[:n]) != "y" {
			t.Errorf("%s: the folder made anew is not opaque: %q, %v", route, value[:max(n, 0)], err)
		}
		unmount(t, m)
	}
}

// asNobody gives the words by which a copy of the test binary runs as an ordinary user, in a mount namespace in which every
// user may open /dev/fuse, as on most machines.
func asNobody(t *testing.T, test string) []string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("this is an ordinary user already")
	}
	if out, err := exec.Command("unshare", "-m", "setpriv", "--reuid=65534", "--clear-groups", "true").CombinedOutput(); err != nil {
		t.Skipf("no mount namespace, or no setpriv: %v: %s", err, out)
	}
	dir := tempOn(t, "/tmp")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program, device := filepath.Join(dir, "inner.test"), filepath.Join(dir, "fuse")
	if out, err := exec.Command("cp", "/proc/"+strconv.Itoa(os.Getpid())+"/exe", program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := unix.Mknod(device, unix.S_IFCHR, int(unix.Mkdev(10, 229))); err != nil {
		t.Skipf("no device can be made: %v", err)
	}
	if err := os.Chmod(device, 0o666); err != nil {
		t.Fatal(err)
	}
	const script = `mount --bind "$0" /dev/fuse && cd / && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"`
	return []string{"unshare", "-m", "sh", "-c", script, device, program, "-test.v", "-test.timeout=60s", "-test.run=^" + test + "$"}
}

// An ordinary user without a namespace mounts FUSE through fusermount3, and is told what to do where nothing helps.
func TestAsOrdinaryUser(t *testing.T) {
	if _, err := lookFusermount(); err != nil {
		t.Skip(err)
	}
	for test, path := range map[string]string{"TestOrdinaryUser": os.Getenv("PATH"), "TestNoHelper": "/nowhere"} {
		words := asNobody(t, test)
		words = slices.Insert(words, len(words)-4, "env", "PATH="+path)
		out := again(t, words...)
		if !strings.Contains(out, "--- PASS: "+test+" ") {
			t.Error(out)
		}
	}
}

func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("only as an ordinary user")
	}
	c := Probe(t.Context())
	if c.Overlay.OK || !c.Fusermount.OK || !c.Device.OK { // fusermount3 opens the device with the rights of its user
		t.Skipf("FUSE cannot be mounted through a helper: %s %s", c.Fusermount.Why, c.Device.Why)
	}
	s := newScene(t, 5).writable(t)
	m, err := Mount(t.Context(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	if m.Route() != FUSE {
		t.Errorf("%+v", m.Plan())
	}
	s.verify(t)
	s.verifyWritable(t)
	if err := Unmount(t.Context(), s.config.Target); err != nil {
		t.Error(err)
	}
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
	s.nothingLeft(t)
}

func TestNoHelper(t *testing.T) {
	if os.Getenv(insideVar) == "" || os.Getuid() == 0 {
		t.Skip("only as an ordinary user with nothing in PATH")
	}
	s := newScene(t, 2)
	refused(t, s, unix.EPERM, "overlay: ", "fuse: ", "fusermount3", "unshare -Urm")
}

// A process that may have no more than 1,024 files open mounts 2,000 layers.
func TestFewDescriptors(t *testing.T) {
	needFUSE(t)
	if os.Getenv(insideVar) == "" {
		again(t, "sh", "-c", `ulimit -n 1024 && exec "$0" -test.run='^TestFewDescriptors$' -test.timeout=60s`, os.Args[0])
		return
	}
	s := newScene(t, 4*maxLayers)
	for _, layers := range []int{maxLayers, 4 * maxLayers} {
		part := s.top(t, layers)
		m := mount(t, part.config)
		part.verify(t)
		unmount(t, m)
	}
}

// Without /dev/fuse the kernel's routes go on, and what needs FUSE is told how to come by it.
func TestNoDevice(t *testing.T) {
	if _, err := os.Stat(fuseDevice); errors.Is(err, os.ErrNotExist) {
		s := newScene(t, 2)
		s.config.Route = FUSE
		refused(t, s, nil, fuseDevice, "no such file", "modprobe fuse")
		s.config.Route = Auto
		unmount(t, mount(t, s.config))
		return
	}
	needMounts(t)
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		t.Skipf("no mount namespace: %v: %s", err, out)
	}
	const script = `mount -t tmpfs none /dev && mkdir /dev/shm && exec "$0" -test.run='^TestNoDevice$' -test.timeout=60s`
	again(t, "unshare", "-m", "sh", "-c", script, os.Args[0])
}
