package overlaytest

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
)

// BaseSet draws the layers on which a random program runs: plain ones, in which most operations have something to do,
// and a directory for each thread. Options are those of the mount.
func BaseSet(seed uint64, options []string) Set {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0xba5e)), prefix: TrustedOverlay, set: Set{Options: options}, dirs: []string{"."}}
	if g.set.User() {
		g.prefix = UserOverlay
	}
	bottom, top := g.plainLayer(12), g.plainLayer(8)
	for i := 1; i <= threads; i++ {
		dir := threadDir(i)
		bottom = append(bottom, Entry{Path: dir, Kind: Dir, Mode: 0o777}, Entry{Path: dir + "/d", Kind: Dir, Mode: 0o777},
			Entry{Path: dir + "/f", Kind: File, Mode: 0o666, Seed: dir, Size: 5000},
			Entry{Path: dir + "/d/f", Kind: File, Seed: dir, Size: 10})
	}
	g.set.Lower = []Layer{top, bottom}
	return g.set
}

// plainLayer draws n entries that hide little.
func (g *generator) plainLayer(n int) Layer {
	var l Layer
	for len(l) < n {
		p := path.Join(pick(g, g.dirs...), pick(g, poolNames...))
		switch k := g.IntN(16); {
		case k < 5:
			g.dirs = append(g.dirs, p)
			l = append(l, Entry{Path: p, Kind: Dir, Mode: pick[uint32](g, 0o755, 0o777, 0o1777, 0o2777), UID: pick(g, 0, 1000), Xattrs: g.plainXattrs()})
		case k < 11:
			g.files = append(g.files, p)
			l = append(l, Entry{Path: p, Kind: File, Mode: pick[uint32](g, 0o644, 0o666, 0o600, 0o4755, 0o2755), UID: pick(g, 0, 1000),
				Seed: fmt.Sprintf("%s %d", path.Base(p), len(l)), Size: pick(g, 0, 10, 4096, 10_000, 70_000), Hole: pick(g, 0, 0, 0, 8192),
				Xattrs: g.plainXattrs()})
		case k < 12 && len(g.files) > 0 && !slices.Contains(g.set.Options, "index=on"):
			// A union served by FUSE does not know by which of its names an indexed file is used, so what name the
			// upper gets is left to the cases.
			l = append(l, Entry{Path: p, Kind: HardLink, Target: pick(g, g.files...)})
		case k < 14 && g.prefix != TrustedOverlay:
			// Nothing but files and directories can carry user.overlay.origin, and a further name of one that cannot
			// has another inode number than the first, until the next mount.
			l = append(l, Entry{Path: p, Kind: Whiteout})
		case k < 13:
			l = append(l, Entry{Path: p, Kind: Symlink, Target: pick(g, "a", "../b", "c")})
		case k < 14:
			l = append(l, Entry{Path: p, Kind: pick(g, Fifo, Socket)})
		case k < 15:
			l = append(l, Entry{Path: p, Kind: Whiteout})
		default:
			l = append(l, Entry{Path: p, Kind: Dir, Xattrs: []Xattr{{g.prefix + "opaque", "y"}}})
		}
	}
	return l
}

// plainXattrs draws xattrs that copy-up has to carry.
func (g *generator) plainXattrs() []Xattr {
	if !g.one(3) {
		return nil
	}
	return []Xattr{pick(g, Xattr{"user.a", "lower"}, Xattr{"trusted.t", "lower"},
		Xattr{"system.posix_acl_access", acl("u::rwx,u:1000:rwx,g::r-x,m::rwx,o::---")})}
}
