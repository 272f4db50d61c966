package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// inNamespaceVariable marks the demonstration that runs in a user namespace of its own.
const inNamespaceVariable = "UNIONFS_DEEP_DEMO_IN_NAMESPACE"

// footing is what this user can do here, found by trying.
type footing struct {
	who      string
	fuse     bool   // whether a FUSE file system can be mounted
	whiteout bool   // whether mknod makes a whiteout
	opaque   string // the xattr that a layer is made with; empty: none can be set
	leftOut  []string
}

// enterNamespace runs this program again as root of a new user and mount namespace, and returns its exit status: an
// ordinary user needs that to mount by the kernel.
func enterNamespace() (status int, entered bool) {
	if os.Geteuid() == 0 || exec.Command("unshare", "-Urm", "true").Run() != nil {
		return 0, false
	}
	self, err := os.Executable()
	if err != nil {
		return 0, false
	}
	inner := exec.Command("unshare", append([]string{"-Urm", "--kill-child", self}, os.Args[1:]...)...)
	inner.Env = append(os.Environ(), inNamespaceVariable+"=1")
	inner.Stdin, inner.Stdout, inner.Stderr = os.Stdin, os.Stdout, os.Stderr
	inner.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	inner.Run()
	return inner.ProcessState.ExitCode(), true
}

// findFooting tries, in dir, what making and mounting layers takes.
func findFooting(dir string) footing {
	var f footing
	switch {
	case os.Getenv(inNamespaceVariable) != "":
		f.who = "an ordinary user, in a user namespace"
	case os.Geteuid() == 0:
		f.who = "root"
	default:
		f.who = "an ordinary user"
		f.leave("kernel mounts: they need a user namespace, and unshare -Urm is refused here")
	}
	if err := canMountFUSE(); err != nil {
		f.leave("the fuse route: " + err.Error())
	} else {
		f.fuse = true
	}
	probe := filepath.Join(dir, "probe")
	f.whiteout = unix.Mknod(probe, unix.S_IFCHR, 0) == nil
	os.Remove(probe)
	if !f.whiteout {
		f.leave("whiteouts: mknod of a device 0:0 is refused here")
	}
	for _, ns := range []whiteout.Namespace{whiteout.Trusted, whiteout.User} {
		if f.opaque == "" && unix.Lsetxattr(dir, ns.Opaque(), []byte("y"), 0) == nil {
			f.opaque = ns.Opaque()
			unix.Lremovexattr(dir, ns.Opaque())
		}
	}
	if f.opaque == "" {
		f.leave("opaque directories: the file system of " + dir + " takes no xattr from this user")
	}
	return f
}

func (f *footing) leave(what string) { f.leftOut = append(f.leftOut, what) }

// canMountFUSE returns what stands in the way of the fuse route. Outside of a namespace only the setuid helper can mount for
// an ordinary user.
func canMountFUSE() error {
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	dev.Close()
	if os.Geteuid() == 0 {
		return nil
	}
	_, err = exec.LookPath("fusermount3")
	return err
}
