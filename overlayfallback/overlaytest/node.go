package overlaytest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Node is all that a program can see of one name, field by field. The fields are: type, mode, uid, gid, size, mtime, ctime,
// btime, nlink, rdev, inode (the first path with the same inode), d_type, d_ino, target, data, "xattr NAME", and "error CALL"
// for a call that failed.
type Node map[string]string

// fail records the errno of a failed call.
func (n Node) fail(call string, err error) { n["error "+call] = Errno(err) }

// Errno returns the name of the errno in err ("ENOENT"), "ok" for nil, or the error's text when there is no errno in it.
func Errno(err error) string {
	var e unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// Clock turns times into text. What happened at or after Since reads "now": two runs of a test cannot agree on such times,
// but they have to agree on which ones they are.
type Clock struct{ Since time.Time }

// Format returns the time as seconds.nanoseconds, or "now".
func (c Clock) Format(sec int64, nsec uint32) string {
	at := time.Unix(sec, int64(nsec))
	// A year of slack above, for times that a test sets into the far future.
	if !c.Since.IsZero() && !at.Before(c.Since) && at.Before(c.Since.Add(365*24*time.Hour)) {
		return "now"
	}
	return fmt.Sprintf("%d.%09d", sec, nsec)
}

var typeNames = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "symlink", unix.S_IFIFO: "fifo",
	unix.S_IFSOCK: "socket", unix.S_IFCHR: "char", unix.S_IFBLK: "block",
}

// setStat records the fields of a statx.
func (n Node) setStat(st *unix.Statx_t, clock Clock) {
	n["type"] = typeNames[uint32(st.Mode)&unix.S_IFMT]
	n["mode"] = fmt.Sprintf("%04o", st.Mode&0o7777)
	n["uid"], n["gid"] = fmt.Sprint(st.Uid), fmt.Sprint(st.Gid)
	n["size"] = fmt.Sprint(st.Size)
	n["nlink"] = fmt.Sprint(st.Nlink)
	n["rdev"] = fmt.Sprintf("%d:%d", st.Rdev_major, st.Rdev_minor)
	n["mtime"] = clock.Format(st.Mtime.Sec, st.Mtime.Nsec)
	n["ctime"] = clock.Format(st.Ctime.Sec, st.Ctime.Nsec)
	if st.Mask&unix.STATX_BTIME != 0 {
		n["btime"] = clock.Format(st.Btime.Sec, st.Btime.Nsec)
	}
}

// setXattrs records every xattr of the object at the path p, not following it.
func (n Node) setXattrs(p string) {
	names, err := ListXattrs(p)
	if err != nil {
		n.fail("listxattr", err)
		return
	}
	for _, name := range names {
		v, err := GetXattr(p, name)
		if err != nil {
			n.fail("getxattr "+name, err)
			continue
		}
		n["xattr "+name] = text(v)
	}
}

// ListXattrs returns the names of the xattrs of p itself.
func ListXattrs(p string) ([]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
}

// GetXattr returns an xattr of p itself.
func GetXattr(p, name string) ([]byte, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(p, name, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// text returns bytes in a form that a failure can print: quoted when short, else their length and hash.
func text(b []byte) string {
	if len(b) <= 48 {
		return fmt.Sprintf("%q", b)
	}
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%d bytes %x %q…", len(b), sum[:6], b[:16])
}
