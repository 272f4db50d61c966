package overlayfallback

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mountStacked makes two kernel overlays, the lowest layers being folded into a read-only one that is in no folder and is the
// lowest layer of the other. Only the lowest may be folded: the inner mount shows neither whiteouts nor opaque marks, and a
// layer below it would show through where they were. The inner mount lives as long as the outer one.
func mountStacked(c *Config, p *Plan) error {
	return withTarget(c, func(target int) error {
		mount, err := stackOverlays(c, c.stack(), p.Folded)
		if err != nil {
			return err
		}
		defer unix.Close(mount)
		return attach(mount, target)
	})
}

// stackOverlays returns the outer mount, attached to nothing yet.
func stackOverlays(c *Config, s stack, folded int) (int, error) {
	top := len(s.lower) - folded
	inside := stack{lower: s.lower[top:], data: s.data}
	inner, err := detachedOverlay(c, inside, innerOptions(c.Options))
	if err != nil {
		return -1, fmt.Errorf("inner mount of %d layers: %w", folded, err)
	}
	defer unix.Close(inner)
	s.lower = s.lower[:top]
	return detachedOverlay(c, s, outerOptions(c.Options), inner)
}

// outerOptions are those of the outer mount. Its layers lie on two file systems, so that without xino their files would have
// several device numbers, and folders no lasting inode numbers.
func outerOptions(o Options) Options {
	if o.XIno == "" {
		o.XIno = "on"
	}
	return o
}

// innerOptions are those of the inner mount: how layers are read, and nothing of how they are written. Where redirects are not
// followed it can give file handles (the kernel does both only in a mount with an upper layer), by which a file keeps its inode
// number when it is copied up.
func innerOptions(o Options) Options {
	inner := Options{
		ReadOnly: true, Flags: o.Flags, Labels: o.Labels,
		RedirectDir: o.RedirectDir, Metacopy: o.Metacopy, Verity: o.Verity, XIno: outerOptions(o).XIno, UserXattr: o.UserXattr,
	}
	if handles(o) {
		inner.RedirectDir, inner.NFSExport = "nofollow", "on"
	}
	return inner
}

// handles tells whether the inner mount can give file handles.
func handles(o Options) bool {
	return o.Metacopy != "on" && (o.RedirectDir == "nofollow" || o.UserXattr)
}
