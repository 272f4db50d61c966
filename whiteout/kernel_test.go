package whiteout_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests named TestKernel compare this package with the overlayfs of the running kernel, both ways: what the kernel writes
// must be read and written again byte for byte, and what this package says of a value must be what the kernel makes of it.

// union is a set of layers on one file system and the place where the kernel mounts them.
type union struct {
	t                        *testing.T
	top, lower, upper, mount string
	mounted                  bool
}

// newUnion makes empty layers. It skips the test where overlayfs cannot be mounted with trusted xattrs.
func newUnion(t *testing.T) *union {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the kernel's overlayfs keeps trusted.* xattrs, which take CAP_SYS_ADMIN in the initial user namespace")
	}
	top := t.TempDir()
	u := &union{t: t, top: top, lower: top + "/lower", upper: top + "/upper", mount: top + "/mount"}
	for _, dir := range []string{u.lower, u.upper, top + "/work", u.mount} {
		check(t, os.Mkdir(dir, 0o755))
	}
	if err := unix.Setxattr(u.lower, "trusted.overlay.test", []byte("y"), 0); err != nil {
		t.Skipf("%s: no trusted xattrs here (%v): run in the initial user namespace, on a file system with xattrs", u.lower, err)
	}
	check(t, unix.Removexattr(u.lower, "trusted.overlay.test"))
	t.Cleanup(u.unmount)
	return u
}

// remount mounts the union afresh, with nothing remembered from the last time. Options are added to the layers; "ro" in front
// leaves out the upper layer.
func (u *union) remount(options ...string) {
	u.t.Helper()
	u.unmount()
	if len(options) > 0 && options[0] == "ro" {
		options = append([]string{"lowerdir=" + u.upper + ":" + u.lower}, options[1:]...)
	} else {
		options = append([]string{"lowerdir=" + u.lower, "upperdir=" + u.upper, "workdir=" + u.top + "/work"}, options...)
	}
	data := strings.Join(options, ",")
	if err := unix.Mount("overlay", u.mount, "overlay", 0, data); err != nil {
		u.t.Fatalf("mount -t overlay -o %s: %v", data, err)
	}
	u.mounted = true
}

func (u *union) unmount() {
	if !u.mounted {
		return
	}
	u.mounted = false
	if err := unix.Unmount(u.mount, 0); err != nil {
		u.t.Errorf("unmount %s: %v", u.mount, err)
		_ = unix.Unmount(u.mount, unix.MNT_DETACH)
	}
}

func (u *union) inLower(name string) string { return filepath.Join(u.lower, name) }
func (u *union) inUpper(name string) string { return filepath.Join(u.upper, name) }
func (u *union) inMount(name string) string { return filepath.Join(u.mount, name) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes a file and the directories above it.
func write(t *testing.T, path, content string) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(t, os.WriteFile(path, []byte(content), 0o644))
}

func setXattr(t *testing.T, path, name string, value []byte) {
	t.Helper()
	if err := unix.Lsetxattr(path, name, value, 0); err != nil {
		t.Fatalf("setxattr %s %s: %v", path, name, err)
	}
}

func getXattr(t *testing.T, path, name string) []byte {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(path, name, buf)
	if err != nil {
		t.Fatalf("getxattr %s %s: %v", path, name, err)
	}
	return buf[:n]
}

func listXattr(t *testing.T, path string) []string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatalf("listxattr %s: %v", path, err)
	}
	return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
}

func lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}
