package unionfs

import "strings"

// maxHandles bounds the forgotten nodes that a file handle can still reach. A handle names a node id, and the kernel does
// not say for which nodes handles were made (name_to_handle_at(2)), so the latest ones to be forgotten are remembered: about
// 10 MB at most.
const maxHandles = 1 << 16

// handleTable remembers under which directory and name a forgotten node was, so that an id that comes back in a file
// handle finds its file again, and the file its id. Guarded by FS.tree.
type handleTable struct {
	byID    map[uint64]handleKey
	byName  map[handleKey]uint64
	byInode map[inodeKey]uint64 // of inodes with several names
	inodes  map[uint64]inodeKey // the other way about
	order   []uint64            // a ring of ids, the oldest at next
	next    int
}

// handleKey is a name in a directory, which is named by its node id.
type handleKey struct {
	parent uint64
	name   string
}

// remember keeps the place of a node that is being forgotten.
func (t *handleTable) remember(n *node) {
	if t.byID == nil {
		t.byID, t.byName = make(map[uint64]handleKey), make(map[handleKey]uint64)
		t.byInode, t.inodes = make(map[inodeKey]uint64), make(map[uint64]inodeKey)
	}
	if len(t.order) < maxHandles {
		t.order = append(t.order, n.id)
	} else {
		t.drop(t.order[t.next])
		t.order[t.next] = n.id
		t.next = (t.next + 1) % maxHandles
	}
	key := handleKey{n.parent.id, strings.Clone(n.name)} // its directory's names lie in one piece of memory
	t.byID[n.id], t.byName[key] = key, n.id
	if n.ext != nil && n.ext.shared {
		t.byInode[n.ext.inoKey], t.inodes[n.id] = n.id, n.ext.inoKey
	}
}

func (t *handleTable) drop(id uint64) {
	if key, ok := t.byID[id]; ok {
		delete(t.byID, id)
		if t.byName[key] == id {
			delete(t.byName, key)
		}
	}
	if key, ok := t.inodes[id]; ok {
		delete(t.inodes, id)
		delete(t.byInode, key)
	}
}

// reuse returns the id that the node of a name had before it was forgotten, or 0.
func (t *handleTable) reuse(parent *node, name string) uint64 {
	id := t.byName[handleKey{parent.id, name}]
	if id != 0 {
		t.drop(id)
	}
	return id
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
