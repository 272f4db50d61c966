package overlaytest

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Op is one operation of a [Program], as data. Which fields count depends on the call; see calls.
type Op struct {
	Call   string
	Thread int    // 0: in order; n: may run beside the other threads' operations
	User   bool   // run as the unprivileged user
	Umask  int    // as in Identity
	Slot   int    // the open descriptor used or, by open, set
	Slot2  int    // the second descriptor of a copy
	Path   string // relative to the root
	Path2  string
	Flags  int
	Mode   uint32
	Off    int64
	Len    int64
	Name   string // of an xattr
	Data   string // what is written: this text again and again; the value of an xattr; a symbolic link's target
	UID    int
	GID    int
	Times  [2]unix.Timespec
}

// Program is a list of operations that runs on a tree.
type Program []Op

// user is who runs the operations that are not run as root.
var user = Identity{UID: 1000, GID: 1000, Groups: []int{1001}}

// slots is the number of descriptors that each thread can have open.
const slots = 6

// String returns the program, a call a line.
func (p Program) String() string {
	var b strings.Builder
	for i, op := range p {
		fmt.Fprintf(&b, "%4d  %s\n", i, op)
	}
	return b.String()
}

// String returns the operation as a line of a program: the call and the arguments that are set.
func (op Op) String() string {
	var args []string
	add := func(set bool, format string, a ...any) {
		if set {
			args = append(args, fmt.Sprintf(format, a...))
		}
	}
	c := calls[op.Call]
	add(c.slot, "slot %d", op.Slot)
	add(c.slot2, "slot %d", op.Slot2)
	add(c.path, "%q", op.Path)
	add(c.path2, "%q", op.Path2)
	add(c.flags != nil, "%s", flagText(c.flags, op.Flags))
	add(op.Mode != 0, "mode %04o", op.Mode)
	add(op.Off != 0, "off %d", op.Off)
	add(op.Len != 0, "len %d", op.Len)
	add(op.Name != "", "%s", op.Name)
	add(op.Data != "", "%s", text([]byte(op.Data)))
	add(op.UID != 0 || op.GID != 0, "%d:%d", op.UID, op.GID)
	add(c.times, "%v", op.Times)
	add(op.Umask != 0, "umask %04o", op.Umask&0o777)
	add(op.User, "as user")
	line := op.Call + "(" + strings.Join(args, ", ") + ")"
	if op.Thread != 0 {
		line = fmt.Sprintf("[%d] %s", op.Thread, line)
	}
	return line
}

// bitName is the name of a bit.
type bitName struct {
	bit  int
	name string
}

var openFlags = []bitName{{unix.O_WRONLY, "O_WRONLY"}, {unix.O_RDWR, "O_RDWR"}, {unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"},
	{unix.O_TRUNC, "O_TRUNC"}, {unix.O_APPEND, "O_APPEND"}, {unix.O_TMPFILE, "O_TMPFILE"}, {unix.O_DIRECTORY, "O_DIRECTORY"},
	{unix.O_NOFOLLOW, "O_NOFOLLOW"}, {unix.O_DIRECT, "O_DIRECT"}, {unix.O_SYNC, "O_SYNC"}, {unix.O_PATH, "O_PATH"}}

var renameFlags = []bitName{{unix.RENAME_NOREPLACE, "RENAME_NOREPLACE"}, {unix.RENAME_EXCHANGE, "RENAME_EXCHANGE"},
	{unix.RENAME_WHITEOUT, "RENAME_WHITEOUT"}}

var xattrFlags = []bitName{{unix.XATTR_CREATE, "XATTR_CREATE"}, {unix.XATTR_REPLACE, "XATTR_REPLACE"}}

var fallocateFlags = []bitName{{unix.FALLOC_FL_KEEP_SIZE, "KEEP_SIZE"}, {unix.FALLOC_FL_PUNCH_HOLE, "PUNCH_HOLE"},
	{unix.FALLOC_FL_ZERO_RANGE, "ZERO_RANGE"}, {unix.FALLOC_FL_COLLAPSE_RANGE, "COLLAPSE_RANGE"},
	{unix.FALLOC_FL_INSERT_RANGE, "INSERT_RANGE"}, {unix.FALLOC_FL_UNSHARE_RANGE, "UNSHARE_RANGE"}}

var seekFlags = []bitName{{unix.SEEK_HOLE, "SEEK_HOLE"}, {unix.SEEK_DATA, "SEEK_DATA"}, {unix.SEEK_END, "SEEK_END"}, {unix.SEEK_CUR, "SEEK_CUR"}}

var lockFlags = []bitName{{unix.LOCK_SH, "LOCK_SH"}, {unix.LOCK_EX, "LOCK_EX"}, {unix.LOCK_UN, "LOCK_UN"}}

var accessFlags = []bitName{{unix.R_OK, "R_OK"}, {unix.W_OK, "W_OK"}, {unix.X_OK, "X_OK"}}

// flagText names the bits set in v.
func flagText(names []bitName, v int) string {
	var set []string
	for _, f := range names {
		if v&f.bit == f.bit && f.bit != 0 {
			set = append(set, f.name)
			v &^= f.bit
		}
	}
	if v != 0 || len(set) == 0 {
		set = append(set, fmt.Sprint(v))
	}
	return strings.Join(set, "|")
}
