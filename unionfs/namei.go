package unionfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// maxName is the longest name, in bytes (NAME_MAX).
const maxName = 255

// Lookup answers what a name in a directory is. A name that does not exist is answered as node id 0 with a time, which
// lets the kernel remember that too.
func (f *FS) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name == "." || name == ".." {
		return status(f.lookupHandle(h.NodeId, name, out))
	}
	parent, err := f.directory(h.NodeId)
	if err != nil {
		return status(err)
	}
	return status(f.lookup(parent, name, out))
}

func (f *FS) lookup(parent *node, name string, out *fuse.EntryOut) error {
	var st unix.Statx_t
	n, err := f.childStat(parent, name, &st)
	if err == unix.ENOENT {
		out.EntryValid, out.EntryValidNsec = f.validity()
		return nil
	}
	if err != nil {
		return err
	}
	return f.entryStat(n, &st, out)
}

// lookupHandle answers what the kernel asks to turn a file handle into a file (fuse_get_dentry): the node of an id that it
// may have forgotten, or that node's parent.
func (f *FS) lookupHandle(id uint64, name string, out *fuse.EntryOut) error {
	n, err := f.recall(id)
	if err != nil {
		return err
	}
	if name == ".." {
		f.tree.Lock()
		parent := n.parent
		if parent != nil {
			parent.lookups++
		}
		f.tree.Unlock()
		f.Forget(id, 1)
		if n = parent; n == nil {
			return unix.ESTALE
		}
	}
	return f.entry(n, out)
}

// recall finds the node of an id, looking its name up again where it was forgotten, and counts one look-up.
func (f *FS) recall(id uint64) (*node, error) {
	f.tree.Lock()
	n, key := f.nodes[id], f.handles.place(id)
	if n != nil {
		n.lookups++
	}
	f.tree.Unlock()
	if n != nil {
		return n, nil
	}
	if key.parent == 0 {
		return nil, unix.ESTALE
	}
	parent, err := f.recall(key.parent)
	if err != nil {
		return nil, err
	}
	defer f.Forget(parent.id, 1)
	if n, err = f.child(parent, key.name); err != nil {
		return nil, unix.ESTALE
	}
	if n.id != id {
		f.Forget(n.id, 1)
		return nil, unix.ESTALE
	}
	return n, nil
}

// child returns the node of a name and counts one look-up, to be taken back by Forget where the kernel is not told.
func (f *FS) child(parent *node, name string) (*node, error) {
	var st unix.Statx_t
	return f.childStat(parent, name, &st)
}

// childStat is child, which also gives the attributes of the topmost inode where they have just been read, or ahead; else it
// leaves st empty.
func (f *FS) childStat(parent *node, name string, st *unix.Statx_t) (*node, error) {
	if len(name) > maxName {
		return nil, unix.ENAMETOOLONG
	}
	if err := f.list(parent); err != nil {
		return nil, err
	}
	f.tree.Lock()
	e := parent.dir.listing.Find(name)
	if e == nil {
		f.tree.Unlock()
		return nil, unix.ENOENT
	}
	if n := e.Value; n != nil {
		n.lookups++
		if ahead := parent.dir.lookedUp[n]; ahead != nil && n.upper.Load() == 0 {
			*st = *ahead
		}
		f.tree.Unlock()
		return n, nil
	}
	at := candidates(parent.dir, e)
	f.tree.Unlock()
	return f.resolve(parent, name, at, st)
}

// candidates says where the merge of a directory has seen an entry. The caller holds FS.tree.
func candidates(d *directory, e *layers.Entry[*node]) layers.Candidates {
	at := layers.Candidates{InUpper: e.Place == layers.InUpper}
	more := d.listing.More[e.Cookie]
	if at.InUpper {
		at.Places = more
		return at
	}
	at.Places = append(make([]int32, 0, 1+len(more)), e.Place)
	at.Places = append(at.Places, more...)
	return at
}

// resolve finds out what a name is and makes its node.
func (f *FS) resolve(parent *node, name string, at layers.Candidates, st *unix.Statx_t) (*node, error) {
	up, err := f.upperDir(parent)
	if err != nil {
		return nil, err
	}
	dir := layers.Dir{Upper: up, Places: parent.dir.places, Origin: parent.dir.origin}
	if up != nil {
		defer up.Release()
	}
	found, err := f.stack.Lookup(&dir, name, at)
	if err != nil {
		return nil, err
	}
	n, key, err := f.newNode(parent, up, name, found)
	if err != nil {
		return nil, err
	}
	adopted, err := f.adopt(parent, name, n, key, found.Stat.Nlink > 1)
	if adopted == n && found.InUpper == (n.upper.Load() != 0) { // else the index has its copy
		*st = found.Stat
	}
	return adopted, err
}

// newNode makes the node of what was found under a name of the upper directory up or of lower ones. The key is that of an
// inode whose names are one node, else zero.
func (f *FS) newNode(parent *node, up *layers.File, name string, found *layers.Found) (*node, inodeKey, error) {
	n := &node{kind: found.Mode, lower: found.Lower, lowerName: found.LowerName}
	if found.Mode == unix.S_IFDIR {
		n.dir = &directory{places: found.Places, origin: found.Origin, opaque: found.Opaque, redirect: found.Redirect}
	}
	if found.Metacopy {
		n.ext = &extension{metacopy: true, data: found.Data, dataName: found.DataName}
	}
	st := &found.Stat
	if found.InUpper {
		n.upper.Store(st.Ino)
	}
	n.ino.Store(f.stack.InoOf(st))
	switch {
	case !found.InUpper:
		return n, f.lowerKey(n, st), f.findIndexed(n, st)
	case n.dir != nil:
		return n, inodeKey{}, f.fixUpperDirectory(n, parent, up, name, found)
	}
	f.fixUpperFile(n, up, name)
	return n, upperKey(n, st.Ino), nil
}

// lowerKey says whether the names of a lower hard link are one node. They are where none of them will be copied up, or
// where copying one up keeps them together (ovl_hash_bylower).
func (f *FS) lowerKey(n *node, st *unix.Statx_t) inodeKey {
	if n.dir != nil || st.Nlink < 2 || f.upper != nil && !f.opts.Index {
		return inodeKey{}
	}
	return inodeKey{ino: f.stack.InoOf(st)}
}

// upperKey is the key of an upper file, also of one that has a single name left: others may have gone while it is open.
func upperKey(n *node, ino uint64) inodeKey {
	if n.ext != nil && n.ext.index != "" {
		return inodeKey{ino: n.ino.Load()}
	}
	return inodeKey{upper: true, ino: ino}
}

// entry fills a reply that tells the kernel of a node whose look-up was counted. On an error the look-up is taken back.
func (f *FS) entry(n *node, out *fuse.EntryOut) error {
	var st unix.Statx_t
	return f.entryStat(n, &st, out)
}

// entryStat is entry with the attributes of the topmost inode, where they are known already.
func (f *FS) entryStat(n *node, st *unix.Statx_t, out *fuse.EntryOut) error {
	err := f.statKnown(n, st)
	if err != nil {
		f.Forget(n.id, 1)
		return err
	}
	out.NodeId = n.id
	out.EntryValid, out.EntryValidNsec = f.validity()
	out.AttrValid, out.AttrValidNsec = f.attrValidity(n)
	fillAttr(&out.Attr, st)
	return nil
}

// list reads and merges a directory's layers if that has not been done yet.
func (f *FS) list(n *node) error {
	f.tree.RLock()
	listed := n.dir.listing != nil
	f.tree.RUnlock()
	if listed {
		return nil
	}
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	return f.listLocked(n)
}

// listLocked is list for a caller that holds the directory's lock.
func (f *FS) listLocked(n *node) error {
	f.tree.RLock()
	listed := n.dir.listing != nil
	f.tree.RUnlock()
	if listed {
		return nil
	}
	up, err := f.upperDir(n)
	if err != nil {
		return err
	}
	if up != nil {
		defer up.Release()
	}
	listing, err := layers.Merge[*node](f.stack, up, n.dir.places)
	if err != nil {
		return err
	}
	f.tree.Lock()
	n.dir.listing = listing
	f.tree.Unlock()
	return nil
}
