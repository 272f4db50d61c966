package layers

import (
	"hash/maphash"
	"sort"

	"golang.org/x/sys/unix"
)

// Entry is one name of a merged directory. V is what the user of the listing keeps with it.
type Entry[V any] struct {
	Name   string
	Value  V
	Ino    uint64 // inode number in the layer of the top place, as its directory gives it
	Cookie uint64 // position in the listing: grows with each name added, and stays with it
	Place  int32  // topmost place that has the name: an index of the directory's places, or InUpper
	Type   uint8  // DT_*
	Covers bool   // of an entry InUpper: a lower place has the name too, so that removing it needs a whiteout

	gone   bool // removed
	merged mergeState
}

// mergeState is what a merge knows of an entry while it goes down the places.
type mergeState uint8

const (
	ended mergeState = 1 << iota // nothing below merges with it any more
	asked                        // a lower place has said whether it has the name: Covers holds
)

// InUpper is the Place of an entry that the upper layer holds.
const InUpper int32 = -1

// firstCookie leaves room for "." and "..".
const firstCookie = 3

// Listing is the names of a merged directory, in the order in which they were found, with an index by name. A cookie stays
// with its name for as long as the listing lives, whatever is added and removed, so that a reader who goes on from a
// cookie misses nothing and sees nothing twice; also a name that is replaced, or removed and soon made again, has its old
// one. It is not safe for concurrent use.
//
// The index is an open-addressing table of positions: it holds no pointers, so that a million names cost the garbage
// collector nothing.
type Listing[V any] struct {
	// More holds, for an entry's cookie, the further places below its top place that have the name as a directory too.
	More map[uint64][]int32

	entries []Entry[V]
	next    uint64
	live    int
	index   []int32 // position in entries + 1, 0 for empty; a power of two long
	seed    maphash.Seed
}

// NewListing returns an empty listing.
func NewListing[V any]() *Listing[V] {
	return &Listing[V]{next: firstCookie, seed: maphash.MakeSeed()}
}

// Len returns the number of names.
func (l *Listing[V]) Len() int { return l.live }

// Find returns the entry of a name, or nil. It is valid until the next Add.
func (l *Listing[V]) Find(name string) *Entry[V] {
	if e := l.find(name); e != nil && !e.gone {
		return e
	}
	return nil
}

// find is Find that also finds a name which was removed, if its place has not been given up yet.
func (l *Listing[V]) find(name string) *Entry[V] {
	if len(l.index) == 0 {
		return nil
	}
	mask := uint64(len(l.index) - 1)
	for i := maphash.String(l.seed, name) & mask; l.index[i] != 0; i = (i + 1) & mask {
		if e := &l.entries[l.index[i]-1]; e.Name == name {
			return e
		}
	}
	return nil
}

// Add adds an entry, whose name must not be there yet, gives it its cookie and returns it. It is valid until the next Add.
func (l *Listing[V]) Add(e Entry[V]) *Entry[V] {
	if old := l.find(e.Name); old != nil {
		e.Name, e.Cookie = old.Name, old.Cookie
		*old = e
		l.live++
		return old
	}
	if 4*(len(l.entries)+1) > 3*len(l.index) {
		l.rebuild()
	}
	e.Cookie = l.next
	l.next++
	l.entries = append(l.entries, e)
	l.live++
	l.insert(len(l.entries) - 1)
	return &l.entries[len(l.entries)-1]
}

func (l *Listing[V]) insert(pos int) {
	mask := uint64(len(l.index) - 1)
	i := maphash.String(l.seed, l.entries[pos].Name) & mask
	for l.index[i] != 0 {
		i = (i + 1) & mask
	}
	l.index[i] = int32(pos + 1)
}

// rebuild leaves out the removed entries and makes the index large enough for half as many names again.
func (l *Listing[V]) rebuild() {
	if l.live < len(l.entries) {
		kept := make([]Entry[V], 0, l.live+1)
		for _, e := range l.entries {
			if !e.gone {
				kept = append(kept, e)
			}
		}
		l.entries = kept
	}
	size := 8
	for 2*size < 4*(l.live+1) {
		size *= 2
	}
	l.index = make([]int32, size)
	for i := range l.entries {
		l.insert(i)
	}
}

// CopiedUp makes an entry one of the upper layer, over the place that had it: what was merged with that still is.
func (l *Listing[V]) CopiedUp(e *Entry[V], ino uint64) {
	if e.Place == InUpper {
		return
	}
	if e.Type == unix.DT_DIR {
		if l.More == nil {
			l.More = make(map[uint64][]int32)
		}
		l.More[e.Cookie] = append([]int32{e.Place}, l.More[e.Cookie]...)
	}
	e.Place, e.Ino, e.Covers = InUpper, ino, true
}

// Remove takes a name out. Its cookie still is a place to go on from.
func (l *Listing[V]) Remove(name string) {
	if e := l.Find(name); e != nil {
		var none V
		e.gone, e.Value = true, none
		delete(l.More, e.Cookie)
		l.live--
	}
}

// After returns the first entry with a cookie beyond the given one, or nil.
func (l *Listing[V]) After(cookie uint64) *Entry[V] {
	i := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].Cookie > cookie })
	for ; i < len(l.entries); i++ {
		if !l.entries[i].gone {
			return &l.entries[i]
		}
	}
	return nil
}

// All calls f for each entry in order until it returns false.
func (l *Listing[V]) All(f func(*Entry[V]) bool) {
	for i := range l.entries {
		if !l.entries[i].gone && !f(&l.entries[i]) {
			return
		}
	}
}

// Seal gives back the memory that was set aside for more names.
func (l *Listing[V]) Seal() {
	if l.live < len(l.entries) || cap(l.entries) > len(l.entries)+len(l.entries)/8 {
		kept := make([]Entry[V], 0, l.live)
		for _, e := range l.entries {
			if !e.gone {
				kept = append(kept, e)
			}
		}
		l.entries = kept
		l.rebuild()
	}
}
