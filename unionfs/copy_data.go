package unionfs

import (
	"golang.org/x/sys/unix"
)

const (
	// copyChunk is how much is copied between two looks at whether the caller has been interrupted, in bytes.
	copyChunk = 8 << 20
	// smallRest is what is copied whole, without a look for holes in it, in bytes: the kernel copies 1 MiB so (ovl_copy_up_file).
	smallRest = 64 << 10
)

// copyData copies the first size bytes of a file into an empty one, or one of that size: by sharing the blocks where the
// file system can (FICLONE), else inside the kernel, else by reading and writing. Holes stay holes. It gives EINTR when
// cancel is closed.
func (f *FS) copyData(cancel <-chan struct{}, from, to int, size int64) error {
	if size == 0 {
		return nil
	}
	if cloned, err := f.upper.clone(from, to, size); cloned || err != nil {
		return err
	}
	c := dataCopy{cancel: cancel, from: from, to: to}
	for off := int64(0); off < size; {
		start, end, err := nextData(from, off, size)
		if err != nil {
			return err
		}
		if err := c.extent(start, end); err != nil {
			return err
		}
		off = end
	}
	if c.end == size {
		return nil
	}
	// What ends with a hole. One that has its size already keeps its time of modification, as nothing was written.
	var st unix.Stat_t
	if err := unix.Fstat(to, &st); err != nil || st.Size == size {
		return err
	}
	return unix.Ftruncate(to, size)
}

// clone has a file share its blocks with another of a size, where the upper layer's file system can. Where that cannot with
// files of its own, it is not asked again.
func (u *upperLayer) clone(from, to int, size int64) (bool, error) {
	if u.noClone.Load() {
		return false, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil || st.Size != size {
		return false, err
	}
	err := unix.IoctlFileClone(to, from)
	if err == unix.EOPNOTSUPP {
		u.noClone.Store(true)
	}
	return err == nil, nil
}

// nextData returns the first extent of data from off on, cut off at size; an empty one at size where only a hole follows.
func nextData(fd int, off, size int64) (start, end int64, err error) {
	start, err = unix.Seek(fd, off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return size, size, nil
	}
	if err != nil {
		return off, size, nil // the file system does not tell holes
	}
	if start >= size {
		return size, size, nil
	}
	if size-start <= smallRest {
		return start, size, nil
	}
	end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	return start, min(end, size), err
}

// dataCopy is the state of one copyData.
type dataCopy struct {
	cancel   <-chan struct{}
	from, to int
	end      int64  // of what was written last
	plain    bool   // copy_file_range does not work between the two
	buf      []byte // for plain copying
}

// extent copies the bytes from start to end.
func (c *dataCopy) extent(start, end int64) error {
	for off := start; off < end; {
		select {
		case <-c.cancel:
			return unix.EINTR
		default:
		}
		n, err := c.step(off, int(min(end-off, copyChunk)))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return nil // shorter than it said
		}
		off += int64(n)
		c.end = off
	}
	return nil
}

func (c *dataCopy) step(off int64, size int) (int, error) {
	if !c.plain {
		in, out := off, off
		n, err := unix.CopyFileRange(c.from, &in, c.to, &out, size, 0)
		switch err {
		case unix.EXDEV, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS, unix.EBADF:
			c.plain = true
		default:
			return n, err
		}
	}
	if c.buf == nil {
		c.buf = make([]byte, 1<<20)
	}
	n, err := unix.Pread(c.from, c.buf[:min(size, len(c.buf))], off)
	if err != nil || n == 0 {
		return n, err
	}
	return pwriteAll(c.to, c.buf[:n], off)
}
