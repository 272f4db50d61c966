package unionfs

import (
	"maps"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// node is an inode of the union: one that the kernel knows, or a directory above one.
type node struct {
	id   uint64 // node id; never used again
	kind uint32 // file type bits

	lookups uint32 // how often the kernel has been told of it and has not forgotten; guarded by FS.tree

	parent *node  // directory that holds the name; nil for the root and for a node without a name; guarded by FS.tree
	name   string // guarded by FS.tree

	lower     *layers.Place // directory of a lower layer that holds its origin, nil for none; immutable once copied up
	lowerName string        // name of the origin there

	ino   atomic.Uint64 // the st_ino that the union shows
	upper atomic.Uint64 // inode number in the upper layer, 0 for not there

	mu  sync.Mutex // held during copy-up, while the last name is removed, and while pages are written back: see keepModified
	dir *directory // of a directory
	ext *extension // what few nodes have; nil for most; set under mu and FS.tree
}

// extension is the part of a node's state that few nodes have. Guarded by FS.tree.
type extension struct {
	links []link // names besides parent and name
	kept  kept   // what keeps a nameless inode reachable
	gone  bool   // its last name was removed

	dropsPrivileges bool // its capabilities have just been removed, as before a write

	metacopy bool          // the topmost file has metadata only
	data     *layers.Place // where a metacopy file's data is, nil where it is nowhere
	dataName string

	index  string // name in the work directory's index, empty for none
	shared bool   // in FS.byInode
	inoKey inodeKey
}

// link is one name of a node.
type link struct {
	parent *node
	name   string
}

// directory is what a directory's node has besides.
type directory struct {
	places []layers.Place // in lower layers, topmost first; immutable
	origin string         // path in the union of the lower layers, which redirects name; immutable

	// mu is held while the directory's layers are read, and by each change of the names in its upper directory.
	mu sync.Mutex

	listing  *layers.Listing[*node] // nil until first needed; made under mu, guarded by FS.tree
	guess    *node                  // the child that a walk will list next; guarded by FS.tree
	listed   uint64                 // cookie of the child that a walk has listed last; guarded by FS.tree
	lookedUp lookedUp               // guarded by FS.tree
	ahead    bool                   // it was chosen to be merged ahead; guarded by FS.tree
	children int                    // nodes whose parent is this one; guarded by FS.tree
	impure   atomic.Bool            // overlay.impure is set
	stale    atomic.Bool            // the kernel will be told that the attributes changed: see attributesChangedSoon

	noDefaultACL atomic.Bool // the upper directory has no default ACL
	opaque       bool        // the upper directory is opaque; guarded by the parent's mu
	redirect     string      // overlay.redirect of the upper directory; guarded by the parent's mu
}

// merged reports whether the directory is made of several (OVL_TYPE_MERGE).
func (n *node) merged() bool {
	if n.upper.Load() != 0 {
		return len(n.dir.places) > 0
	}
	return len(n.dir.places) > 1
}

// extra returns the node's extension, making it first. The caller holds FS.tree.
func (n *node) extraLocked() *extension {
	if n.ext == nil {
		n.ext = &extension{}
	}
	return n.ext
}

// parentsLocked returns the directories in which the node has a name. The caller holds FS.tree.
func (n *node) parentsLocked() (parents []*node) {
	if n.parent != nil {
		parents = append(parents, n.parent)
	}
	if n.ext != nil {
		for _, l := range n.ext.links {
			parents = append(parents, l.parent)
		}
	}
	return parents
}

// makeRoot makes the node of the root directory.
func (f *FS) makeRoot() error {
	n := &node{id: fuse.FUSE_ROOT_ID, kind: unix.S_IFDIR, lookups: 1, dir: &directory{places: f.stack.Roots()}}
	if f.stack.Upper != nil {
		n.upper.Store(f.upper.rootIno)
	}
	f.root = n
	f.nodes[n.id] = n
	var st unix.Statx_t
	if err := f.statReal(n, &st); err != nil {
		return err
	}
	n.ino.Store(f.stack.InoOf(&st))
	return f.fixDirectoryIno(n)
}

// node returns the node of an id that the kernel names.
func (f *FS) node(id uint64) (*node, error) {
	f.tree.RLock()
	n := f.nodes[id]
	f.tree.RUnlock()
	if n == nil {
		return nil, unix.ESTALE
	}
	return n, nil
}

// directory returns the node of an id that must be a directory.
func (f *FS) directory(id uint64) (*node, error) {
	n, err := f.node(id)
	if err == nil && n.dir == nil {
		return nil, unix.ENOTDIR
	}
	return n, err
}

// adopt puts a new node into the table under a name, or returns the one that is there already or that is the same inode
// under another name. It counts one look-up. An inode that has several names is to be found by its key from now on. ENOENT or
// ESTALE mean that the name has gone, or was copied up, since it was looked up.
func (f *FS) adopt(parent *node, name string, n *node, key inodeKey, several bool) (*node, error) {
	f.tree.Lock()
	defer f.tree.Unlock()
	e := parent.dir.listing.Find(name)
	switch {
	case e == nil:
		return nil, unix.ENOENT
	case e.Value != nil:
		e.Value.lookups++
		return e.Value, nil
	case e.Place == layers.InUpper && n.upper.Load() == 0:
		return nil, unix.ESTALE
	}
	if key.ino != 0 {
		if old := f.byInode[key]; old != nil {
			old.lookups++
			old.ext.gone = false
			f.attachLocked(old, parent, name)
			return old, nil
		}
	}
	if key.ino != 0 && several {
		n.extraLocked().shared, n.ext.inoKey = true, key
		f.byInode[key] = n
	}
	f.insertLocked(n, parent, name)
	f.attachLocked(n, parent, name)
	return n, nil
}

// insertLocked gives a node its id and the kernel's first look-up.
func (f *FS) insertLocked(n *node, parent *node, name string) {
	n.lookups = 1
	if n.ext != nil && n.ext.shared {
		n.id = f.handles.reuseInode(n.ext.inoKey)
	} else {
		n.id = f.handles.reuse(parent, name)
	}
	if n.id == 0 {
		f.lastID++
		n.id = f.lastID
	}
	f.nodes[n.id] = n
}

// attachLocked gives a node a name, which its directory's listing has already.
func (f *FS) attachLocked(n *node, parent *node, name string) {
	parent.dir.children++
	if e := parent.dir.listing.Find(name); e != nil {
		e.Value = n
		if n.lowerName == name {
			n.lowerName = e.Name
		}
		name = e.Name // one copy of the name
	}
	if n.parent == nil {
		n.parent, n.name = parent, name
		return
	}
	x := n.extraLocked()
	x.links = append(x.links, link{parent, name})
}

// detachLocked takes a name from a node. It returns false where the node had other names of its own still.
func (f *FS) detachLocked(n *node, parent *node, name string) (last bool) {
	if n.parent == parent && n.name == name {
		n.parent, n.name = nil, ""
		if n.ext != nil && len(n.ext.links) > 0 {
			l := n.ext.links[0]
			n.ext.links = n.ext.links[1:]
			n.parent, n.name = l.parent, l.name
		}
	} else if n.ext != nil {
		for i, l := range n.ext.links {
			if l.parent == parent && l.name == name {
				n.ext.links = append(n.ext.links[:i], n.ext.links[i+1:]...)
				break
			}
		}
	}
	parent.dir.children--
	if parent.dir.guess == n {
		parent.dir.guess = nil
	}
	if e := parent.dir.listing.Find(name); e != nil && e.Value == n {
		e.Value = nil
	}
	return n.parent == nil
}

// Forget takes back look-ups. A node that the kernel does not know any more is freed, unless it is above one that it
// knows.
func (f *FS) Forget(id, count uint64) {
	f.tree.Lock()
	n := f.nodes[id]
	if n == nil || n == f.root {
		f.tree.Unlock()
		return
	}
	n.lookups -= uint32(min(count, uint64(n.lookups)))
	freed := f.freeLocked(n, nil)
	shrunk := len(freed) > 0 && f.shrinkLocked()
	f.tree.Unlock()
	if shrunk {
		go debug.FreeOSMemory()
	}
	for _, n := range freed {
		f.helper.close(n)
	}
}

// freeLocked takes nodes that nobody needs out of the table, upwards from n.
func (f *FS) freeLocked(n *node, freed []*node) []*node {
	if n == f.root || n.lookups > 0 || n.dir != nil && n.dir.children > 0 {
		return freed
	}
	delete(f.nodes, n.id)
	if n.ext != nil && n.ext.shared && f.byInode[n.ext.inoKey] == n {
		delete(f.byInode, n.ext.inoKey)
	}
	freed = append(freed, n)
	if n.parent != nil {
		f.handles.remember(n)
	}
	for n.parent != nil {
		parent := n.parent
		f.detachLocked(n, parent, n.name)
		freed = f.freeLocked(parent, freed)
	}
	return freed
}

// largeTable is how many nodes a table must have had for its memory to be worth giving back.
const largeTable = 1 << 14

// shrinkLocked makes the inode table anew when most of it has been forgotten: a map keeps the room that it once needed. It
// reports whether there is memory to give back to the system.
func (f *FS) shrinkLocked() bool {
	f.mostNodes = max(f.mostNodes, len(f.nodes)+1)
	if f.mostNodes < largeTable || len(f.nodes) > f.mostNodes/4 {
		return false
	}
	nodes := make(map[uint64]*node, len(f.nodes))
	maps.Copy(nodes, f.nodes)
	f.nodes, f.mostNodes = nodes, len(nodes)
	return true
}

// closeNode closes what a node that was freed had open.
func (f *FS) closeNode(n *node) {
	switch {
	case n.kind == unix.S_IFREG:
		f.stack.Cache.Drop(dataKey(n, true))
		f.stack.Cache.Drop(dataKey(n, false))
		f.backings.Drop(n.id)
		f.opens.forget(n.id)
	case n.dir != nil && n.ext != nil && n.ext.gone:
		f.stack.Cache.Drop(layers.Key{Ino: n.upper.Load()})
	}
	if n.ext != nil && n.ext.kept.something() {
		f.tree.Lock()
		k := f.unkeepLocked(n)
		f.tree.Unlock()
		f.letGo(n, k) // with which it is freed
	}
}

// pathLocked is the path of a node's first name in the upper layer, which is its path in the union. It reports false
// for a node without a name.
func (n *node) path(f *FS) (string, bool) {
	f.tree.RLock()
	defer f.tree.RUnlock()
	return n.pathLocked(f)
}

func (n *node) pathLocked(f *FS) (string, bool) {
	size := 0
	for d := n; d != f.root; d = d.parent {
		if d.parent == nil {
			return "", false
		}
		size += len(d.name) + 1
	}
	if size == 0 {
		return "", true
	}
	buf := make([]byte, size-1)
	for d, end := n, size-1; d != f.root; d = d.parent {
		copy(buf[end-len(d.name):end], d.name)
		if end -= len(d.name) + 1; end > 0 {
			buf[end] = '/'
		}
	}
	return string(buf), true
}
