package unionfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// Cookies of the two names that every directory has; those of a listing come after them.
const (
	cookieDot    = 1
	cookieDotDot = 2
)

// OpenDir tells the kernel not to ask again: reading a directory needs no state, since a cookie stays with its name.
func (f *FS) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	switch f.profile {
	case perf.Cache:
		return fuse.ENOSYS
	case perf.Passthrough:
		out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	_, err := f.directory(in.NodeId)
	return status(err)
}

// ReadDir lists a directory from a cookie on.
func (f *FS) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n, err := f.toList(in, false)
	if err != nil {
		return status(err)
	}
	return status(f.readDir(n, in, func(e *fuse.DirEntry, parent *node, real bool) (bool, error) {
		if real && f.mayHideOrigin(parent) {
			if err := f.originIno(parent, e); err != nil {
				return false, err
			}
		}
		return out.AddDirEntry(*e), nil
	}))
}

// ReadDirPlus lists a directory together with what Lookup would answer for each name.
func (f *FS) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n, err := f.toList(in, true)
	if err != nil {
		return status(err)
	}
	defer f.lookUpBeside(n, in.Offset, in.Size)()
	return status(f.readDir(n, in, func(e *fuse.DirEntry, parent *node, real bool) (bool, error) {
		if !real {
			return out.AddDirLookupEntry(*e) != nil, nil
		}
		return f.addPlus(out, e, parent), nil
	}))
}

// addPlus adds one entry with its attributes. One whose look-up fails is added without: the kernel asks when it is needed,
// and gets the error then.
func (f *FS) addPlus(out *fuse.DirEntryList, e *fuse.DirEntry, parent *node) bool {
	var entry fuse.EntryOut
	var st unix.Statx_t
	n, err := f.childStat(parent, e.Name, &st)
	if err == nil {
		err = f.entryStat(n, &st, &entry)
	}
	if err == nil {
		e.Ino, e.Mode = entry.Attr.Ino, entry.Attr.Mode
	}
	room := out.AddDirLookupEntry(*e)
	if err != nil {
		return room != nil
	}
	if room == nil {
		f.Forget(n.id, 1)
		return false
	}
	*room = entry
	return true
}

// toList returns the directory that a request wants listed, perhaps with attributes, merged. The first request for a directory sets
// off the work ahead.
func (f *FS) toList(in *fuse.ReadIn, attributes bool) (*node, error) {
	n, err := f.directory(in.NodeId)
	if err == nil {
		err = f.list(n)
	}
	if err == nil && in.Offset == 0 {
		f.mergeAhead(n, attributes)
	}
	return n, err
}

// readDir calls add for each entry after the offset until it reports that there is no room. real is false for "." and
// "..".
func (f *FS) readDir(n *node, in *fuse.ReadIn, add func(e *fuse.DirEntry, parent *node, real bool) (bool, error)) error {
	if in.Offset == 0 {
		f.dropImpure(n)
	}
	for offset := in.Offset; ; {
		e, ok := f.nextEntry(n, offset)
		if !ok {
			f.dropLookedUp(n)
			return nil
		}
		more, err := add(&e, n, offset >= cookieDotDot)
		if err != nil || !more {
			return err
		}
		offset = e.Off
	}
}

// dropImpure takes the mark off a directory that holds nothing which came from below any more, as far as that is seen at
// once: it is empty. The kernel does the same when it reads a directory (ovl_cache_get_impure).
func (f *FS) dropImpure(n *node) {
	if !n.dir.impure.Load() || len(n.dir.places) > 0 || f.writable() != nil || f.mustBeEmpty(n) != nil {
		return
	}
	up, err := f.upperDir(n)
	if err != nil || up == nil {
		return
	}
	defer up.Release()
	if layers.Removexattr(up.FD, "", f.stack.Namespace().Impure()) == nil {
		n.dir.impure.Store(false)
		f.attributesChanged(n) // its time of change
	}
}

// nextEntry returns the first entry after an offset.
func (f *FS) nextEntry(n *node, offset uint64) (fuse.DirEntry, bool) {
	f.tree.RLock()
	defer f.tree.RUnlock()
	switch offset {
	case 0:
		return fuse.DirEntry{Name: ".", Mode: unix.S_IFDIR, Ino: n.ino.Load(), Off: cookieDot}, true
	case cookieDot:
		ino := n.ino.Load()
		if n.parent != nil {
			ino = n.parent.ino.Load()
		}
		return fuse.DirEntry{Name: "..", Mode: unix.S_IFDIR, Ino: ino, Off: cookieDotDot}, true
	}
	e := n.dir.listing.After(offset)
	if e == nil {
		return fuse.DirEntry{}, false
	}
	d := fuse.DirEntry{Name: e.Name, Mode: uint32(e.Type) << 12, Ino: f.entryInoLocked(n, e), Off: uint64(e.Cookie)}
	return d, true
}

// entryInoLocked is the inode number that a directory's entry shows.
func (f *FS) entryInoLocked(n *node, e *layers.Entry[*node]) uint64 {
	if e.Value != nil {
		return e.Value.ino.Load()
	}
	if e.Place == layers.InUpper {
		return f.stack.Ino(f.stack.Upper.Dev(), e.Ino)
	}
	return f.stack.Ino(n.dir.places[e.Place].Layer.Dev(), e.Ino)
}

// mayHideOrigin reports whether entries of a directory may show the inode number of a lower file that they come from,
// which the upper directory does not give: it is merged, or impure.
func (f *FS) mayHideOrigin(n *node) bool {
	return n.upper.Load() != 0 && (len(n.dir.places) > 0 || n.dir.impure.Load())
}

// originIno looks an upper entry up, so that readdir gives the inode number that stat does (ovl_cache_update_ino).
func (f *FS) originIno(parent *node, e *fuse.DirEntry) error {
	f.tree.RLock()
	entry := parent.dir.listing.Find(e.Name)
	known := entry == nil || entry.Value != nil || entry.Place != layers.InUpper
	f.tree.RUnlock()
	if known {
		return nil
	}
	n, err := f.child(parent, e.Name)
	if err != nil {
		return nil // listed all the same; the error comes with the look-up
	}
	e.Ino = n.ino.Load()
	f.Forget(n.id, 1)
	return nil
}

// ReleaseDir has nothing to give back.
func (f *FS) ReleaseDir(in *fuse.ReleaseIn) {}
