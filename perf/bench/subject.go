package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// Request says what kind of mount a work needs.
type Request struct {
	Set      *LayerSet
	Upper    string // with Work: fresh and empty directories on the layers' file system; empty: a read-only mount
	Work     string
	Target   string // where to mount: a fresh and empty directory
	CopyUp   bool   // files of lower layers will be changed
	Uncached bool   // names and attributes are valid for no time at all (timeout=0)
	Volatile bool   // nothing is synced to disk
}

// Subject is something that shows a stack of layers as one tree.
type Subject interface {
	// Name is how the command line, the table and the report call it.
	Name() string
	// Version is what the program says of itself, or where the subject comes from. It returns an error that says why the
	// subject cannot be had on this machine at all.
	Version(ctx context.Context) (string, error)
	// Able says why a request is beyond the subject, or nil.
	Able(r *Request) error
	// Mount makes the mount, ready to be used.
	Mount(ctx context.Context, r *Request) (*Mount, error)
}

// Launcher is a Subject that is mounted by a command which returns when the mount can be used.
type Launcher interface {
	Subject
	// Launch runs that command to its end and returns an error if it failed.
	Launch(ctx context.Context, r *Request) error
}

// The subjects' names, as targets refer to them.
const (
	Native          = "native"
	Overlayfs       = "overlayfs"
	DeepOverlay     = "deep-overlay"
	DeepStacked     = "deep-stacked"
	DeepFUSE        = "deep-fuse"
	DeepCache       = "deep-cache"
	DeepPassthrough = "deep-passthrough"
	DeepOff         = "deep-off"
	FuseOverlayfs1  = "fuse-overlayfs-1"
	FuseOverlayfs2  = "fuse-overlayfs-2"
	Mergerfs        = "mergerfs"
	UnionfsFuse     = "unionfs-fuse"
)

// Subjects returns all subjects in the order in which reports show them. binary is the unionfs-deep program; userXattr says
// that overlay's xattrs are user.overlay.* here, as in a user namespace.
func Subjects(binary string, userXattr bool) []Subject {
	return []Subject{
		native{},
		kernelOverlay{userXattr: userXattr},
		deep{name: DeepOverlay, route: "overlay", binary: binary, maxLayers: 500},
		deep{name: DeepStacked, route: "stacked", binary: binary, maxLayers: 999},
		deep{name: DeepFUSE, route: "fuse", fastpath: "auto", binary: binary},
		deep{name: DeepCache, route: "fuse", fastpath: "cache", binary: binary},
		deep{name: DeepPassthrough, route: "fuse", fastpath: "passthrough", binary: binary},
		deep{name: DeepOff, route: "fuse", fastpath: "off", binary: binary},
		newPeer(FuseOverlayfs1),
		newPeer(FuseOverlayfs2),
		newPeer(Mergerfs),
		newPeer(UnionfsFuse),
	}
}

// choose returns the subjects that the names ask for, all of them if there are none.
func choose(all []Subject, names []string) ([]Subject, error) {
	if len(names) == 0 {
		return all, nil
	}
	var out []Subject
	for _, s := range all {
		if slices.Contains(names, s.Name()) {
			out = append(out, s)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(s Subject) bool { return s.Name() == name }) {
			return nil, fmt.Errorf("unknown subject %q: it is one of %s", name, subjectNames(all))
		}
	}
	return out, nil
}

func subjectNames(all []Subject) []string {
	var names []string
	for _, s := range all {
		names = append(names, s.Name())
	}
	return names
}

// native is the merged tree as a plain directory.
type native struct{}

func (native) Name() string { return Native }

func (native) Version(context.Context) (string, error) {
	return "a plain directory with the merged tree", nil
}

func (native) Able(r *Request) error {
	if r.Uncached {
		return errors.New("a plain directory sends no requests")
	}
	return nil
}

// Mount hands out the set's merged tree itself: what a work makes in it goes when the mount is closed.
func (native) Mount(_ context.Context, r *Request) (*Mount, error) {
	return &Mount{Root: r.Set.Merged, made: filepath.Join(r.Set.Merged, scratch)}, nil
}
