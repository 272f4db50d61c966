package unionfs

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// These tests are about operations of which a step fails: the union shows what the disk holds, and the caller is told what
// was done. What makes a step fail is a file that is flagged immutable: it cannot be removed, but its directory can be moved.
// The kernel cannot be compared: it knows whiteouts that are files in lower layers only, and a device takes no such flag.

// stuckWhiteout makes a directory of the upper layer that holds one whiteout, which cannot be removed.
func stuckWhiteout(t *testing.T, d dirs, name string) {
	t.Helper()
	dir, file := d.upper+"/"+name, d.upper+"/"+name+"/hidden"
	write(t, file, "")
	chattr(t, "-i", file) // skips before anything fails that takes root as well
	err := errors.Join(unix.Setxattr(dir, "trusted.overlay.opaque", []byte("x"), 0), unix.Setxattr(file, "trusted.overlay.whiteout", nil, 0))
	if err != nil {
		t.Fatal(err)
	}
	chattr(t, "+i", file)
	t.Cleanup(func() { chattr(t, "-i", "-R", d.upper, d.work) })
}

func chattr(t *testing.T, args ...string) {
	t.Helper()
	if inUserNamespace() {
		t.Skip("flags files as immutable, which takes the machine's root")
	}
	if out, err := exec.Command("chattr", args...).CombinedOutput(); err != nil {
		t.Fatalf("chattr %q: %v: %s", args, err, out)
	}
}

// A directory whose whiteouts cannot be cleaned up is removed all the same, and its name is free.
func TestRmdirThoughWhiteoutsStay(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	stuckWhiteout(t, d, "dir")
	root := mount(t, d.options(Options{})).root
	if err := os.Remove(root + "/dir"); err != nil {
		t.Errorf("rmdir: %v", err)
	}
	for _, at := range []string{root, d.upper} {
		if _, err := os.Lstat(at + "/dir"); !errors.Is(err, unix.ENOENT) {
			t.Errorf("after rmdir: %v, want ENOENT", err)
		}
	}
	write(t, root+"/dir/again", "again")
	if got := read(t, d.upper+"/dir/again"); got != "again" {
		t.Errorf("the upper layer has %q", got)
	}
}

// The same of a directory that another is renamed over, which may be open.
func TestRenameThoughWhiteoutsStay(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	stuckWhiteout(t, d, "dir")
	write(t, d.lower+"/dir/hidden", "hidden")
	write(t, d.upper+"/other/file", "other")
	root := mount(t, d.options(Options{})).root
	open, err := os.Open(root + "/dir")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := unix.Rename(root+"/other", root+"/dir"); err != nil {
		t.Errorf("rename: %v", err)
	}
	if _, err := os.Lstat(root + "/other"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the old name: %v, want ENOENT", err)
	}
	if read(t, root+"/dir/file")+read(t, d.upper+"/dir/file") != "otherother" {
		t.Error("the new name is another directory")
	}
	if _, err := open.Stat(); err != nil {
		t.Errorf("the directory that was replaced: %v", err)
	}
}

// A rename may still fail when the directory that it replaces has been cleared of its whiteouts. That directory is then
// another inode, which can be used, and merges with nothing.
func TestClearedDirectoryLivesOn(t *testing.T) {
	if os.Geteuid() != 0 || inUserNamespace() {
		t.Skip("sets trusted xattrs and removes whiteouts, which takes root in the initial user namespace")
	}
	d := makeDirs(t, "")
	write(t, d.lower+"/dir/file", "lower")
	if err := errors.Join(os.Mkdir(d.upper+"/dir", 0o755), unix.Mknod(d.upper+"/dir/file", unix.S_IFCHR, 0)); err != nil {
		t.Fatal(err)
	}
	f, err := New(d.options(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.child(f.root, "dir")
	if err != nil {
		t.Fatal(err)
	}
	up, err := f.upperDir(f.root)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Release()
	before := n.upper.Load()
	x := renamed{dir: f.root, name: "dir", n: n, up: up}
	ino, err := f.clearWhiteouts(&x)
	if err != nil {
		t.Fatal(err)
	}
	f.cleared(&x, ino)
	var st unix.Statx_t
	if err := f.statReal(n, &st); err != nil || st.Ino == before || st.Ino != n.upper.Load() {
		t.Errorf("the inode was %d and is %d, in memory %d, %v", before, st.Ino, n.upper.Load(), err)
	}
	dir, err := f.upperDir(n)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Release()
	if err := unix.Mkdirat(dir.FD, "new", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(d.upper + "/dir/new"); err != nil {
		t.Error(err)
	}
	r := rename{f: f, from: x, to: renamed{dir: f.root, name: "moved"}}
	if err := r.mark(); err != nil {
		t.Fatal(err)
	}
	if _, err := layers.Getxattr(up, "dir", f.stack.Namespace().Redirect(), nil); err != unix.ENODATA {
		t.Errorf("a directory that merges with nothing got a redirect: %v", err)
	}
}

// With index=on, a copy-up or removal that fails when it comes to the name leaves the index and the count of links as they
// were, and can be tried again.
func TestIndexedNameFails(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	write(t, d.lower+"/dir/a", "a")
	write(t, d.lower+"/dir/other", "other")
	if err := os.Link(d.lower+"/dir/a", d.lower+"/dir/b"); err != nil {
		t.Fatal(err)
	}
	root := mount(t, d.options(Options{Index: true})).root
	if err := os.Chmod(root+"/dir/other", 0o600); err != nil { // the directory is in the upper layer, and impure
		t.Fatal(err)
	}
	links := func() uint64 {
		var st unix.Stat_t
		if err := unix.Stat(root+"/dir/a", &st); err != nil {
			t.Fatal(err)
		}
		return st.Nlink
	}
	for _, step := range []struct {
		what  string
		do    func() error
		links uint64
	}{
		{"copy-up", func() error { return os.Chmod(root+"/dir/a", 0o600) }, 2},
		{"removal", func() error { return os.Remove(root + "/dir/b") }, 1},
	} {
		chattr(t, "+i", d.upper+"/dir")
		err := step.do()
		chattr(t, "-i", d.upper+"/dir")
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%s in an immutable directory: %v, want EPERM", step.what, err)
		}
		if n := links(); n != 2 {
			t.Errorf("%d links after a failed %s, want 2", n, step.what)
		}
		if err := step.do(); err != nil {
			t.Errorf("%s, again: %v", step.what, err)
		}
		if n := links(); n != step.links {
			t.Errorf("%d links after %s, want %d", n, step.what, step.links)
		}
	}
}

// What a change that failed has left of itself is seen by stat(2), although the kernel asks anew only after what succeeded.
func TestFailedChangeIsSeen(t *testing.T) {
	needFUSE(t)
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip(err)
	}
	d := makeDirs(t, loopDisk(t, smallDisk(t, "size=24m")+"/disk", 16<<20))
	d.lower = t.TempDir()
	write(t, d.lower+"/dir/a", "a")
	if err := os.Link(d.lower+"/dir/a", d.lower+"/dir/b"); err != nil {
		t.Fatal(err)
	}
	root := mount(t, d.options(Options{Index: true})).root
	write(t, root+"/file", "file")
	if err := os.Chmod(root+"/dir/a", 0o600); err != nil {
		t.Fatal(err)
	}
	chattr(t, "+i", d.upper+"/dir")
	defer chattr(t, "-i", d.upper+"/dir")
	for _, step := range []struct {
		name string
		do   func() error
		want error
	}{
		{"dir/a", func() error { return os.Remove(root + "/dir/b") }, unix.EPERM},
		{"file", func() error { return allocate(root+"/file", 64<<20) }, unix.ENOSPC},
	} {
		var before, remembered, asked unix.Statx_t
		statx(t, root+"/"+step.name, unix.AT_STATX_FORCE_SYNC, &before)
		if err := step.do(); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.name, err, step.want)
		}
		statx(t, root+"/"+step.name, 0, &remembered)
		statx(t, root+"/"+step.name, unix.AT_STATX_FORCE_SYNC, &asked)
		if remembered != asked {
			t.Errorf("%s: the kernel remembers %+v, the union says %+v", step.name, remembered, asked)
		}
		if asked == before {
			t.Errorf("%s: nothing has changed, which makes the test worthless", step.name)
		}
	}
}

func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close())
}

func statx(t *testing.T, path string, flags int, st *unix.Statx_t) {
	t.Helper()
	if err := unix.Statx(unix.AT_FDCWD, path, flags, unix.STATX_BASIC_STATS&^unix.STATX_ATIME, st); err != nil {
		t.Fatal(err)
	}
}
