package overlaytest

import (
	"fmt"
	"path"
	"strings"
)

// Kind is what an [Entry] makes.
type Kind string

// The kinds of entry. Whiteout is a character device 0:0; EmptyWhiteout an empty regular file that carries the xattr
// overlay.whiteout and counts only in a directory whose overlay.opaque is "x".
const (
	File          Kind = "file"
	Dir           Kind = "dir"
	Symlink       Kind = "symlink"
	HardLink      Kind = "link"
	Fifo          Kind = "fifo"
	Socket        Kind = "socket"
	CharDevice    Kind = "char"
	BlockDevice   Kind = "block"
	Whiteout      Kind = "whiteout"
	EmptyWhiteout Kind = "emptywhiteout"
)

// Prefixes of overlayfs's own xattrs, without and with the mount option userxattr.
const (
	TrustedOverlay = "trusted.overlay."
	UserOverlay    = "user.overlay."
)

// Time is a point in time as inodes hold it: seconds since 1970, which may be negative, and nanoseconds.
type Time struct {
	Sec  int64
	Nsec int64
}

// DefaultTime is the modification time of every entry that names none: long enough ago that a change shows.
var DefaultTime = Time{Sec: 1_000_000_000, Nsec: 123_456_789}

// Xattr is one extended attribute of an entry.
type Xattr struct{ Name, Value string }

// Entry is one name in a layer. Its zero values mean: mode 0755 for a directory and 0644 for everything else, owner root,
// DefaultTime, empty.
type Entry struct {
	Path   string // relative to the layer, slash separated, any bytes
	Kind   Kind
	Mode   uint32 // permission bits, 07777; NoMode for none at all
	UID    int
	GID    int
	Time   Time
	Major  uint32 // of a device
	Minor  uint32
	Target string // what a symbolic link holds; the path of the file that a hard link names
	Size   int    // of a file, in bytes
	Seed   string // what a file is filled with: this text and a newline, again and again
	Hole   int    // bytes of hole before the content, not counted in Size
	Xattrs []Xattr
}

// NoMode stands for the mode 0000, since the zero value stands for the default.
const NoMode uint32 = 1 << 16

// Layer is a layer's entries, parents before children; a missing parent is made with the defaults.
type Layer []Entry

// Set is a union's layers as data. The topmost layer is the first.
type Set struct {
	Lower   []Layer
	Data    []Layer // data-only layers
	Upper   Layer   // what the upper directory holds beforehand
	Options []string
}

// User tells whether the set's own xattrs are user.overlay.* (mount option userxattr).
func (s Set) User() bool {
	for _, o := range s.Options {
		if o == "userxattr" {
			return true
		}
	}
	return false
}

// perm returns the permission bits that the entry is to have.
func (e Entry) perm() uint32 {
	switch {
	case e.Mode == NoMode:
		return 0
	case e.Mode != 0:
		return e.Mode
	case e.Kind == Dir:
		return 0o755
	}
	return 0o644
}

// time returns the modification time that the entry is to have.
func (e Entry) time() Time {
	if e.Time == (Time{}) {
		return DefaultTime
	}
	return e.Time
}

// Content returns the bytes of a file entry, without its hole: what `yes SEED | head -c SIZE` prints.
func (e Entry) Content() []byte {
	line := e.Seed + "\n"
	return []byte(strings.Repeat(line, e.Size/len(line)+1)[:e.Size])
}

// Entries returns the number of entries in all layers, the measure of how far a set has been shrunk.
func (s Set) Entries() int {
	n := len(s.Upper)
	for _, l := range append(append([]Layer{}, s.Lower...), s.Data...) {
		n += len(l)
	}
	return n
}

// Script returns a shell script that makes the set in the working directory: lower layers as l0 (topmost), l1, …,
// data-only layers as d0, …, the upper as u; and names the mount that goes with it. It is what a failure prints.
func (s Set) Script() string {
	var b strings.Builder
	lower := make([]string, 0, len(s.Lower))
	for i, l := range s.Lower {
		lower = append(lower, fmt.Sprintf("l%d", i))
		l.script(&b, lower[i])
	}
	joined := strings.Join(lower, ":")
	for i, l := range s.Data {
		name := fmt.Sprintf("d%d", i)
		l.script(&b, name)
		joined += "::" + name
	}
	s.Upper.script(&b, "u")
	opts := append([]string{"lowerdir=" + joined, "upperdir=u", "workdir=w"}, s.Options...)
	fmt.Fprintf(&b, "mkdir -p w m; mount -t overlay -o %s overlay m\n", strings.Join(opts, ","))
	return b.String()
}

// script writes the commands for one layer: nodes first, then times, children before parents.
func (l Layer) script(b *strings.Builder, dir string) {
	fmt.Fprintf(b, "mkdir -p %s\n", dir)
	for _, e := range l {
		fmt.Fprintln(b, strings.Join(e.commands(dir), "; "))
	}
	for i := len(l) - 1; i >= 0; i-- {
		if e := l[i]; e.Time != (Time{}) {
			fmt.Fprintf(b, "touch -h -d @%d.%09d %s\n", e.Time.Sec, e.Time.Nsec, quote(path.Join(dir, e.Path)))
		}
	}
}

// commands returns the shell commands that make the entry below dir, but for its time.
func (e Entry) commands(dir string) []string {
	p := quote(path.Join(dir, e.Path))
	var c []string
	if parent := path.Dir(e.Path); parent != "." {
		c = append(c, "mkdir -p "+quote(path.Join(dir, parent)))
	}
	c = append(c, e.create(p, dir))
	if e.Kind == HardLink {
		return c
	}
	if e.UID != 0 || e.GID != 0 {
		c = append(c, fmt.Sprintf("chown -h %d:%d %s", e.UID, e.GID, p))
	}
	if e.Mode != 0 && e.Kind != Symlink {
		c = append(c, fmt.Sprintf("chmod %04o %s", e.perm(), p))
	}
	for _, x := range e.Xattrs {
		c = append(c, fmt.Sprintf("setfattr -h -n %s -v 0x%x %s", quote(x.Name), x.Value, p))
	}
	return c
}

// create returns the command that makes the bare entry at the quoted path p.
func (e Entry) create(p, dir string) string {
	switch e.Kind {
	case Dir:
		return "mkdir -p " + p
	case Symlink:
		return "ln -s " + quote(e.Target) + " " + p
	case HardLink:
		return "ln " + quote(path.Join(dir, e.Target)) + " " + p
	case Fifo:
		return "mkfifo " + p
	case Socket:
		return "python3 -c 'import os,stat,sys; os.mknod(sys.argv[1], stat.S_IFSOCK|0o644)' " + p
	case CharDevice:
		return fmt.Sprintf("mknod %s c %d %d", p, e.Major, e.Minor)
	case BlockDevice:
		return fmt.Sprintf("mknod %s b %d %d", p, e.Major, e.Minor)
	case Whiteout:
		return "mknod " + p + " c 0 0"
	case EmptyWhiteout:
		return ": > " + p
	}
	return fmt.Sprintf("truncate -s %d %s; yes %s | head -c %d >> %s", e.Hole, p, quote(e.Seed), e.Size, p)
}

// quote quotes a word for bash, by $'…' where it holds more than plain characters.
func quote(s string) string {
	plain := s != ""
	for i := range len(s) {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-+", rune(s[i])) {
			plain = false
		}
	}
	if plain {
		return s
	}
	var b strings.Builder
	b.WriteString("$'")
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\'' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + "'"
}
