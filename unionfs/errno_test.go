package unionfs

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// Each error is told by its errno, and none as ENOSYS, which would switch an operation off for the whole mount.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want fuse.Status
	}{
		{nil, fuse.OK},
		{unix.ENOSPC, fuse.Status(unix.ENOSPC)},
		{&os.PathError{Op: "open", Path: "x", Err: unix.EDQUOT}, fuse.Status(unix.EDQUOT)},
		{os.NewSyscallError("read", unix.EIO), fuse.EIO},
		{fmt.Errorf("sync: %w", unix.EROFS), fuse.EROFS},
		{errors.New("something else"), fuse.EIO},
		{unix.ENOSYS, fuse.Status(unix.EOPNOTSUPP)},
	} {
		if got := status(c.err); got != c.want {
			t.Errorf("%v is told as %v, want %v", c.err, got, c.want)
		}
	}
}

// A mode is never changed through a symbolic link, by the new call and without it.
func TestChmodDoesNotFollow(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/target", "x")
	if err := os.Symlink("target", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	at, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	borrowed := layers.Borrow(int(at.Fd()))
	for name, change := range map[string]func(place, uint32) error{"chmod": chmod, "chmodOpened": chmodOpened} {
		if err := change(place{borrowed, "link"}, 0o777); err != unix.EOPNOTSUPP {
			t.Errorf("%s of a link: %v", name, err)
		}
		if st, err := os.Stat(dir + "/target"); err != nil || st.Mode().Perm() != 0o644 {
			t.Errorf("%s has changed the target to %v (%v)", name, st.Mode(), err)
		}
		if err := change(place{borrowed, "target"}, 0o600); err != nil {
			t.Errorf("%s of a file: %v", name, err)
		}
		if err := change(place{borrowed, ""}, 0o700); err != nil {
			t.Errorf("%s of an open directory: %v", name, err)
		}
		os.Chmod(dir+"/target", 0o644)
	}
}
