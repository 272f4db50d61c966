package unionfs

import (
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// An upper inode that loses its last name while the kernel knows it may be open, and has to be reached until it is forgotten.
// It is kept open for that, which costs a descriptor, as long as there are not many such; beyond that it is given another name,
// in the work directory, which is removed again at the FORGET, when the union is closed, or with all that a crash leaves there
// at the next mount. A directory, which cannot be linked, and a file whose file system does not link it, are kept open always.

// kept is what keeps a nameless inode reachable: one of the two, or neither.
type kept struct {
	file *layers.File // the open inode (pinned)
	name string       // its name in the work directory (parked)
}

func (k kept) something() bool { return k != kept{} }

// links is an upper inode's link count without the name that the union itself has given it.
func (k kept) links(n uint32) uint32 {
	if k.name != "" && n > 0 {
		n--
	}
	return n
}

// keepBy notes how a node is kept.
func (f *FS) keepBy(n *node, k kept) {
	f.tree.Lock()
	defer f.tree.Unlock()
	n.extraLocked().kept = k
	f.keeping.Add(1)
	if k.file != nil {
		f.pins++
	}
}

// unkeepLocked takes back keepBy, and returns what the caller, who holds FS.tree, is to let go of by letGo once it has released that.
func (f *FS) unkeepLocked(n *node) kept {
	if n.ext == nil {
		return kept{}
	}
	k := n.ext.kept
	n.ext.kept = kept{}
	if k.file != nil {
		f.pins--
	}
	return k
}

// letGo gives back what has kept a node.
func (f *FS) letGo(n *node, k kept) {
	if k.file != nil {
		k.file.Release()
		f.stack.Cache.Drop(pinKey(n))
	}
	if k.name != "" {
		f.discard(k.name)
	}
	if k.something() {
		f.madeRoom()
		f.keeping.Add(-1)
	}
}

func (f *FS) isKept(n *node) bool {
	f.tree.RLock()
	defer f.tree.RUnlock()
	return n.ext != nil && n.ext.kept.something()
}

// upperLinks is kept.links for an upper inode that is in the index.
func (f *FS) upperLinks(n *node, links uint32) uint32 {
	f.tree.RLock()
	defer f.tree.RUnlock()
	return n.ext.kept.links(links)
}

// pinsSpent reports whether as many inodes are kept open as may be.
func (f *FS) pinsSpent() bool {
	f.tree.RLock()
	defer f.tree.RUnlock()
	return f.pins >= f.maxPins
}

// keep holds on to an upper inode that is about to lose the last name by which it is reached, while the kernel still
// knows it: it may be open. The caller holds the node's lock.
func (f *FS) keep(n *node) error {
	f.tree.RLock()
	known := n.lookups > 1 // one is our own
	only := n.ext == nil || len(n.ext.links) == 0
	keeping := n.ext != nil && n.ext.kept.something()
	f.tree.RUnlock()
	if n.upper.Load() == 0 || !known || !only || keeping {
		return nil
	}
	p, err := f.upperPlace(n)
	if err != nil {
		return err
	}
	defer p.Release()
	return f.hold(n, p)
}

// hold keeps the inode at a place: parked, or else pinned.
func (f *FS) hold(n *node, p place) error {
	if n.dir == nil && f.pinsSpent() {
		temp := f.upper.temp()
		if linkat(p, f.upper.work, temp) == nil {
			f.keepBy(n, kept{name: temp})
			return nil
		}
	}
	file, err := f.openPin(p, n)
	if err == nil {
		f.keepBy(n, kept{file: file})
	}
	return err
}

// keepOpen keeps a regular file that has no name, by a descriptor for reading and writing that it takes over.
func (f *FS) keepOpen(n *node, fd int) error {
	file := f.stack.Cache.Put(dataKey(n, true), fd, true)
	defer file.Release()
	return f.hold(n, place{file, ""})
}

// keepTemp keeps what was built under a name of the work directory and will get no other.
func (f *FS) keepTemp(n *node, temp string) error {
	k := kept{name: temp}
	if n.dir != nil || !f.pinsSpent() {
		file, err := f.openPin(place{layers.Borrow(f.upper.work), temp}, n)
		if err != nil {
			return err
		}
		if err := removeAll(f.upper.work, temp); err != nil {
			file.Release()
			return err
		}
		k = kept{file: file}
	}
	f.keepBy(n, k)
	return nil
}

// letGoNamed undoes keep where the inode has a name still, because removing it failed.
func (f *FS) letGoNamed(n *node) {
	f.tree.Lock()
	var k kept
	if n.parent != nil {
		k = f.unkeepLocked(n)
	}
	f.tree.Unlock()
	f.letGo(n, k)
}

// removeParked takes the names of all that is parked out of the work directory, when serving has ended and no node is used
// any more: the kernel forgets nothing one by one when it unmounts.
func (f *FS) removeParked() {
	for _, n := range f.nodes {
		if n.ext != nil && n.ext.kept.name != "" {
			f.discard(n.ext.kept.name)
		}
	}
}

// pinKey is the cache key under which a node's inode is kept open.
func pinKey(n *node) layers.Key { return layers.Key{Ino: n.id, Path: "pin", File: true} }

// openPin opens an upper inode for as long as its node lives.
func (f *FS) openPin(p place, n *node) (*layers.File, error) {
	if n.dir != nil {
		return f.openDirPin(p, n)
	}
	if p.name == "" {
		if file := f.stack.Cache.Get(dataKey(n, true)); file != nil {
			return file, nil // its data is open anyway
		}
		return nil, unix.ESTALE
	}
	if n.kind == unix.S_IFREG {
		for _, flags := range []int{unix.O_RDWR, unix.O_RDONLY} {
			if fd, err := layers.OpenFile(p.File, p.name, flags); err == nil {
				return f.stack.Cache.Put(pinKey(n), fd, flags == unix.O_RDWR), nil
			}
		}
	}
	fd, err := unix.Openat(p.FD, p.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return f.stack.Cache.Put(pinKey(n), fd, false), nil
}

// openDirPin opens the upper directory of a node, or one that is about to be that.
func (f *FS) openDirPin(p place, n *node) (*layers.File, error) {
	if n.upper.Load() != 0 {
		return f.upperDir(n)
	}
	fd, err := layers.OpenBeneath(p.FD, p.name)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return f.stack.Cache.Put(layers.Key{Ino: st.Ino}, fd, true), nil
}
