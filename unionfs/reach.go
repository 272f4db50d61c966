package unionfs

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// How a node is reached in its layers. Names in the upper layer change under those who use them, so whoever reaches a node
// by a name there compares the inode number, and begins again where another file has taken the name: no lock is held while
// a file is opened.

// retries bounds how often a name that keeps changing is looked for again.
const retries = 1000

// upperDir returns the open upper directory of a directory, or nil where it has none.
func (f *FS) upperDir(n *node) (*layers.File, error) {
	for range retries {
		ino := n.upper.Load() // another one once its whiteouts are cleared
		if ino == 0 {
			return nil, nil
		}
		key := layers.Key{Ino: ino}
		if file := f.stack.Cache.Get(key); file != nil {
			return file, nil
		}
		path, ok := n.path(f)
		if !ok {
			return nil, unix.ENOENT
		}
		fd, err := f.upper.openDir(path)
		if err == nil {
			var st unix.Stat_t
			if err = unix.Fstat(fd, &st); err == nil && st.Ino == ino {
				return f.stack.Cache.Put(key, fd, true), nil
			}
			unix.Close(fd)
		} else if err != unix.ENOENT && err != unix.ENOTDIR {
			return nil, err
		}
		runtime.Gosched()
	}
	return nil, unix.ESTALE
}

// place is where an inode is: a name in an open directory, or with an empty name the open file itself.
type place struct {
	*layers.File
	name string
}

// openPlace opens the regular file that is at a place.
func openPlace(p place, flags int) (int, error) {
	if p.name == "" {
		return unix.Open(procName(p), flags|unix.O_CLOEXEC, 0)
	}
	return layers.OpenFile(p.File, p.name, flags)
}

// upperPlace returns where a node is in the upper layer.
func (f *FS) upperPlace(n *node) (place, error) {
	f.tree.RLock()
	parent, name := n.parent, n.name
	var k kept
	index := ""
	if n.ext != nil {
		k, index = n.ext.kept, n.ext.index
	}
	f.tree.RUnlock()
	if k.name != "" {
		return place{layers.Borrow(f.upper.work), k.name}, nil
	}
	if index != "" && k.file == nil {
		return place{layers.Borrow(f.upper.index), index}, nil
	}
	if k.file != nil && n.dir == nil {
		if file := f.stack.Cache.Get(pinKey(n)); file != nil {
			return place{file, ""}, nil
		}
	}
	if n.dir != nil {
		dir, err := f.upperDir(n)
		return place{dir, ""}, err
	}
	if n.kind == unix.S_IFREG {
		// Its open data, if that is the upper file's: the descriptor cannot become another file.
		if file := f.stack.Cache.Get(dataKey(n, true)); file != nil {
			if file.Writable {
				return place{file, ""}, nil
			}
			file.Release()
		}
	}
	if parent == nil {
		return place{}, unix.ENOENT
	}
	dir, err := f.upperDir(parent)
	if err == nil && dir == nil {
		err = unix.ENOENT
	}
	return place{dir, name}, err
}

// lowerPlace returns where a node's topmost lower inode is.
func (f *FS) lowerPlace(n *node) (place, error) {
	if n.dir != nil {
		dir, err := f.stack.OpenDir(n.dir.places[0])
		return place{dir, ""}, err
	}
	dir, err := f.stack.OpenDir(*n.lower)
	return place{dir, n.lowerName}, err
}

// real calls do with the place of a node's topmost inode. For one in the upper layer do returns the inode number that it
// met; where that is another's, because the name changed hands, it is called again.
func (f *FS) real(n *node, do func(place) (ino uint64, err error)) error {
	for range retries {
		ino := n.upper.Load()
		find := f.lowerPlace
		if ino != 0 {
			find = f.upperPlace
		}
		p, err := find(n)
		if err != nil {
			if ino != 0 && err == unix.ENOENT {
				runtime.Gosched()
				continue
			}
			return err
		}
		met, err := do(p)
		p.Release()
		if ino == 0 || err == nil && met == ino {
			return err
		}
		if err != nil && err != unix.ENOENT {
			return err
		}
		runtime.Gosched()
	}
	return unix.ESTALE
}

// statReal returns the attributes of the topmost inode as its layer has them.
func (f *FS) statReal(n *node, st *unix.Statx_t) error {
	return f.real(n, func(p place) (uint64, error) {
		err := layers.Stat(p.File, p.name, st)
		return st.Ino, err
	})
}

// statLower returns the attributes of the topmost lower inode.
func (f *FS) statLower(n *node, st *unix.Statx_t) error {
	p, err := f.lowerPlace(n)
	if err != nil {
		return err
	}
	defer p.Release()
	return layers.Stat(p.File, p.name, st)
}

// dataKey is the cache key of a node's data: of the upper file, or of a lower one. There are two, so that who opens the lower
// file just when it is copied up does not leave it where others look for the copy.
func dataKey(n *node, upper bool) layers.Key {
	key := layers.Key{Ino: n.id, File: true}
	if !upper {
		key.Layer = 1
	}
	return key
}

// data returns a node's open data, to be released by the caller: of the upper file for reading and writing, of a lower
// one for reading. ESTALE means that its layer does not hold it any more.
func (f *FS) data(n *node) (*layers.File, error) {
	if n.kind != unix.S_IFREG {
		return nil, unix.EINVAL
	}
	for range retries {
		state := f.dataState(n)
		key := dataKey(n, state.upper != 0)
		if file := f.stack.Cache.Get(key); file != nil {
			return file, nil
		}
		file, err := f.openData(n, state)
		if err == nil && f.dataState(n) == state {
			return file, nil
		}
		if err == nil {
			// It was copied up meanwhile: what was opened is out of date.
			file.Release()
			f.stack.Cache.Drop(key)
		} else if state.upper == 0 || err != unix.ENOENT && err != unix.ELOOP && err != unix.ENXIO {
			return nil, err
		}
		runtime.Gosched()
	}
	return nil, unix.ESTALE
}

// direct exchanges a file's open data for the same opened with O_DIRECT, where its file system offers that. So what a program
// reads and writes past the page cache is read and written so in the layer, under that file system's rules of alignment.
func (f *FS) direct(file *layers.File) *layers.File {
	key := file.DirectKey()
	direct := f.stack.Cache.Get(key)
	if direct == nil {
		flags, err := unix.FcntlInt(uintptr(file.FD), unix.F_GETFL, 0)
		if err != nil {
			return file
		}
		const kept = unix.O_ACCMODE | unix.O_NOATIME
		fd, err := unix.Open(procName(place{file, ""}), flags&kept|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err != nil {
			return file
		}
		direct = f.stack.Cache.Put(key, fd, file.Writable)
	}
	file.Release()
	return direct
}

// dataToWrite is data, for who is going to change a file that is in the upper layer. One that could only be opened for reading
// is tried again: its file system may allow it by now, and says why where it does not.
func (f *FS) dataToWrite(n *node) (*layers.File, error) {
	file, err := f.data(n)
	if err != nil || file.Writable {
		return file, err
	}
	file.Release()
	p, err := f.upperPlace(n)
	if err != nil {
		return nil, err
	}
	defer p.Release()
	fd, err := openPlace(p, unix.O_RDWR)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != n.upper.Load() {
		unix.Close(fd)
		return nil, unix.ESTALE // the name is another file's by now
	}
	f.stack.Cache.Drop(dataKey(n, true))
	return f.stack.Cache.Put(dataKey(n, true), fd, true), nil
}

// dataState says where a node's data is: in the upper inode, or in a file of a lower layer.
type dataState struct {
	upper uint64
	lower *layers.Place
	name  string
}

func (f *FS) dataState(n *node) dataState {
	f.tree.RLock()
	defer f.tree.RUnlock()
	if n.ext != nil && n.ext.metacopy {
		return dataState{lower: n.ext.data, name: n.ext.dataName}
	}
	if ino := n.upper.Load(); ino != 0 {
		return dataState{upper: ino}
	}
	return dataState{lower: n.lower, name: n.lowerName}
}

// openData opens data and puts it into the cache.
func (f *FS) openData(n *node, s dataState) (*layers.File, error) {
	if s.upper != 0 {
		return f.openUpperData(n, s.upper)
	}
	if s.lower == nil {
		return nil, unix.ENOENT // a metacopy file without data (ovl_verify_lowerdata)
	}
	dir, err := f.stack.OpenDir(*s.lower)
	if err != nil {
		return nil, err
	}
	defer dir.Release()
	fd, err := layers.OpenFile(dir, s.name, unix.O_RDONLY|unix.O_NOATIME)
	if err != nil {
		return nil, err
	}
	return f.stack.Cache.Put(dataKey(n, false), fd, false), nil
}

// openUpperData opens the upper file for writing too, where its file system lets it. It gives ENOENT where the name was
// another file's by the time it was opened.
func (f *FS) openUpperData(n *node, ino uint64) (*layers.File, error) {
	p, err := f.upperPlace(n)
	if err != nil {
		return nil, err
	}
	if p.name == "" {
		return p.File, nil // its pin, or somebody else has just opened it
	}
	defer p.Release()
	writable := true
	fd, err := layers.OpenFile(p.File, p.name, unix.O_RDWR)
	if err == unix.EROFS || err == unix.EACCES || err == unix.EPERM || err == unix.ETXTBSY {
		writable = false
		fd, err = layers.OpenFile(p.File, p.name, unix.O_RDONLY)
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != ino {
		unix.Close(fd)
		return nil, unix.ENOENT
	}
	return f.stack.Cache.Put(dataKey(n, true), fd, writable), nil
}
