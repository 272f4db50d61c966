package overlaytest

import (
	"math/rand/v2"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// drawer draws a program. It keeps a rough idea of what is there, so that most operations find something to work on.
type drawer struct {
	*generator
	files map[int][]string // by thread: paths that are likely to be regular files
	dirs  map[int][]string // by thread: paths that are likely to be directories
	open  map[int][]int    // by thread: slots that are likely to be open
	op    Op

	// The program looks for data and holes; else it allocates blocks without writing them, and writes through mappings. How much
	// of what lies there counts as data is a listed difference.
	seeksHoles bool
}

// threads is the number of threads whose operations may run beside each other, each in a directory of its own.
const threads = 2

// DrawProgram draws n operations from a seed for the tree that [BaseSet] draws from the same seed. Now and then a group of
// operations belongs to threads, each of which keeps to its own directory, so that their order does not matter.
func DrawProgram(seed uint64, n int, s Set) Program {
	d := &drawer{generator: &generator{Rand: rand.New(rand.NewPCG(seed, 0x0b5))}, open: map[int][]int{}}
	d.seeksHoles = d.one(2)
	files, dirs := s.paths()
	d.files, d.dirs = map[int][]string{0: files}, map[int][]string{0: append(dirs, ".")}
	for i := 1; i <= threads; i++ {
		d.files[i] = []string{threadDir(i) + "/f", threadDir(i) + "/d/f"}
		d.dirs[i] = []string{threadDir(i) + "/d", threadDir(i)}
	}
	// Their directories are in the upper from the start: the kernel may lose the times of a directory in which two are copied up at
	// once.
	var p Program
	for i := 1; i <= threads; i++ {
		p = append(p, Op{Call: "chmod", Path: threadDir(i), Mode: 0o777})
	}
	for len(p) < n {
		if n >= longProgram && d.one(longProgram/2) {
			p = append(p, Op{Call: "forget"})
		}
		if d.one(40) {
			for range 10 + d.IntN(20) {
				p = append(p, d.draw(1+d.IntN(threads)))
			}
		}
		p = append(p, d.draw(0))
	}
	return p[:n]
}

// longProgram is the number of operations from which on a program also makes the kernel forget its caches now and then: that
// slows the whole machine down.
const longProgram = 500

// threadDir returns the directory to which a thread keeps.
func threadDir(thread int) string { return "thread" + string(rune('0'+thread)) }

// paths lists the paths of all layers that are directories, and all others.
func (s Set) paths() (files, dirs []string) {
	for _, l := range append(append([]Layer{}, s.Lower...), s.Upper) {
		for _, e := range l {
			if e.Kind == Dir {
				dirs = append(dirs, e.Path)
			} else {
				files = append(files, e.Path)
			}
		}
	}
	return files, dirs
}

// weighted is a drawing function and how often it is chosen.
type weighted struct {
	weight int
	call   string
	draw   func(*drawer)
}

var weights = []weighted{
	{16, "open", drawOpen}, {2, "close", drawSlot},
	{5, "pread", drawRange}, {3, "read", drawRange}, {8, "pwrite", drawWrite}, {4, "write", drawWrite},
	{3, "lseek", drawSeek}, {3, "ftruncate", drawLen}, {2, "truncate", drawTruncate}, {3, "fallocate", drawFallocate},
	{1, "fsync", drawSlot}, {1, "fdatasync", drawSlot}, {2, "copyrange", drawCopyRange}, {1, "flock", drawFlock},
	{1, "ofdlock", drawOFDLock}, {2, "mapread", drawMap}, {2, "mapwrite", drawMap}, {1, "getflags", drawSlot},
	{5, "mkdir", drawMkdir}, {2, "mknod", drawMknod}, {2, "symlink", drawSymlink}, {4, "link", drawTwo}, {1, "linkslot", drawLinkSlot},
	{6, "unlink", drawFile}, {4, "rmdir", drawDir}, {8, "rename", drawRename}, {4, "readdir", drawDir}, {2, "freaddir", drawSlot},
	{1, "readlink", drawPath}, {2, "stat", drawPath}, {5, "lstat", drawPath}, {4, "fstat", drawSlot}, {2, "access", drawAccess},
	{4, "chmod", drawChmod}, {2, "fchmod", drawFchmod}, {3, "lchown", drawChown}, {1, "fchown", drawFchown},
	{2, "utimens", drawUtimens}, {1, "futimens", drawFutimens}, {4, "setxattr", drawSetxattr}, {1, "fsetxattr", drawFsetxattr},
	{2, "getxattr", drawXattrName}, {2, "listxattr", drawPath}, {2, "removexattr", drawXattrName},
}

// draw draws one operation for a thread.
func (d *drawer) draw(thread int) Op { return d.drawFrom(weights, thread) }

// drawFrom draws one operation from a table.
func (d *drawer) drawFrom(weights []weighted, thread int) Op {
	d.op = Op{Thread: thread, Slot: d.IntN(slots), User: d.one(4), Umask: pick(d.generator, 0, 0, 0o027, 0o077, NoMask)}
	total := 0
	for _, w := range weights {
		total += w.weight
	}
	n := d.IntN(total)
	for _, w := range weights {
		if n -= w.weight; n < 0 {
			d.op.Call = w.call
			w.draw(d)
			break
		}
	}
	return d.op
}

// old draws a path that is likely to be there: mostly a file, mostly a directory, or either.
func (d *drawer) old(files, dirs int) string {
	if d.one(10) {
		return d.newPath()
	}
	known := d.files[d.op.Thread]
	if d.IntN(files+dirs) >= files {
		known = d.dirs[d.op.Thread]
	}
	if len(known) == 0 {
		return d.newPath()
	}
	return known[d.IntN(len(known))]
}

// newPath draws a path in a directory that is likely to be there.
func (d *drawer) newPath() string {
	known := d.dirs[d.op.Thread]
	return path.Join(known[d.IntN(len(known))], d.name())
}

// newFile draws a path and remembers it as a file.
func (d *drawer) newFile() string {
	p := d.newPath()
	d.files[d.op.Thread] = append(d.files[d.op.Thread], p)
	return p
}

// drawSlot draws a slot that is likely to be open.
func drawSlot(d *drawer) {
	if open := d.open[d.op.Thread]; len(open) > 0 && !d.one(20) {
		d.op.Slot = open[d.IntN(len(open))]
	}
}

func drawPath(d *drawer) { d.op.Path = d.old(1, 1) }

func drawFile(d *drawer) { d.op.Path = d.old(9, 1) }

func drawDir(d *drawer) { d.op.Path = d.old(1, 6) }

func drawTwo(d *drawer) {
	d.op.Path, d.op.Path2 = d.old(8, 1), d.newFile()
	d.keepThreadsApart()
}

// keepThreadsApart sees to it that nothing gets into a thread's directory from outside. Another thread might have it too then, under
// another name.
func (d *drawer) keepThreadsApart() {
	from, to := threadOf(d.op.Path), threadOf(d.op.Path2)
	if from != to && (to != "" || d.op.Flags&unix.RENAME_EXCHANGE != 0) {
		d.op.Path2 = d.op.Path
	}
}

// threadOf returns the thread's directory in which a path is; empty for none.
func threadOf(p string) string {
	first, _, _ := strings.Cut(p, "/")
	if strings.HasPrefix(first, "thread") {
		return first
	}
	return ""
}

func drawOpen(d *drawer) {
	d.open[d.op.Thread] = append(d.open[d.op.Thread], d.op.Slot)
	if d.one(6) {
		d.op.Path = d.old(1, 9)
		d.op.Flags = pick(d.generator, unix.O_RDONLY, unix.O_RDONLY|unix.O_DIRECTORY, unix.O_RDWR|unix.O_TMPFILE, unix.O_PATH)
		d.op.Mode = 0o644
		return
	}
	drawFile(d)
	d.op.Flags = pick(d.generator, unix.O_RDONLY, unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_RDWR)
	extra := []int{unix.O_CREAT, unix.O_CREAT, unix.O_CREAT | unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND, unix.O_APPEND, unix.O_NOFOLLOW, unix.O_SYNC,
		unix.O_DIRECT, unix.O_PATH}
	for range d.IntN(3) {
		d.op.Flags |= extra[d.IntN(len(extra))]
	}
	if d.op.Flags&unix.O_APPEND != 0 {
		d.op.Flags &^= unix.O_DIRECT // where it writes is the file's size, which is not made aligned
	}
	if d.op.Flags&unix.O_CREAT != 0 {
		d.op.Mode = pick[uint32](d.generator, 0o644, 0o666, 0o600, 0o755, 0o4755, 0o2775, 0o444, 0o000)
	}
	if d.op.Flags&unix.O_CREAT != 0 && d.one(2) {
		d.op.Path = d.newFile()
	}
}

// drawRange draws an offset and a length, aligned as O_DIRECT wants them every other time.
func drawRange(d *drawer) {
	drawSlot(d)
	d.op.Off = pick[int64](d.generator, 0, 0, 1, 100, 4000, 4096, 8192, 65536, 70_000)
	d.op.Len = pick[int64](d.generator, 0, 1, 10, 100, 4096, 4097, 20_000)
	if d.one(2) {
		d.op.Off, d.op.Len = d.op.Off&^4095, (d.op.Len+4095)&^4095
	}
}

func drawWrite(d *drawer) {
	drawRange(d)
	d.op.Data = pick(d.generator, "w1 ", "second ", "3rd\n", "fourth\x00", "V")
}

func drawSeek(d *drawer) {
	drawSlot(d)
	d.op.Flags = pick(d.generator, unix.SEEK_SET, unix.SEEK_END, unix.SEEK_CUR)
	if d.seeksHoles {
		d.op.Flags = pick(d.generator, d.op.Flags, unix.SEEK_DATA, unix.SEEK_HOLE)
	}
	d.op.Off = pick[int64](d.generator, 0, 0, 1, 100, 4096, 5000, 100_000, -1)
}

func drawLen(d *drawer) {
	drawSlot(d)
	d.op.Len = pick[int64](d.generator, 0, 0, 1, 50, 4096, 5000, 100_000)
}

func drawTruncate(d *drawer) {
	drawFile(d)
	drawLen(d)
}

// drawFallocate leaves COLLAPSE_RANGE and INSERT_RANGE out: FUSE has neither.
func drawFallocate(d *drawer) {
	drawRange(d)
	d.op.Flags = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE
	if !d.seeksHoles {
		d.op.Flags = pick(d.generator, d.op.Flags, 0, 0, unix.FALLOC_FL_KEEP_SIZE,
			unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE)
	}
}

func drawCopyRange(d *drawer) {
	drawRange(d)
	first := d.op.Slot
	drawSlot(d)
	d.op.Slot, d.op.Slot2 = first, d.op.Slot
}

func drawFlock(d *drawer) {
	drawSlot(d)
	d.op.Flags = pick(d.generator, unix.LOCK_SH, unix.LOCK_EX, unix.LOCK_UN)
}

func drawOFDLock(d *drawer) {
	drawRange(d)
	d.op.Mode = uint32(pick(d.generator, unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK))
}

func drawMap(d *drawer) {
	drawFile(d)
	if d.seeksHoles {
		d.op.Call = "mapread"
	}
	d.op.Off = pick[int64](d.generator, 0, 0, 0, 4096)
	d.op.Len = pick[int64](d.generator, 1, 10, 4096, 5000)
	d.op.Data = pick(d.generator, "map ", "M")
}

func drawMkdir(d *drawer) {
	d.op.Path = d.newPath()
	if d.one(4) {
		d.op.Path = d.old(1, 1)
	}
	d.dirs[d.op.Thread] = append(d.dirs[d.op.Thread], d.op.Path)
	d.op.Mode = pick[uint32](d.generator, 0o755, 0o777, 0o700, 0o1777, 0o2775, 0o555)
}

func drawMknod(d *drawer) {
	d.op.Path = d.newFile()
	d.op.Mode = pick[uint32](d.generator, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFREG, unix.S_IFBLK) | pick[uint32](d.generator, 0o644, 0o666, 0o4777)
	if t := d.op.Mode & unix.S_IFMT; t == unix.S_IFCHR || t == unix.S_IFBLK {
		d.op.Off = int64(unix.Mkdev(1, uint32(pick(d.generator, 3, 5))))
		if t == unix.S_IFCHR && d.one(4) {
			d.op.Off = 0 // a whiteout, which nobody may make
		}
	}
}

func drawSymlink(d *drawer) {
	d.op.Path = d.newFile()
	d.op.Data = pick(d.generator, "a", "b", "../a", "missing", path.Base(d.old(1, 1)))
}

func drawLinkSlot(d *drawer) {
	drawSlot(d)
	if d.op.Path = d.newFile(); d.op.Thread == 0 && threadOf(d.op.Path) != "" {
		d.op.Path = path.Base(d.op.Path) // see keepThreadsApart
	}
	d.op.User = false // a process that changes its user may not follow links in /proc
}

// drawRename draws two files or two directories, since one cannot replace the other.
func drawRename(d *drawer) {
	d.op.Flags = pick(d.generator, 0, 0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT, unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE)
	known := d.files
	if d.one(2) {
		known = d.dirs
		drawDir(d)
	} else {
		drawFile(d)
	}
	all := known[d.op.Thread]
	d.op.Path2 = d.newPath()
	if (d.one(3) || d.op.Flags == unix.RENAME_EXCHANGE) && len(all) > 0 {
		d.op.Path2 = all[d.IntN(len(all))]
	}
	d.keepThreadsApart()
	known[d.op.Thread] = append(all, d.op.Path2)
}

func drawAccess(d *drawer) {
	drawPath(d)
	d.op.Flags = pick(d.generator, unix.R_OK, unix.W_OK, unix.X_OK, unix.R_OK|unix.W_OK)
}

func drawChmod(d *drawer) {
	drawPath(d)
	drawFchmod(d)
}

func drawFchmod(d *drawer) {
	drawSlot(d)
	d.op.Mode = pick[uint32](d.generator, 0o644, 0o755, 0o777, 0o600, 0o4755, 0o2755, 0o6711, 0o2644, 0o1777, 0o000)
}

func drawChown(d *drawer) {
	drawPath(d)
	drawFchown(d)
}

func drawFchown(d *drawer) {
	drawSlot(d)
	d.op.UID, d.op.GID = pick(d.generator, -1, 0, 1000, 1001), pick(d.generator, -1, 0, 1000, 1001)
}

func drawUtimens(d *drawer) {
	drawPath(d)
	drawFutimens(d)
}

func drawFutimens(d *drawer) {
	drawSlot(d)
	for i := range d.op.Times {
		d.op.Times[i] = pick(d.generator, unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Sec: 1, Nsec: 999_999_999},
			unix.Timespec{Sec: -5, Nsec: 3}, unix.Timespec{Sec: 6_000_000_000})
	}
}

func drawSetxattr(d *drawer) {
	drawXattrName(d)
	drawXattrValue(d)
}

func drawFsetxattr(d *drawer) {
	drawXattrName(d)
	d.op.Path = ""
	drawSlot(d)
	drawXattrValue(d)
}

func drawXattrName(d *drawer) {
	drawPath(d)
	d.op.Name = pick(d.generator, "user.a", "user.a", "user.b", "trusted.t", "security.s", "security.capability", "system.posix_acl_access",
		"system.posix_acl_default", "trusted.overlay.opaque", "user.overlay.opaque", "trusted.overlay.x", "other.x")
}

// drawXattrValue draws a value that suits the name.
func drawXattrValue(d *drawer) {
	switch d.op.Name {
	case "security.capability":
		d.op.Data = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	case "system.posix_acl_access", "system.posix_acl_default":
		d.op.Data = pick(d.generator, acl("u::rwx,u:1000:rwx,g::r-x,m::rwx,o::---"), acl("u::rw-,g::r--,o::r--"), acl("u::rwx,g::---,g:1001:rwx,m::r-x,o::r-x"))
	default:
		d.op.Data = pick(d.generator, "", "v", "value two", string(make([]byte, 300)))
	}
	d.op.Flags = pick(d.generator, 0, 0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE)
}
