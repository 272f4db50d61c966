package whiteout_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
	"golang.org/x/sys/unix"
)

const ns = whiteout.Trusted

// recoders has, for each xattr that the kernel writes, what reads a value and writes it again.
func recoders(ns whiteout.Namespace) map[string]func([]byte) ([]byte, error) {
	origin := func(v []byte) ([]byte, error) { o, err := whiteout.ParseOrigin(v); return o.Bytes(), err }
	return map[string]func([]byte) ([]byte, error){
		ns.Opaque(): func(v []byte) ([]byte, error) { return whiteout.ParseOpaque(v).Bytes(), nil },
		ns.Impure(): func(v []byte) ([]byte, error) {
			if whiteout.ParseImpure(v) {
				return []byte(whiteout.ImpureValue), nil
			}
			return nil, nil
		},
		ns.Redirect(): func(v []byte) ([]byte, error) { r, err := whiteout.ParseRedirect(v); return []byte(r.String()), err },
		ns.Metacopy(): func(v []byte) ([]byte, error) { m, err := whiteout.ParseMetacopy(v); return m.Bytes(), err },
		ns.Origin():   origin,
		ns.Upper():    origin,
		ns.Nlink():    func(v []byte) ([]byte, error) { n, err := whiteout.ParseNlink(v); return []byte(n.String()), err },
		ns.Protattr(): func(v []byte) ([]byte, error) { p, err := whiteout.ParseProtection(v); return []byte(p.String()), err },
		ns.UUID():     func(v []byte) ([]byte, error) { return v, nil },
	}
}

// TestKernelWrites makes the kernel write each of its formats, and reads them all.
func TestKernelWrites(t *testing.T) {
	u := newUnion(t)
	for _, name := range []string{"gone", "remade/old", "near/a", "far/a", "meta", "moved", "locked", "parent/child", "linked"} {
		write(t, u.inLower(name), strings.Repeat("data of "+name, 100))
	}
	check(t, os.Link(u.inLower("linked"), u.inLower("parent/link")))
	u.remount("redirect_dir=on", "metacopy=on", "index=on", "nfs_export=off", "uuid=on")

	check(t, os.Remove(u.inMount("gone")))
	check(t, os.RemoveAll(u.inMount("remade")))
	check(t, os.Mkdir(u.inMount("remade"), 0o755))
	check(t, os.Rename(u.inMount("near"), u.inMount("nearby")))
	check(t, os.Rename(u.inMount("far"), u.inMount("parent/away")))
	check(t, os.Chmod(u.inMount("meta"), 0o600))
	check(t, os.Chmod(u.inMount("moved"), 0o600))
	check(t, os.Rename(u.inMount("moved"), u.inMount("parent/moved")))
	check(t, os.Chmod(u.inMount("linked"), 0o600))
	check(t, os.Link(u.inMount("linked"), u.inMount("linked2")))
	setFlags(t, u.inMount("locked"), appendFlag|immutableFlag)
	t.Cleanup(func() { setFlags(t, u.inMount("locked"), 0) })
	unix.Sync()

	st := lstat(t, u.inUpper("gone"))
	if !whiteout.IsDevice(st.Mode, st.Rdev) {
		t.Errorf("removed file: mode %#o, rdev %#x are not read as a whiteout", st.Mode, st.Rdev)
	}
	seen := recodeAll(t, ns, u.upper)
	for name := range recoders(ns) {
		if seen[name] == 0 && name != ns.Upper() {
			t.Errorf("the kernel wrote no %s: the test does not test it", name)
		}
	}
	for path, want := range map[string]whiteout.Redirect{
		"nearby":       {Path: "near"},
		"parent/away":  {Absolute: true, Path: "far"},
		"parent/moved": {Absolute: true, Path: "moved"},
	} {
		if got, err := whiteout.ParseRedirect(getXattr(t, u.inUpper(path), ns.Redirect())); got != want || err != nil {
			t.Errorf("redirect of %s: %+v, %v; want %+v", path, got, err, want)
		}
	}
	if got := whiteout.ParseOpaque(getXattr(t, u.inUpper("remade"), ns.Opaque())); got != whiteout.Opaque {
		t.Errorf("directory made again: %q, want opaque", got)
	}
}

// TestKernelWritesUser looks at what the kernel writes with the mount option userxattr, where redirects and metacopy are off.
func TestKernelWritesUser(t *testing.T) {
	u := newUnion(t)
	write(t, u.inLower("remade/old"), "content")
	write(t, u.inLower("dir/file"), "content")
	u.remount("userxattr", "index=on")
	check(t, os.RemoveAll(u.inMount("remade")))
	check(t, os.Mkdir(u.inMount("remade"), 0o755))
	check(t, os.Chmod(u.inMount("dir/file"), 0o600))
	seen := recodeAll(t, whiteout.User, u.upper)
	for _, name := range []string{whiteout.User.Opaque(), whiteout.User.Origin(), whiteout.User.Impure()} {
		if seen[name] == 0 {
			t.Errorf("the kernel wrote no %s: the test does not test it", name)
		}
	}
	if seen := recodeAll(t, whiteout.Trusted, u.upper); len(seen) > 0 {
		t.Errorf("the kernel wrote in the other namespace: %v", seen)
	}
}

// recodeAll reads and writes again every xattr of the namespace below dir, and counts them by name.
func recodeAll(t *testing.T, ns whiteout.Namespace, dir string) map[string]int {
	t.Helper()
	seen, recode := map[string]int{}, recoders(ns)
	check(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, name := range listXattr(t, path) {
			if !ns.Private(name) {
				continue
			}
			value := getXattr(t, path, name)
			parse, known := recode[name]
			if !known {
				t.Errorf("%s: the kernel wrote an unknown xattr %s = %q", path, name, value)
				continue
			}
			if again, err := parse(value); err != nil || !bytes.Equal(again, value) {
				t.Errorf("%s: %s = %q is written again as %q, error %v", path, name, value, again, err)
			}
			seen[name]++
		}
		return nil
	}))
	return seen
}

// TestKernelOrigin builds origins and names of index entries from file handles, and finds the very same on the disk.
func TestKernelOrigin(t *testing.T) {
	u := newUnion(t)
	write(t, u.inLower("file"), "content")
	write(t, u.inLower("dir/file"), "content")
	check(t, os.Link(u.inLower("file"), u.inLower("link")))
	lower := map[string]unix.FileHandle{"file": handleOf(t, u.inLower("file")), "dir": handleOf(t, u.inLower("dir"))}
	u.remount("index=on", "nfs_export=on")
	check(t, os.Chmod(u.inMount("file"), 0o600))
	check(t, os.Chmod(u.inMount("dir"), 0o700))
	check(t, os.Chmod(u.inMount("dir/file"), 0o600))

	for name, handle := range lower {
		value := getXattr(t, u.inUpper(name), ns.Origin())
		stored, err := whiteout.ParseOrigin(value)
		check(t, err)
		built, err := whiteout.NewOrigin(stored.UUID, handle.Type(), handle.Bytes(), false)
		check(t, err)
		if !bytes.Equal(built.Bytes(), value) {
			t.Errorf("origin of %s: built %x, stored %x", name, built.Bytes(), value)
		}
		entry := u.top + "/work/index/" + built.IndexName()
		if _, err := os.Lstat(entry); err != nil {
			t.Errorf("index entry of %s: %v; there are: %s", name, err, names(t, u.top+"/work/index"))
		}
	}
	for _, name := range strings.Fields(names(t, u.top+"/work/index")) {
		if o, err := whiteout.ParseIndexName(name); err != nil || o.IndexName() != name {
			t.Errorf("index entry %s is written again as %s, error %v", name, o.IndexName(), err)
		}
	}
	if recodeAll(t, ns, u.top+"/work/index")[ns.Upper()] == 0 {
		t.Error("no directory in the index points to its upper directory")
	}
	upper, err := whiteout.ParseOrigin(getXattr(t, u.upper, ns.Origin()))
	if err != nil || upper.Flags != 0 {
		t.Errorf("origin of the upper root: %+v, %v", upper, err)
	}
}

// TestKernelFileHandle compares with what name_to_handle_at gives on a union that can be exported.
func TestKernelFileHandle(t *testing.T) {
	u := newUnion(t)
	write(t, u.inLower("file"), "content")
	real := handleOf(t, u.inLower("file"))
	u.remount("index=on", "nfs_export=on")
	handle := handleOf(t, u.inMount("file"))
	o, err := whiteout.ParseFileHandle(handle.Type(), handle.Bytes())
	check(t, err)
	if int32(o.FIDType) != real.Type() || !bytes.Equal(o.Handle, real.Bytes()) {
		t.Errorf("handle of the union's file holds type %d, %x; the lower file has type %d, %x", o.FIDType, o.Handle, real.Type(), real.Bytes())
	}
	if kind, again := o.FileHandle(); kind != handle.Type() || !bytes.Equal(again, handle.Bytes()) {
		t.Errorf("handle type %#x, %x is written again as %#x, %x", handle.Type(), handle.Bytes(), kind, again)
	}
}

func handleOf(t *testing.T, path string) unix.FileHandle {
	t.Helper()
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		t.Skipf("name_to_handle_at %s: %v: the file system has no file handles", path, err)
	}
	return h
}

const (
	appendFlag    = 0x20 // FS_APPEND_FL
	immutableFlag = 0x10 // FS_IMMUTABLE_FL
)

// setFlags sets the append-only and immutable flags of a file, and leaves its others.
func setFlags(t *testing.T, path string, flags int) {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	have, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	check(t, err)
	check(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, have&^(appendFlag|immutableFlag)|flags))
}
