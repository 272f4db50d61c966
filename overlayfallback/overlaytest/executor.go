package overlaytest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// executor runs the operations of one thread of a program on one mount.
type executor struct {
	actor *Actor
	root  string
	clock Clock
	lazy  bool   // see Route.LazyOpens
	holes bool   // the route that is compared finds holes
	upper string // of the oracle, which finds out what is left out (see leavesOut); empty elsewhere
	open  [slots]descriptor
}

// descriptor is one slot: an open descriptor, its flags and the inode it had when it was opened.
type descriptor struct {
	fd    int // 0: none
	flags int
	ino   uint64
	dir   bool
	lower bool // when it was last looked at: it had a name, and nothing in the upper under that
}

// newExecutor starts an executor on the tree at root.
func newExecutor(root string, clock Clock) *executor {
	return &executor{actor: NewActor(), root: root, clock: clock}
}

// close closes all descriptors and ends the thread.
func (e *executor) close() {
	e.dropAll()
	e.actor.Close()
}

// dropAll closes all descriptors.
func (e *executor) dropAll() {
	for i := range e.open {
		e.drop(i)
	}
}

// drop closes a slot.
func (e *executor) drop(slot int) {
	if d := &e.open[slot]; d.fd != 0 {
		unix.Close(d.fd)
		*d = descriptor{}
	}
}

// at returns the full path of a name in the tree.
func (e *executor) at(p string) string { return filepath.Join(e.root, p) }

// run runs one operation and returns all that can be seen of it: its errno and what it gave back.
func (e *executor) run(op Op) Node {
	if e.leavesOut(op) {
		return Node{"errno": notRun}
	}
	result := Node{}
	id := Identity{Umask: op.Umask}
	if op.User {
		id = user
		id.Umask = op.Umask
	}
	e.actor.As(id, func() {
		result["errno"] = Errno(e.call(op, result))
	})
	return result
}

// notRun is the result of an operation that is not run, neither on the oracle nor on the route.
const notRun = "left out"

// throughDescriptor are the calls that kernel overlayfs does by a copy-up to the name by which a descriptor was opened. When
// the name is gone, that fails with EEXIST, or makes the name again, and leaves half of the file's attributes stale:
// docs/differences.md, "Changes through a descriptor of an unlinked lower file fail".
var throughDescriptor = []string{"fchmod", "fchown", "futimens", "fsetxattr", "linkslot"}

// leavesOut tells whether the operation would go on with an unlinked lower file in a way that is not copied from the kernel, or look for
// holes where the route finds none. What follows could not be compared, so that an excuse would not do.
func (e *executor) leavesOut(op Op) bool {
	if e.upper == "" {
		return false
	}
	if op.Call == "lseek" && (op.Flags == unix.SEEK_DATA || op.Flags == unix.SEEK_HOLE) {
		return !e.holes
	}
	e.look()
	d := e.open[op.Slot]
	return slices.Contains(throughDescriptor, op.Call) && d.fd != 0 && d.lower && e.nameOf(d) == ""
}

// look notes of each open descriptor whether it is of a lower file, as long as its name tells that. An upper has the paths of
// the union, whatever was renamed.
func (e *executor) look() {
	for i := range e.open {
		d := &e.open[i]
		if d.fd == 0 {
			continue
		}
		if name := e.nameOf(*d); name != "" {
			var st unix.Stat_t
			d.lower = unix.Lstat(filepath.Join(e.upper, name), &st) != nil
		}
	}
}

// nameOf returns the path in the tree of an open descriptor; empty if that is gone.
func (e *executor) nameOf(d descriptor) string {
	p, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", d.fd))
	if err != nil || strings.HasSuffix(p, " (deleted)") {
		return ""
	}
	return "." + strings.TrimPrefix(p, e.root)
}

// call runs the system call of the operation on the actor's thread. A call on an empty slot is EBADF without asking.
func (e *executor) call(op Op, result Node) error {
	c := calls[op.Call]
	if c.slot && op.Call != "open" && e.open[op.Slot].fd == 0 || c.slot2 && e.open[op.Slot2].fd == 0 {
		return unix.EBADF
	}
	return c.run(e, op, result)
}

// fd returns the descriptor in the operation's slot.
func (e *executor) fd(op Op) int { return e.open[op.Slot].fd }

// setStat records a stat, and which slots hold the same inode as they did when they were opened.
func (e *executor) setStat(result Node, dir int, p string, flags int) error {
	var st unix.Statx_t
	if err := unix.Statx(dir, p, flags, unix.STATX_BASIC_STATS, &st); err != nil {
		return err
	}
	result.setStat(&st, e.clock)
	var same []string
	for i, d := range e.open {
		if d.fd != 0 && d.ino == st.Ino {
			same = append(same, fmt.Sprint(i))
		}
	}
	result["slots of the inode"] = strings.Join(same, " ")
	return nil
}

// list records a directory listing, in the order of names since the order given is nobody's promise.
func list(result Node, fd int) error {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return err
	}
	entries, err := ReadDir(fd)
	var names []string
	for _, d := range entries {
		if d.Type == unix.DT_CHR && isWhiteout(fd, d.Name) {
			continue
		}
		names = append(names, d.Name+":"+typeNames[uint32(d.Type)<<12])
	}
	slices.Sort(names)
	result["entries"] = strings.Join(names, " ")
	unix.Seek(fd, 0, unix.SEEK_SET) // the position at the end is nobody's promise either
	return err
}

// isWhiteout tells whether a listed name is not there: kernel overlayfs lists the whiteouts of a directory that has nothing
// to merge with.
func isWhiteout(dir int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == unix.ENOENT
}

// aligned makes the operation one that O_DIRECT takes, if its descriptor was opened so: most of what is drawn would otherwise be
// EINVAL.
func (e *executor) aligned(op Op) Op {
	if d := e.open[op.Slot]; d.flags&unix.O_DIRECT != 0 && d.flags&unix.O_PATH == 0 {
		op.Off, op.Len = op.Off&^4095, (op.Len+4095)&^4095
		if at, err := unix.Seek(d.fd, 0, unix.SEEK_CUR); err == nil {
			unix.Seek(d.fd, at&^4095, unix.SEEK_SET)
		}
	}
	return op
}

// fill returns n bytes made of the operation's text.
func (op Op) fill() []byte {
	if op.Len == 0 || op.Data == "" {
		return []byte(op.Data)[:0]
	}
	return []byte(strings.Repeat(op.Data, int(op.Len)/len(op.Data)+1)[:op.Len])
}
