package unionfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// Rename moves or exchanges names. RENAME_WHITEOUT gives EINVAL as it does on kernel overlayfs: a whiteout cannot be seen
// through the union.
func (f *FS) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return fuse.EINVAL
	}
	r := rename{f: f, exchange: in.Flags&unix.RENAME_EXCHANGE != 0, noReplace: in.Flags&unix.RENAME_NOREPLACE != 0}
	r.from.name, r.to.name = oldName, newName
	var err error
	if r.from.dir, err = f.directory(in.NodeId); err == nil {
		r.to.dir, err = f.directory(in.Newdir)
	}
	if err == nil {
		err = r.run(cancel)
	}
	return status(err)
}

// rename is the state of one rename (ovl_rename).
type rename struct {
	f                   *FS
	exchange, noReplace bool
	from, to            renamed
	full                bool // what would be replaced is a directory of the upper alone, and not empty
}

// renamed is one of the two names.
type renamed struct {
	dir  *node
	name string
	n    *node        // what it names, nil for nothing
	up   *layers.File // upper directory of dir

	inUpper, covers bool
	whiteout        bool // a whiteout is in the upper directory under the name
}

func (r *rename) run(cancel <-chan struct{}) error {
	defer r.release()
	if err := r.resolve(); err != nil || r.from.n == r.to.n {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	err := r.prepare(cancel)
	if err == nil {
		err = r.locked()
	}
	return r.f.unsure(err, r.from.dir, r.to.dir, r.from.n, r.to.n)
}

// locked does what has been prepared.
func (r *rename) locked() error {
	defer r.lockNodes()()
	if replaced := r.replaced(); replaced != nil {
		defer r.f.letGoNamed(replaced)
		if err := r.f.keep(replaced); err != nil {
			return err
		}
	}
	defer r.lockDirs()()
	r.look(&r.from)
	r.look(&r.to)
	if err := r.mark(); err != nil {
		return err
	}
	return r.replace()
}

// replace does the rename, on disk and then in memory. An error means that neither has been done.
func (r *rename) replace() error {
	replaced, hidden := r.replaced(), hiddenBy(!r.to.inUpper)
	if replaced != nil {
		if err := r.f.beforeLinks(replaced, hidden); err != nil {
			return err
		}
	}
	if err := r.move(); err != nil {
		if replaced != nil {
			r.f.restoreLinks(replaced, hidden)
		}
		return err
	}
	r.settle()
	if replaced != nil {
		r.f.afterUnlink(replaced)
	}
	return nil
}

// resolve finds what the names are.
func (r *rename) resolve() (err error) {
	if err := r.f.writable(); err != nil {
		return err
	}
	if r.from.n, err = r.f.child(r.from.dir, r.from.name); err != nil {
		return err
	}
	r.to.n, err = r.f.child(r.to.dir, r.to.name)
	switch {
	case err == unix.ENOENT && !r.exchange:
		return nil
	case err == nil && r.noReplace:
		return unix.EEXIST
	}
	return err
}

// prepare copies up what the rename needs in the upper layer, when it is known that it may go ahead.
func (r *rename) prepare(cancel <-chan struct{}) (err error) {
	if r.from.up, err = r.f.prepareParent(cancel, r.from.dir, r.from.name); err != nil {
		return err
	}
	if err := r.copyUp(cancel, &r.from); err != nil {
		return err
	}
	if r.to.up, err = r.f.prepareParent(cancel, r.to.dir, r.to.name); err != nil {
		return err
	}
	if replaced := r.replaced(); replaced != nil {
		return r.f.intoIndex(cancel, replaced)
	}
	if r.exchange {
		return r.copyUp(cancel, &r.to)
	}
	return nil
}

// copyUp makes sure that a name is in the upper layer: not only its file, which may be there under another name.
func (r *rename) copyUp(cancel <-chan struct{}, x *renamed) error {
	if err := r.f.copyUpMeta(cancel, x.n); err != nil || !r.f.isIndexed(x.n) {
		return err
	}
	return r.f.linkUp(x.n, x.dir, x.name)
}

// replaced is what loses its name.
func (r *rename) replaced() *node {
	if r.exchange {
		return nil
	}
	return r.to.n
}

func (r *rename) release() {
	for _, x := range []*renamed{&r.from, &r.to} {
		if x.up != nil {
			x.up.Release()
		}
		if x.n != nil {
			r.f.Forget(x.n.id, 1)
		}
	}
}

// check refuses what cannot be moved: a directory that a lower layer has a part in, without redirects.
func (r *rename) check() error {
	if !r.f.canMove(r.from.n) || r.exchange && !r.f.canMove(r.to.n) {
		return unix.EXDEV
	}
	if r.exchange || r.to.n == nil {
		return nil
	}
	if r.to.n.dir == nil {
		if r.from.n.dir != nil {
			return unix.ENOTDIR
		}
		return nil
	}
	if r.from.n.dir == nil {
		return unix.EISDIR
	}
	err := r.f.mustBeEmpty(r.to.n)
	if err == unix.ENOTEMPTY && len(r.to.n.dir.places) == 0 {
		r.full, err = true, nil // it is left to the upper's rename, which comes after copy-up and marks
	}
	return err
}

// canMove is ovl_can_move.
func (f *FS) canMove(n *node) bool {
	return n.dir == nil || f.opts.RedirectDir == RedirectOn || len(n.dir.places) == 0
}

// lockNodes locks what is named, in the order of node ids.
func (r *rename) lockNodes() (unlock func()) {
	a, b := r.from.n, r.to.n
	if b == nil {
		a.mu.Lock()
		return a.mu.Unlock
	}
	if a.id > b.id {
		a, b = b, a
	}
	a.mu.Lock()
	b.mu.Lock()
	return func() { b.mu.Unlock(); a.mu.Unlock() }
}

// lockDirs locks the two directories, in the order of node ids.
func (r *rename) lockDirs() (unlock func()) {
	a, b := r.from.dir, r.to.dir
	if a == b {
		a.dir.mu.Lock()
		return a.dir.mu.Unlock
	}
	if a.id > b.id {
		a, b = b, a
	}
	a.dir.mu.Lock()
	b.dir.mu.Lock()
	return func() { b.dir.mu.Unlock(); a.dir.mu.Unlock() }
}

// look finds out what the upper directory holds under a name.
func (r *rename) look(x *renamed) {
	var ok bool
	if x.inUpper, x.covers, ok = r.f.entryState(x.dir, x.name); ok {
		return
	}
	var st unix.Statx_t
	x.whiteout = layers.Stat(x.up, x.name, &st) == nil
}

// mark prepares what moves for its new place: directories get a redirect, or are made opaque, so that they merge with what
// they did and with nothing else; the directory that takes in what came from below becomes impure.
func (r *rename) mark() error {
	if err := r.markOne(&r.from, &r.to); err != nil {
		return err
	}
	if r.exchange {
		return r.markOne(&r.to, &r.from)
	}
	return nil
}

func (r *rename) markOne(x, to *renamed) error {
	f := r.f
	if x.n.dir != nil {
		switch {
		case x.n.dir.opaque: // it merges with nothing wherever it is
		case len(x.n.dir.places) > 0:
			if err := f.setRedirect(x, x.dir == to.dir); err != nil {
				return err
			}
		case len(to.dir.dir.places) > 0:
			if err := f.setOpaque(place{x.up, x.name}); err != nil {
				return unix.EXDEV
			}
			x.n.dir.opaque = true
		}
	} else if f.isMetacopy(x.n) {
		name := ""
		if x.dir == to.dir {
			name = x.name
		}
		if err := f.setFileRedirect(x.n, place{x.up, x.name}, name); err != nil {
			return err
		}
	}
	if x.dir != to.dir && (len(x.dir.dir.places) > 0 || x.dir.dir.impure.Load()) {
		if f.hasOrigin(x) {
			return f.setImpure(to.dir, to.up)
		}
	}
	return nil
}

func (f *FS) hasOrigin(x *renamed) bool {
	_, err := layers.Getxattr(x.up, x.name, f.stack.Namespace().Origin(), nil)
	return err == nil
}

// setRedirect stores where a directory's lower parts are found once it is renamed (ovl_set_redirect): its old name while
// it stays in the same directory, else its path in the union of the lower layers. One that is there already and says so
// stays.
func (f *FS) setRedirect(x *renamed, sameDir bool) error {
	d := x.n.dir
	absolute := "/" + d.origin
	if d.redirect != "" && (sameDir || d.redirect[0] == '/') {
		return nil
	}
	value := absolute
	if sameDir {
		value = x.name
	}
	redirect, err := whiteout.NewRedirect(value)
	if err != nil {
		return unix.EXDEV
	}
	if err := layers.Setxattr(x.up.FD, x.name, f.stack.Namespace().Redirect(), []byte(redirect.String()), 0); err != nil {
		return unix.EXDEV
	}
	d.redirect = redirect.String()
	return nil
}

// setFileRedirect stores where a metacopy file's data is found under another name: under its old one in the same directory,
// where that is given and is the only one, else by its path in its layer. One that is there already stays, unless it is a
// name and no longer says so.
func (f *FS) setFileRedirect(n *node, at place, name string) error {
	attr := f.stack.Namespace().Redirect()
	if old, err := layers.ReadXattr(at.FD, at.name, attr); err == nil && len(old) > 0 && (old[0] == '/' || name != "") {
		return nil
	}
	f.tree.RLock()
	data, dataName := n.ext.data, n.ext.dataName
	f.tree.RUnlock()
	if data == nil {
		return unix.EXDEV
	}
	if name == "" || f.lowerLinks(n) > 1 {
		name = "/" + layers.JoinPath(data.Path, dataName)
	}
	redirect, err := whiteout.NewRedirect(name)
	if err != nil {
		return unix.EXDEV
	}
	return layers.Setxattr(at.FD, at.name, attr, []byte(redirect.String()), 0)
}

func (f *FS) lowerLinks(n *node) uint32 {
	var st unix.Statx_t
	if n.lower == nil || f.statLower(n, &st) != nil {
		return 1
	}
	return st.Nlink
}

// move does the rename in the upper layer: one system call, which also leaves the whiteout. Nothing fails after it: a
// whiteout that hides nothing and stays is seen by nobody.
func (r *rename) move() error {
	from, to := &r.from, &r.to
	flags := uint(0)
	switch {
	case r.exchange:
		flags = unix.RENAME_EXCHANGE
	case from.covers && to.whiteout, to.whiteout && from.n.dir != nil:
		flags = unix.RENAME_EXCHANGE // the whiteout goes to where it is needed, or is removed there
	case from.covers:
		flags = unix.RENAME_WHITEOUT
	}
	err := unix.Renameat2(from.up.FD, from.name, to.up.FD, to.name, flags)
	clears := to.n != nil && to.n.dir != nil && !r.exchange && !r.full
	if clears && (err == unix.ENOTEMPTY || err == unix.EEXIST) {
		err = r.moveOverWhiteouts(flags)
	}
	if err == nil && flags == unix.RENAME_EXCHANGE && !r.exchange && !from.covers {
		_ = unix.Unlinkat(from.up.FD, from.name, 0)
	}
	return err
}

// moveOverWhiteouts is move onto an upper directory that holds nothing but whiteouts. Who has that open goes on with it, although
// it is gone before the rename.
func (r *rename) moveOverWhiteouts(flags uint) error {
	from, to := &r.from, &r.to
	ino, err := r.f.clearWhiteouts(to)
	if err != nil {
		return err
	}
	if err = unix.Renameat2(from.up.FD, from.name, to.up.FD, to.name, flags); err != nil {
		r.f.cleared(to, ino)
	}
	return err
}

// clearWhiteouts replaces an upper directory that holds nothing but whiteouts by an empty, opaque one (ovl_clear_empty), and
// returns the inode number of that.
func (f *FS) clearWhiteouts(x *renamed) (ino uint64, err error) {
	temp := f.upper.temp()
	ino, err = f.makeCleared(place{x.up, x.name}, temp)
	if err == nil {
		err = unix.Renameat2(f.upper.work, temp, x.up.FD, x.name, unix.RENAME_EXCHANGE)
	}
	f.discard(temp)
	return ino, err
}

// makeCleared makes, under a name of the work directory, an opaque directory with the attributes of another.
func (f *FS) makeCleared(from place, temp string) (ino uint64, err error) {
	var st, made unix.Statx_t
	if err := layers.Stat(from.File, from.name, &st); err != nil {
		return 0, err
	}
	if err := unix.Mkdirat(f.upper.work, temp, 0700); err != nil {
		return 0, err
	}
	at := place{layers.Borrow(f.upper.work), temp}
	if err := f.setOpaque(at); err != nil { // before the mode, which may withhold the right to set it
		return 0, err
	}
	if err := layers.Stat(at.File, temp, &made); err != nil {
		return 0, err
	}
	return made.Ino, f.copyAttributes(from, at, &st, &made, uint32(st.Mode)&07777)
}

// cleared follows in memory where the rename for which a directory was cleared has failed: the directory lives on, as another
// inode of the upper layer, which merges with nothing.
func (f *FS) cleared(x *renamed, ino uint64) {
	d := x.n.dir
	f.tree.Lock()
	old := x.n.upper.Swap(ino)
	if e := x.dir.dir.listing.Find(x.name); e != nil {
		e.Ino = ino
	}
	f.tree.Unlock()
	d.opaque, d.redirect = true, ""
	d.impure.Store(false)
	f.stack.Cache.Drop(layers.Key{Ino: old})
}

// settle follows in memory.
func (r *rename) settle() {
	f, from, to := r.f, &r.from, &r.to
	if replaced := r.replaced(); replaced != nil {
		f.unname(to.dir, to.name, replaced)
	}
	f.tree.Lock()
	defer f.tree.Unlock()
	f.handles.remove(from.dir, from.name)
	f.handles.remove(to.dir, to.name)
	f.detachLocked(from.n, from.dir, from.name)
	if r.exchange {
		f.detachLocked(to.n, to.dir, to.name)
		to.dir.dir.listing.Remove(to.name)
		from.dir.dir.listing.Remove(from.name)
		f.renamedLocked(to.n, from)
	} else {
		from.dir.dir.listing.Remove(from.name)
	}
	f.renamedLocked(from.n, to)
}

// renamedLocked gives a node its new name.
func (f *FS) renamedLocked(n *node, x *renamed) {
	covers := x.covers || x.whiteout || x.n != nil && !x.inUpper
	e := x.dir.dir.listing.Add(layers.Entry[*node]{
		Name: x.name, Ino: n.upper.Load(), Place: layers.InUpper, Type: uint8(n.kind >> 12), Covers: covers,
	})
	f.attachLocked(n, x.dir, e.Name)
}
