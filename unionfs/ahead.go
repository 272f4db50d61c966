package unionfs

import (
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

const (
	// mergesAhead is how many directories are merged at once before they are asked for.
	mergesAhead = 2
	// farthestMerge is how many directories before the walk they may be.
	farthestMerge = 8
	// mostAhead is how much of a directory is looked up ahead.
	mostAhead = 256
	// farthestAhead is how many names are gone through to find the next directory.
	farthestAhead = 64
)

// mergeAhead sees to it that the directories which a walk will list next are merged, while the one that it lists now is answered
// and gone through; of a walk that asks for attributes too, what they hold is looked up as well. A walk lists the directories of
// a directory in the order in which they stand in it; that it has listed two so is taken for one. The work ahead keeps close to
// it, so that a guess costs little.
func (f *FS) mergeAhead(n *node, attributes bool) {
	f.tree.Lock()
	defer f.tree.Unlock()
	if n.parent == nil || n.parent.dir.listing == nil {
		return
	}
	d := n.parent.dir
	e := d.listing.Find(n.name)
	if e == nil {
		return
	}
	guessed := d.guess == n
	d.listed = e.Cookie
	d.guess = valueOf(nextDirectory(d.listing, e.Cookie))
	for guessed && f.merging < mergesAhead {
		next := d.nextMergeLocked()
		if next == nil {
			return
		}
		f.merging++
		go f.mergeWalk(d, next, attributes)
	}
}

// mergeWalk merges directories of d, from next on, for as long as there is something to merge.
func (f *FS) mergeWalk(d *directory, next *node, attributes bool) {
	defer f.survive()
	for next != nil {
		if f.list(next) == nil && attributes { // who asks for the directory gets the error
			f.lookUpAhead(next)
		}
		f.tree.Lock()
		if next = d.nextMergeLocked(); next == nil {
			f.merging--
		}
		f.tree.Unlock()
	}
}

// nextMergeLocked returns the next directory that is to be merged ahead, as it has not been yet. The caller holds FS.tree.
func (d *directory) nextMergeLocked() *node {
	e := nextDirectory(d.listing, d.listed)
	for i := 0; i < farthestMerge && e != nil; i++ {
		if n := valueOf(e); n != nil && n.dir.listing == nil && !n.dir.ahead && len(n.dir.places) > 1 {
			n.dir.ahead = true
			return n
		}
		e = nextDirectory(d.listing, e.Cookie)
	}
	return nil
}

// survive keeps a panic in work beside the requests from ending the server: what was to be done is done when it is asked for.
func (f *FS) survive() {
	if v := recover(); v != nil {
		f.log.Error("work beside the requests panicked", "panic", v, "stack", string(debug.Stack()))
	}
}

// lookedUp is what of a directory was looked up before it was asked for: nodes, each with a look-up counted, and the attributes of
// their topmost inodes, which belong to a lower layer.
type lookedUp map[*node]*unix.Statx_t

// lookUpAhead looks up what a directory holds, as far as that comes from lower layers and does not change.
func (f *FS) lookUpAhead(n *node) {
	names := f.lowerNames(n, mostAhead)
	f.makeRoomAhead(n, len(names))
	stats := make([]unix.Statx_t, len(names))
	for i, name := range names {
		child, err := f.childStat(n, name, &stats[i])
		if err != nil {
			continue
		}
		f.tree.Lock()
		ahead := n.dir.lookedUp
		fresh := ahead != nil && ahead[child] == nil && stats[i].Mask != 0
		if fresh {
			ahead[child] = &stats[i]
		}
		f.tree.Unlock()
		if !fresh { // it has been listed meanwhile
			f.Forget(child.id, 1)
		}
		if ahead == nil {
			return
		}
	}
}

// makeRoomAhead prepares for looking up what a directory holds. Of a few directories alone is it kept.
func (f *FS) makeRoomAhead(n *node, size int) {
	f.tree.Lock()
	n.dir.lookedUp = make(lookedUp, size)
	f.lookedUp = append(f.lookedUp, n)
	var oldest *node
	if len(f.lookedUp) > farthestMerge+mergesAhead {
		oldest, f.lookedUp = f.lookedUp[0], f.lookedUp[1:]
	}
	f.tree.Unlock()
	if oldest != nil {
		f.dropLookedUp(oldest)
	}
}

// dropLookedUp lets go of what was looked up of a directory, when it has been listed, something of it is copied up, or nobody
// seems to list it.
func (f *FS) dropLookedUp(n *node) {
	f.tree.RLock()
	empty := n.dir.lookedUp == nil
	f.tree.RUnlock()
	if empty {
		return
	}
	f.tree.Lock()
	ahead := n.dir.lookedUp
	n.dir.lookedUp = nil
	f.tree.Unlock()
	for child := range ahead {
		f.Forget(child.id, 1)
	}
}

// lowerNames returns the first names of a directory that are in no upper layer.
func (f *FS) lowerNames(n *node, most int) (names []string) {
	f.tree.RLock()
	defer f.tree.RUnlock()
	n.dir.listing.All(func(e *layers.Entry[*node]) bool {
		if e.Place != layers.InUpper {
			names = append(names, e.Name)
		}
		return len(names) < most
	})
	return names
}

// nextDirectory returns the first directory after a cookie, if it comes soon.
func nextDirectory(l *layers.Listing[*node], cookie uint64) *layers.Entry[*node] {
	for range farthestAhead {
		e := l.After(cookie)
		if e == nil || e.Type == unix.DT_DIR {
			return e
		}
		cookie = e.Cookie
	}
	return nil
}

// valueOf is the node of a directory's entry, as far as the kernel knows it.
func valueOf(e *layers.Entry[*node]) *node {
	if e == nil || e.Value == nil || e.Value.dir == nil {
		return nil
	}
	return e.Value
}

const (
	// costlyPlaces is in how many layers a directory has to be for its look-up to be worth sharing out, and costlyLookups in how
	// many those of a listing have to be together: each takes a system call, and waking a processor takes as long as some 50.
	costlyPlaces  = 8
	costlyLookups = 512
	// direntPlus is what an entry takes in an answer besides its name, in bytes (struct fuse_direntplus).
	direntPlus = 152
)

// lookUpBeside begins to look up those directories after an offset that are in many layers, as many as an answer of a size takes,
// while the caller lists them: from the last one on until the two meet. The caller calls what it returns when it is done.
func (f *FS) lookUpBeside(parent *node, offset uint64, size uint32) (done func()) {
	names := f.costly(parent, offset, int(size))
	if names == nil {
		return func() {}
	}
	var nodes []*node
	var beside sync.WaitGroup
	var enough atomic.Bool
	beside.Go(func() {
		defer f.survive()
		for _, name := range slices.Backward(names) {
			if enough.Load() || f.isKnown(parent, name) {
				return
			}
			if n, err := f.child(parent, name); err == nil {
				nodes = append(nodes, n)
			}
		}
	})
	return func() {
		enough.Store(true)
		beside.Wait()
		for _, n := range nodes {
			f.Forget(n.id, 1)
		}
	}
}

// costly returns the names of the directories after an offset that take many system calls to look up, or nil where these are few.
func (f *FS) costly(parent *node, offset uint64, size int) (names []string) {
	f.tree.RLock()
	defer f.tree.RUnlock()
	l, total := parent.dir.listing, 0
	for e := l.After(offset); e != nil && size > 0; e = l.After(e.Cookie) {
		size -= direntPlus + len(e.Name)
		if places := 1 + len(l.More[e.Cookie]); e.Value == nil && e.Place != layers.InUpper && places >= costlyPlaces {
			names = append(names, e.Name)
			total += places
		}
	}
	if total < costlyLookups {
		return nil
	}
	return names
}

// isKnown reports whether the kernel knows, or is being told, what a name is.
func (f *FS) isKnown(parent *node, name string) bool {
	f.tree.RLock()
	defer f.tree.RUnlock()
	e := parent.dir.listing.Find(name)
	return e == nil || e.Value != nil
}
