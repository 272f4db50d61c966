package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// direntBuffer is what one getdents64 call may fill, in bytes: twice what glibc uses, as find and fts do.
const direntBuffer = 64 << 10

// walker lists a tree and stats every entry of it, as `find -newer` or `ls -lR` would, with no more than one getdents64
// for a buffer and one statx for an entry.
type walker struct {
	pace
	entries int
	buffers [][]byte // one for each level, reused by the directories of that level
}

// walk returns the number of entries below path, the root not counted.
func walk(ctx context.Context, path string) (int, error) {
	root, err := openRoot(path)
	if err != nil {
		return 0, err
	}
	defer unix.Close(root)
	w := walker{pace: pace{ctx: ctx}}
	err = w.directory(root, 0)
	return w.entries, err
}

func (w *walker) directory(fd, level int) error {
	if level == len(w.buffers) {
		w.buffers = append(w.buffers, make([]byte, direntBuffer))
	}
	buf := w.buffers[level]
	var below [][]byte
	for {
		n, err := call(unix.SYS_GETDENTS64, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
		if err != nil {
			return fmt.Errorf("getdents64: %w", err)
		}
		if n == 0 {
			break
		}
		if below, err = w.statAll(fd, buf[:n], below); err != nil {
			return err
		}
	}
	return w.descend(fd, level, below)
}

// The layout of struct linux_dirent64.
const (
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

// statAll stats each entry of a getdents64 buffer and appends the names of the directories among them to below.
func (w *walker) statAll(fd int, buf []byte, below [][]byte) ([][]byte, error) {
	var st unix.Statx_t
	for len(buf) > 0 {
		entry := buf[:binary.NativeEndian.Uint16(buf[direntReclen:])]
		buf = buf[len(entry):]
		name := entry[direntName:]
		if name[0] == '.' && (name[1] == 0 || name[1] == '.' && name[2] == 0) {
			continue
		}
		if err := rawStat(fd, &name[0], &st); err != nil {
			return nil, fmt.Errorf("statx %s: %w", unix.ByteSliceToString(name), err)
		}
		w.entries++
		if entry[direntType] == unix.DT_DIR {
			below = append(below, append([]byte(unix.ByteSliceToString(name)), 0))
		}
		if err := w.step(); err != nil {
			return nil, err
		}
	}
	return below, nil
}

func (w *walker) descend(fd, level int, names [][]byte) error {
	for _, name := range names {
		child, err := rawOpen(fd, &name[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", unix.ByteSliceToString(name), err)
		}
		err = w.directory(child, level+1)
		rawClose(child)
		if err != nil {
			return err
		}
	}
	return nil
}
