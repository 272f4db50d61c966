package overlaytest

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
)

// generator draws a set. Names come from a small pool, so that layers collide, and mostly what is drawn makes sense, since
// nonsense hides what is below it.
type generator struct {
	*rand.Rand
	set    Set
	prefix string   // of overlayfs's own xattrs
	size   int      // of every regular file: a metacopy has to be as large as its data, wherever that comes from
	dirs   []string // paths that are a directory in some layer
	files  []string // paths that are a regular file in some layer

	noRedirect bool // draw no redirected directories
	noMetacopy bool // draw no files whose data lies elsewhere
}

// Generate draws a set from a seed: the same seed gives the same set.
func Generate(seed uint64) Set {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0x6f76)), prefix: TrustedOverlay, dirs: []string{"."}}
	g.options()
	g.size = pick(g, 0, 1, 10, 100, 4096, 4097, 70_000)
	layers := 1 + g.IntN(4)
	upper := g.one(3)
	// Programs make both in an upper. What is drawn is of a kind that no program makes, and makes the kernel stop in the middle
	// of listing a writable union, which looks each name up: a directory that is reached by its own name and by a redirect as
	// well (ESTALE), a redirect that is none (EINVAL), a metacopy in the upper without data (EIO), either of them under options
	// that do not follow it (EPERM).
	g.noRedirect = upper
	for range g.IntN(3) {
		if g.prefix == TrustedOverlay {
			g.set.Data = append(g.set.Data, g.dataLayer())
		}
	}
	for range layers {
		// Drawn from the bottom up, so that what lies above can refer to what lies below.
		g.set.Lower = append([]Layer{g.layer()}, g.set.Lower...)
	}
	if upper {
		g.noMetacopy = true
		g.set.Upper = g.layer()
	}
	return g.set
}

// one is true once in n.
func (g *generator) one(n int) bool { return g.IntN(n) == 0 }

// pick returns one of the choices.
func pick[T any](g *generator, choices ...T) T { return choices[g.IntN(len(choices))] }

// options draws the mount options.
func (g *generator) options() {
	if g.one(5) {
		g.prefix = UserOverlay
		g.set.Options = []string{"userxattr"}
		return
	}
	redirect := pick(g, "on", "follow", "off", "nofollow")
	metacopy := pick(g, "on", "off")
	if metacopy == "on" {
		redirect = "on" // the kernel refuses metacopy with any other
	}
	g.set.Options = []string{"redirect_dir=" + redirect, "metacopy=" + metacopy, "index=" + pick(g, "on", "off")}
}

var poolNames = []string{"a", "b", "c", "d", "e"}

// name draws one path component.
func (g *generator) name() string {
	if !g.one(12) {
		return pick(g, poolNames...)
	}
	return pick(g, "ünïcödé", "name with space", "comma,colon:equals=", "new\nline", "back\\slash", "-dash", "\xff\xfe",
		"..dots", ".wh.a", ".wh..wh..opq", strings.Repeat("long", 63)+"abc")
}

// layer draws one layer.
func (g *generator) layer() Layer {
	var l Layer
	for range 2 + g.IntN(14) {
		p := path.Join(pick(g, g.dirs...), g.name())
		if g.one(4) && len(g.files) > 0 {
			p = pick(g, g.files...)
		}
		l = append(l, g.entry(p, l))
	}
	return l
}

// dataLayer draws a data-only layer: regular files, at paths that metacopy files above will name.
func (g *generator) dataLayer() Layer {
	var l Layer
	for range 1 + g.IntN(4) {
		p := path.Join("blobs", g.name())
		l = append(l, g.file(p))
	}
	return l
}

// entry draws an entry at p; l is the layer so far.
func (g *generator) entry(p string, l Layer) Entry {
	switch n := g.IntN(20); {
	case n < 6:
		return g.dir(p)
	case n < 12:
		g.files = append(g.files, p)
		return g.file(p)
	case n < 15:
		return g.whiteout(p)
	case n < 16:
		return Entry{Path: p, Kind: Symlink, Target: pick(g, "a", "../b", "/etc/hostname", "missing", strings.Repeat("x", 300)),
			UID: g.owner(), Time: g.time()}
	case n < 17 && len(l) > 0:
		return Entry{Path: p, Kind: HardLink, Target: l[g.IntN(len(l))].Path}
	case n < 18:
		return g.special(p)
	}
	if g.noMetacopy {
		return g.file(p)
	}
	return g.metacopy(p)
}

// dir draws a directory, now and then opaque, redirected, or with an xattr of a nested overlay.
func (g *generator) dir(p string) Entry {
	e := Entry{Path: p, Kind: Dir, Mode: pick(g, 0, 0, 0o700, 0o555, NoMode, 0o1777, 0o2775), UID: g.owner(), GID: g.owner(),
		Time: g.time(), Xattrs: g.xattrs()}
	switch g.IntN(10) {
	case 0, 1:
		e.Xattrs = append(e.Xattrs, Xattr{g.prefix + "opaque", "y"})
	case 2:
		e.Xattrs = append(e.Xattrs, Xattr{g.prefix + "opaque", pick(g, "x", "x", "z", "")})
	case 3, 4:
		if !g.noRedirect {
			e.Xattrs = append(e.Xattrs, Xattr{g.prefix + "redirect", g.redirect()})
		}
	case 5:
		e.Xattrs = append(e.Xattrs, Xattr{g.prefix + "overlay." + pick(g, "opaque", "redirect", "overlay.opaque"), "y"})
	case 6:
		e.Xattrs = append(e.Xattrs, Xattr{g.prefix + "impure", "y"})
	}
	g.dirs = append(g.dirs, p)
	return e
}

// redirect draws a directory redirect, mostly one that leads somewhere.
func (g *generator) redirect() string {
	switch g.IntN(4) {
	case 0:
		return g.name()
	case 1:
		return pick(g, "/missing", "missing", "/", "..", "a/b", "/a/../b", "")
	}
	return "/" + pick(g, g.dirs...)
}

// file draws a regular file.
func (g *generator) file(p string) Entry {
	e := Entry{Path: p, Kind: File, Mode: g.mode(), UID: g.owner(), GID: g.owner(), Time: g.time(), Xattrs: g.xattrs(),
		Seed: fmt.Sprintf("%s %d", path.Base(p), g.IntN(1000)), Size: g.size}
	if g.one(10) && g.size > 4096 {
		e.Hole, e.Size = 4096, g.size-4096
	}
	if g.one(10) {
		e.Xattrs = append(e.Xattrs, Xattr{"security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"})
	}
	return e
}

// whiteout draws a whiteout; one that lies in the form of an xattr needs its directory to say so, which chance provides.
func (g *generator) whiteout(p string) Entry {
	if g.one(3) {
		return Entry{Path: p, Kind: EmptyWhiteout, Xattrs: []Xattr{{g.prefix + pick(g, "whiteout", "whiteout", "overlay.whiteout"), pick(g, "", "y")}}}
	}
	return Entry{Path: p, Kind: Whiteout}
}

// special draws a fifo, socket or device.
func (g *generator) special(p string) Entry {
	e := Entry{Path: p, Kind: pick(g, Fifo, Socket, CharDevice, BlockDevice), Mode: g.mode(), UID: g.owner(), Time: g.time()}
	if e.Kind == CharDevice || e.Kind == BlockDevice {
		e.Major, e.Minor = 1+uint32(g.IntN(255)), uint32(g.IntN(70_000))
	}
	return e
}

// metacopy draws a file whose data lies elsewhere: at the same path below, at a redirect, or in a data-only layer.
func (g *generator) metacopy(p string) Entry {
	e := Entry{Path: p, Kind: File, Mode: g.mode(), UID: g.owner(), Time: g.time(), Hole: g.size}
	value := pick(g, "", "", "\x00\x04\x00\x00", "\x01", "\x00\x04\x00\x00more")
	e.Xattrs = append(g.xattrs(), Xattr{g.prefix + "metacopy", value})
	switch {
	case len(g.set.Data) > 0 && g.one(2):
		blobs := g.set.Data[0]
		e.Xattrs = append(e.Xattrs, Xattr{g.prefix + "redirect", "/" + blobs[g.IntN(len(blobs))].Path})
	case len(g.files) > 0 && g.one(2):
		e.Xattrs = append(e.Xattrs, Xattr{g.prefix + "redirect", pick(g, "/"+pick(g, g.files...), g.name())})
	}
	return e
}

func (g *generator) mode() uint32 {
	return pick(g, 0, 0, 0o600, 0o755, 0o4755, 0o2755, 0o6711, 0o1644, NoMode, 0o7777)
}

func (g *generator) owner() int { return pick(g, 0, 0, 0, 1000, 1001, 65534, 70_000, 1<<31) }

func (g *generator) time() Time {
	return pick(g, Time{}, Time{}, Time{Sec: -1_000_000, Nsec: 5}, Time{Sec: 5_000_000_000, Nsec: 999_999_999}, Time{Sec: 1, Nsec: 1})
}

// xattrs draws xattrs that have nothing to do with overlayfs, for a file or directory.
func (g *generator) xattrs() []Xattr {
	if !g.one(4) {
		return nil
	}
	return []Xattr{pick(g, Xattr{"user.plain", "value"}, Xattr{"user.empty", ""}, Xattr{"trusted.plain", "\x00\x01\xff"},
		Xattr{"user.big", strings.Repeat("big", 500)}, Xattr{"trusted.overlayish", "y"},
		Xattr{"system.posix_acl_access", acl("u::rw-,u:1000:rwx,g::r--,m::rwx,o::---")})}
}
