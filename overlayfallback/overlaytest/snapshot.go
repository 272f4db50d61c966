package overlaytest

import (
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Snapshot is a whole tree as programs see it, by path relative to its root ("." is the root).
type Snapshot map[string]Node

// Snap records the tree at root. It goes by descriptors, so paths longer than PATH_MAX are no obstacle. Errors that the tree
// itself gives are part of the record; the error returned is about root alone.
func Snap(root string, clock Clock) (Snapshot, error) {
	return snap(root, walk{clock: clock, mask: unix.STATX_ALL | unix.STATX_BTIME})
}

// SnapRemembered is Snap by what the kernel remembers of the tree, without the access times and the times of birth, for which it would
// ask a FUSE server anew.
func SnapRemembered(root string) (Snapshot, error) {
	return snap(root, walk{mask: rememberedMask})
}

// SnapAnew is SnapRemembered by what a FUSE server says when it is asked for each file.
func SnapAnew(root string) (Snapshot, error) {
	return snap(root, walk{mask: rememberedMask, flags: unix.AT_STATX_FORCE_SYNC})
}

const rememberedMask = unix.STATX_BASIC_STATS &^ unix.STATX_ATIME

// snap records the tree in the way that w says.
func snap(root string, w walk) (Snapshot, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", root, err)
	}
	defer unix.Close(fd)
	w.tree, w.first = Snapshot{}, map[inode]string{}
	w.root(fd)
	return w.tree, nil
}

// inode identifies a file within one snapshot.
type inode struct {
	major, minor uint32
	ino          uint64
}

// walk is a snapshot in the making.
type walk struct {
	clock Clock
	mask  int // the fields asked of statx(2)
	flags int // its flags
	tree  Snapshot
	first map[inode]string // the first path seen of each inode
}

// root records the root directory and all below it.
func (w *walk) root(fd int) {
	n := Node{}
	w.tree["."] = n
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|w.flags, w.mask, &st); err != nil {
		n.fail("stat", err)
		return
	}
	n.setStat(&st, w.clock)
	n.setXattrs(fmt.Sprintf("/proc/self/fd/%d/.", fd))
	w.list(fd, ".", n, st.Ino)
}

// list records the entries of the open directory fd, whose node is n. Entries go in the order of their names, so that the
// first path of an inode is the same in every snapshot of the tree.
func (w *walk) list(fd int, dir string, n Node, ino uint64) {
	entries, err := ReadDir(fd)
	if err != nil {
		n.fail("readdir", err)
	}
	slices.SortFunc(entries, func(a, b Dirent) int { return strings.Compare(a.Name, b.Name) })
	for i, e := range entries {
		switch {
		case i > 0 && entries[i-1].Name == e.Name:
			n["twice "+e.Name] = "yes"
		case e.Name == ".":
			n["d_ino ."] = sameness(e.Ino == ino)
		case e.Name == "..":
			n["dotdot"] = "yes"
		default:
			w.entry(fd, path.Join(dir, e.Name), e)
		}
	}
}

// entry records one name of the directory fd.
func (w *walk) entry(fd int, p string, e Dirent) {
	n := Node{"d_type": typeNames[uint32(e.Type)<<12]}
	w.tree[p] = n
	var st unix.Statx_t
	if err := unix.Statx(fd, e.Name, unix.AT_SYMLINK_NOFOLLOW|w.flags, w.mask, &st); err != nil {
		n.fail("stat", err)
		return
	}
	n.setStat(&st, w.clock)
	n["d_ino"] = sameness(e.Ino == st.Ino)
	key := inode{st.Dev_major, st.Dev_minor, st.Ino}
	if _, seen := w.first[key]; !seen {
		w.first[key] = p
	}
	n["inode"] = w.first[key]
	n.setXattrs(fmt.Sprintf("/proc/self/fd/%d/%s", fd, e.Name))
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFDIR:
		w.dir(fd, p, e.Name, n, st.Ino)
	case unix.S_IFREG:
		n.setData(fd, e.Name)
	case unix.S_IFLNK:
		n.setTarget(fd, e.Name)
	}
}

// dir records what is below one directory.
func (w *walk) dir(parent int, p, name string, n Node, ino uint64) {
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		n.fail("opendir", err)
		return
	}
	defer unix.Close(fd)
	w.list(fd, p, n, ino)
}

// setData records the content of a regular file. Where there is no content to be had, it is the same whether the open said so
// or, as where opens send nothing, the first read.
func (n Node) setData(dir int, name string) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		n.fail("content", err)
		return
	}
	defer unix.Close(fd)
	data, err := readAll(fd)
	if err != nil {
		n.fail("content", err)
	}
	if err == nil || len(data) > 0 {
		n["data"] = text(data)
	}
}

// setTarget records what a symbolic link holds.
func (n Node) setTarget(dir int, name string) {
	buf := make([]byte, 2*unix.PathMax)
	k, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		n.fail("readlink", err)
		return
	}
	n["target"] = text(buf[:k])
}

// readAll reads the descriptor from its offset to its end.
func readAll(fd int) ([]byte, error) {
	var data []byte
	buf := make([]byte, 128<<10)
	for {
		n, err := unix.Read(fd, buf)
		if n <= 0 || err != nil {
			return data, err
		}
		data = append(data, buf[:n]...)
	}
}

func sameness(same bool) string {
	if same {
		return "as stat"
	}
	return "not as stat"
}

// Dirent is one entry as getdents64(2) gives it.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint8
}

// ReadDir reads the open directory from its offset to its end, "." and ".." included, in the order given.
func ReadDir(fd int) ([]Dirent, error) {
	var all []Dirent
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if n <= 0 || err != nil {
			return all, err
		}
		parsed, err := parseDirents(buf[:n])
		all = append(all, parsed...)
		if err != nil {
			return all, err
		}
	}
}

// parseDirents takes struct linux_dirent64 records apart: ino 8, off 8, reclen 2, type 1, name and a NUL.
func parseDirents(buf []byte) ([]Dirent, error) {
	var all []Dirent
	for len(buf) > 0 {
		if len(buf) < 20 {
			return all, io.ErrUnexpectedEOF
		}
		size := int(binary.NativeEndian.Uint16(buf[16:]))
		if size < 20 || size > len(buf) {
			return all, io.ErrUnexpectedEOF
		}
		name, _, _ := strings.Cut(string(buf[19:size]), "\x00")
		all = append(all, Dirent{Name: name, Ino: binary.NativeEndian.Uint64(buf), Type: buf[18]})
		buf = buf[size:]
	}
	return all, nil
}
