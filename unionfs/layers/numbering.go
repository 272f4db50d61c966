package layers

import (
	"sync"

	"golang.org/x/sys/unix"
)

// inodeBits is how many bits of an inode number are kept where layers lie on several file systems. The bits above hold the
// number of the file system, as overlayfs's xino does.
const inodeBits = 55

// numbering makes one space of inode numbers out of several file systems'. Where all layers lie on one, numbers are kept
// as they are, so that the union shows those that kernel overlayfs would.
type numbering struct {
	mu   sync.RWMutex
	devs map[uint64]uint64 // file systems, numbered in order of appearance; guarded by mu
}

// add returns the number of a file system, giving it one first.
func (n *numbering) add(dev uint64) uint64 {
	n.mu.RLock()
	i, ok := n.devs[dev]
	n.mu.RUnlock()
	if ok {
		return i
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if i, ok := n.devs[dev]; ok {
		return i
	}
	if n.devs == nil {
		n.devs = make(map[uint64]uint64)
	}
	i = uint64(len(n.devs))
	n.devs[dev] = i
	return i
}

// spread parts the inode numbers of file systems beyond those that the upper bits can tell, such as thousands of btrfs
// subvolumes: an odd number, so that each moves the numbers by another distance.
const spread = 0x9e3779b97f4a7c15

// Ino returns the inode number that the union shows for the inode of a file system.
func (s *Stack) Ino(dev, ino uint64) uint64 {
	fsid := s.nums.add(dev)
	if fsid == 0 {
		return ino
	}
	low := ino ^ ino>>inodeBits ^ fsid>>(64-inodeBits)*spread
	return low&(1<<inodeBits-1) | fsid<<inodeBits
}

// InoOf is Ino for what Stat returned.
func (s *Stack) InoOf(st *unix.Statx_t) uint64 {
	return s.Ino(unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino)
}

// SameFS reports whether all layers lie on one file system (ovl_same_dev).
func (s *Stack) SameFS() bool {
	s.nums.mu.RLock()
	defer s.nums.mu.RUnlock()
	return len(s.nums.devs) <= 1
}

// Dev returns the device number of the file system that a layer's root lies on.
func (l *Layer) Dev() uint64 { return l.dev }
