package unionfs

import (
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// farthestAhead is how many names are gone through to find the next directory.
const farthestAhead = 64

// mergeAhead merges the directory that a walk will list next, while the one that it lists now is answered and gone through. A
// walk lists the directories of a directory in the order in which they stand in it; that it has listed two so is taken for
// one. There is at most one merge ahead at a time, so that a guess costs little.
func (f *FS) mergeAhead(n *node) {
	next := f.guessNext(n)
	if next == nil || !f.merging.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer f.merging.Store(false)
		_ = f.list(next) // who asks for the directory gets the error
	}()
}

// guessNext returns the directory after n in their parent, if n was the one that was guessed before and there is something to
// merge.
func (f *FS) guessNext(n *node) *node {
	f.tree.Lock()
	defer f.tree.Unlock()
	if n.parent == nil || n.parent.dir.listing == nil {
		return nil
	}
	d := n.parent.dir
	guessed := d.guess == n
	e := d.listing.Find(n.name)
	if e == nil {
		return nil
	}
	d.guess = nextDirectory(d.listing, e.Cookie)
	if !guessed || d.guess == nil || d.guess.dir.listing != nil || len(d.guess.dir.places) < 2 {
		return nil
	}
	return d.guess
}

// nextDirectory returns the node of the first directory after a cookie, as far as the kernel knows it.
func nextDirectory(l *layers.Listing[*node], cookie uint64) *node {
	for range farthestAhead {
		e := l.After(cookie)
		if e == nil || e.Type == unix.DT_DIR {
			return valueOf(e)
		}
		cookie = e.Cookie
	}
	return nil
}

func valueOf(e *layers.Entry[*node]) *node {
	if e == nil || e.Value == nil || e.Value.dir == nil {
		return nil
	}
	return e.Value
}
