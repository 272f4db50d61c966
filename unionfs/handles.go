package unionfs

import "strings"

// maxHandles bounds the forgotten nodes that a file handle can still reach. A handle names a node id, and the kernel does
// not say for which nodes handles were made (name_to_handle_at(2)), so the latest ones to be forgotten are remembered: about
// 10 MB at most.
const maxHandles = 1 << 16

// handleTable remembers under which directory and name a forgotten node was, so that an id that comes back in a file
// handle finds its file again, and the file its id. Guarded by FS.tree.
type handleTable struct {
	byID    map[uint64]*handle
	byName  map[handleKey]*handle
	byInode map[inodeKey]uint64 // of inodes with several names
	inodes  map[uint64]inodeKey // the other way about
	ends    handle              // its newer is the oldest of all, its older the newest
}

// handle is what file handles need of a forgotten node, between those that were forgotten before and after it: container/list would
// take 30 bytes more for each.
type handle struct {
	id uint64
	handleKey
	older, newer *handle
}

// handleKey is a name in a directory, which is named by its node id.
type handleKey struct {
	parent uint64
	name   string
}

// remember keeps the place of a node that is being forgotten. Its id is not in the table: it was taken out when the node was made.
func (t *handleTable) remember(n *node) {
	if t.byID == nil {
		t.byID, t.byName = make(map[uint64]*handle), make(map[handleKey]*handle)
		t.byInode, t.inodes = make(map[inodeKey]uint64), make(map[uint64]inodeKey)
		t.ends.older, t.ends.newer = &t.ends, &t.ends
	}
	if len(t.byID) == maxHandles {
		t.drop(t.ends.newer.id)
	}
	h := &handle{id: n.id, older: t.ends.older, newer: &t.ends}
	h.handleKey = handleKey{n.parent.id, strings.Clone(n.name)} // its directory's names lie in one piece of memory
	h.older.newer, t.ends.older = h, h
	t.byID[h.id], t.byName[h.handleKey] = h, h
	if n.ext != nil && n.ext.shared {
		t.byInode[n.ext.inoKey], t.inodes[n.id] = n.id, n.ext.inoKey
	}
}

// place is where the node of an id was when it was forgotten; zero if that is not known.
func (t *handleTable) place(id uint64) handleKey {
	if h := t.byID[id]; h != nil {
		return h.handleKey
	}
	return handleKey{}
}

func (t *handleTable) drop(id uint64) {
	if h := t.byID[id]; h != nil {
		h.older.newer, h.newer.older = h.newer, h.older
		delete(t.byID, id)
		if t.byName[h.handleKey] == h {
			delete(t.byName, h.handleKey)
		}
	}
	if key, ok := t.inodes[id]; ok {
		delete(t.inodes, id)
		delete(t.byInode, key)
	}
}

// reuse returns the id that the node of a name had before it was forgotten, or 0.
func (t *handleTable) reuse(parent *node, name string) uint64 {
	h := t.byName[handleKey{parent.id, name}]
	if h == nil {
		return 0
	}
	t.drop(h.id)
	return h.id
}

// reuseInode is reuse for an inode with several names, which may come back under another.
func (t *handleTable) reuseInode(key inodeKey) uint64 {
	id := t.byInode[key]
	if id != 0 {
		t.drop(id)
	}
	return id
}

// remove forgets a name that was removed or now means another file.
func (t *handleTable) remove(parent *node, name string) { t.reuse(parent, name) }
