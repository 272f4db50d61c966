package unionfs

import (
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// With index=on a lower file with several names is copied up into the work directory's index, under a name made of its
// handle, and each of its names that is changed becomes a hard link to that: so the names stay one file. How many names the
// file has in the union is kept in overlay.nlink, relative to the link count of the upper or of the lower inode.

// findIndexed finds the copy in the index of a lower file under another of its names.
func (f *FS) findIndexed(n *node, st *unix.Statx_t) error {
	if f.upper == nil || f.upper.index < 0 || n.dir != nil || st.Nlink < 2 {
		return nil
	}
	p, err := f.lowerPlace(n)
	if err != nil {
		return err
	}
	value := f.originOf(p, st)
	p.Release()
	origin, err := whiteout.ParseOrigin(value)
	if err != nil {
		return nil
	}
	f.findIndex(n, origin.IndexName())
	if n.upper.Load() == 0 {
		return nil
	}
	_, err = layers.GetxattrFD(f.upper.index, n.ext.index, f.stack.Namespace().Metacopy(), nil)
	switch {
	case err != nil:
		n.ext.metacopy = false
	case !n.ext.metacopy:
		n.ext.metacopy, n.ext.data, n.ext.dataName = true, n.lower, n.lowerName
	}
	return nil
}

// findIndex makes a node one that is in the index, if it is.
func (f *FS) findIndex(n *node, name string) {
	if f.upper.index < 0 {
		return
	}
	var st unix.Statx_t
	index := layers.Borrow(f.upper.index)
	if layers.Stat(index, name, &st) != nil || uint32(st.Mode)&unix.S_IFMT != n.kind {
		return
	}
	if upper := n.upper.Load(); upper != 0 && upper != st.Ino {
		return // a copy that lost its place there
	}
	if n.ext == nil {
		n.ext = &extension{}
	}
	n.ext.index = name
	n.upper.Store(st.Ino)
}

// intoIndex copies a lower file that has several names up before one of them goes: the index then counts the others
// (ovl_nlink_start).
func (f *FS) intoIndex(cancel <-chan struct{}, n *node) error {
	if !f.opts.Index || n.dir != nil || n.upper.Load() != 0 {
		return nil
	}
	var st unix.Statx_t
	if err := f.statLower(n, &st); err != nil || st.Nlink < 2 {
		return err
	}
	return f.copyUpMeta(cancel, n)
}

// setIndex prepares a copy for the index.
func (c *copyUp) setIndex(to place, origin []byte) error {
	o, err := whiteout.ParseOrigin(origin)
	if err != nil {
		return nil // without a handle it cannot be found again: the names part
	}
	c.index = o.IndexName()
	return c.f.storeLinks(to, whiteout.Nlink{})
}

func (f *FS) storeLinks(at place, n whiteout.Nlink) error {
	return layers.Setxattr(at.FD, at.name, f.stack.Namespace().Nlink(), []byte(n.String()), 0)
}

// indexedLinks puts in the number of names that an indexed file has in the union (ovl_get_nlink).
func (f *FS) indexedLinks(n *node, st *unix.Statx_t) error {
	links, err := f.unionLinks(n, st.Nlink)
	if err == nil {
		st.Nlink = links
	}
	return err
}

func (f *FS) unionLinks(n *node, upper uint32) (uint32, error) {
	p, err := f.upperPlace(n)
	if err != nil {
		return 0, err
	}
	defer p.Release()
	value, err := layers.ReadXattr(p.FD, p.name, f.stack.Namespace().Nlink())
	if err != nil {
		return upper, nil
	}
	diff, err := whiteout.ParseNlink(value)
	if err != nil {
		return upper, nil
	}
	base := int64(upper)
	if !diff.Upper {
		var st unix.Statx_t
		if err := f.statLower(n, &st); err != nil {
			return upper, nil
		}
		base = int64(st.Nlink)
	}
	return uint32(max(0, base+int64(diff.Diff))), nil
}

// beforeLinks makes the count of an indexed file's names relative to its upper inode, before names are added to that or
// taken from it. hidden is how many lower names a whiteout is about to hide.
func (f *FS) beforeLinks(n *node, hidden int32) error {
	if !f.isIndexed(n) {
		return nil
	}
	p, err := f.upperPlace(n)
	if err != nil {
		return err
	}
	defer p.Release()
	var st unix.Statx_t
	if err := layers.Stat(p.File, p.name, &st); err != nil {
		return err
	}
	upper := f.upperLinks(n, st.Nlink)
	links, err := f.unionLinks(n, upper)
	if err != nil {
		return err
	}
	return f.storeLinks(p, whiteout.Nlink{Upper: true, Diff: int32(links) - int32(upper) - hidden})
}

// restoreLinks takes back what beforeLinks has counted as hidden, where the name stays after all. It is the best that can be
// done: a count that cannot be written now keeps the file in the index for longer than it must.
func (f *FS) restoreLinks(n *node, hidden int32) {
	if hidden == 0 {
		return
	}
	if err := f.beforeLinks(n, -hidden); err != nil {
		f.log.Warn("the link count of an indexed file is wrong", "inode", n.ino.Load(), "error", err)
	}
}

// afterUnlink takes a file out of the index that has no name left in the union. The name has gone by then, which an error
// here does not change (ovl_cleanup_index).
func (f *FS) afterUnlink(n *node) {
	if !f.isIndexed(n) {
		return
	}
	if err := f.leaveIndex(n); err != nil {
		f.log.Warn("a file without names stays in the index", "inode", n.ino.Load(), "error", err)
	}
}

func (f *FS) leaveIndex(n *node) error {
	var st unix.Statx_t
	if err := f.statReal(n, &st); err != nil {
		return err
	}
	links, err := f.unionLinks(n, f.upperLinks(n, st.Nlink))
	if err != nil || links > 0 {
		return err
	}
	f.tree.RLock()
	name := n.ext.index
	f.tree.RUnlock()
	return unix.Unlinkat(f.upper.index, name, 0)
}

func (f *FS) isIndexed(n *node) bool {
	f.tree.RLock()
	defer f.tree.RUnlock()
	return n.ext != nil && n.ext.index != ""
}

// linkUp gives an indexed file's name in a directory its place in the upper layer (ovl_link_up).
func (f *FS) linkUp(n *node, parent *node, name string) error {
	parent.dir.mu.Lock()
	defer parent.dir.mu.Unlock()
	inUpper, _, ok := f.entryState(parent, name)
	if !ok || inUpper {
		return nil
	}
	up, err := f.upperDir(parent)
	if err != nil {
		return err
	}
	defer up.Release()
	if err := f.setImpure(parent, up); err != nil {
		return err
	}
	if err := f.beforeLinks(n, 1); err != nil {
		return err
	}
	p, err := f.upperPlace(n)
	if err != nil {
		return err
	}
	defer p.Release()
	if err := linkat(p, up.FD, name); err != nil {
		f.restoreLinks(n, 1)
		return err
	}
	f.tree.Lock()
	defer f.tree.Unlock()
	if e := parent.dir.listing.Find(name); e != nil {
		parent.dir.listing.CopiedUp(e, n.upper.Load())
	}
	return nil
}

// hiddenBy is how many lower names go when a name is taken away that only a lower layer has.
func hiddenBy(lowerOnly bool) int32 {
	if lowerOnly {
		return 1
	}
	return 0
}
