package layers

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// Dir is a directory of the union as a look-up needs it.
type Dir struct {
	Upper  *File   // its directory in the upper layer, or nil
	Places []Place // its directories in lower layers, topmost first
	Origin string  // its path in the union of the lower layers, which redirects name
}

// Candidates says where a merge of the directory has seen a name, so that no other place is asked.
type Candidates struct {
	InUpper bool
	Places  []int32 // indexes of Dir.Places, topmost first
}

// Found is what a name is.
type Found struct {
	InUpper bool
	Mode    uint32       // file type bits of the topmost
	Stat    unix.Statx_t // of the topmost

	// Of a directory: its places in lower layers and its path in their union.
	Places []Place
	Origin string
	Opaque bool // the upper directory is opaque

	// Of a file that a lower layer holds (also the metadata of an upper metacopy file's origin).
	Lower     *Place // directory in which it is, nil for none
	LowerName string

	// Of a metacopy file: where its data is.
	Metacopy bool // the topmost file has metadata only
	Data     *Place
	DataName string

	Redirect string // of the upper layer's file, as stored; empty for none
}

// Lookup finds what a name of a directory is, by the rules of ovl_lookup. It returns ENOENT where no layer has it, or a
// whiteout hides it; EPERM where a redirect or metacopy file may not be followed; EIO for a metacopy file without data.
func (s *Stack) Lookup(dir *Dir, name string, at Candidates) (*Found, error) {
	l := lookup{s: s, dir: dir, name: name, hint: at.Places, hinted: true, found: &Found{}}
	if at.InUpper {
		if err := l.upper(); err != nil {
			return nil, err
		}
	}
	if !l.stop {
		if err := l.lower(); err != nil {
			return nil, err
		}
	}
	return l.result()
}

// lookup is the state of one Lookup (struct ovl_lookup_data).
type lookup struct {
	s   *Stack
	dir *Dir

	name   string  // what is looked for in the next place: a name, or after an absolute redirect a path from the root
	abs    bool    // name is a path from each layer's root
	hint   []int32 // places to ask
	hinted bool    // hint holds: the name is still the one that the merge has seen

	found     *Found
	isDir     bool
	any       bool // something was found
	lowers    int  // how many lower layers had it
	stop      bool // nothing below counts
	last      bool // nothing is looked for below what is being looked at
	metacopy  bool // data is still to be found
	redirect  bool // something found is redirected
	toRoot    bool // what was looked at last has a redirect, and that is absolute
	upperMeta bool
	whiteouts whiteouts // what the directory that was looked at last may hold
}

func (l *lookup) upper() error {
	f := l.found
	var st unix.Statx_t
	if err := Stat(l.dir.Upper, l.name, &st); err != nil {
		if absent(err) {
			return nil
		}
		return err
	}
	if IsWhiteout(l.s, l.dir.Upper, l.name, &st, true) {
		l.stop = true
		return nil
	}
	f.InUpper, f.Mode, f.Stat, l.any = true, uint32(st.Mode)&unix.S_IFMT, st, true
	l.last = !l.s.cfg.Redirect && len(l.s.Data) == 0 && len(l.dir.Places) == 0
	if err := l.inspect(l.dir.Upper, l.name, f.Mode); err != nil {
		return err
	}
	f.Opaque = l.isDir && l.stop
	l.upperMeta = l.metacopy
	f.Metacopy = l.metacopy
	if l.redirect {
		f.Redirect = l.redirectValue()
	}
	return nil
}

// inspect reads the xattrs of something found, and sets what they mean for the places below (ovl_lookup_single).
func (l *lookup) inspect(at *File, name string, mode uint32) error {
	if mode == unix.S_IFDIR {
		l.isDir = true
		if l.last {
			l.whiteouts = whiteoutsUnknown
			return nil
		}
		marked := l.s.mayBeMarked(at, name)
		if l.isOpaque(at, name, marked) {
			l.stop = true
			return nil
		}
		if !marked {
			l.toRoot = false
			return nil
		}
	} else {
		meta, err := l.s.isMetacopy(at, name, mode)
		if err != nil {
			return err
		}
		l.metacopy, l.stop = meta, !meta
		if !meta || l.last {
			return nil
		}
		l.hinted = false // the merge has not looked below a file
	}
	return l.readRedirect(at, name, "")
}

// isOpaque reports whether a directory hides the places below, and remembers whether it holds xattr whiteouts.
func (l *lookup) isOpaque(at *File, name string, marked bool) bool {
	o := whiteout.NotOpaque
	if marked {
		o = l.s.Opaqueness(at, name)
	}
	l.whiteouts = whiteoutsNone
	if o == whiteout.XattrWhiteouts {
		l.whiteouts = whiteoutsXattr
	}
	return o == whiteout.Opaque || l.s.cfg.AUFS && l.s.aufsOpaque(at, name)
}

// readRedirect sets the name under which the places below are asked for what (at, name) is: the last component of the path
// that is looked for, or one before it, where after is what follows that (ovl_check_redirect).
func (l *lookup) readRedirect(at *File, name, after string) error {
	l.toRoot = false
	value, err := ReadXattr(at.FD, name, l.s.cfg.Namespace.Redirect())
	if err != nil {
		return ignorable(err)
	}
	r, err := whiteout.ParseRedirect(value)
	if err := errnoOf(err); err != nil && err != unix.EACCES { // which is step's to give
		return err
	}
	l.redirect, l.hinted, l.toRoot = true, false, r.Absolute
	before := ""
	switch {
	case r.Absolute:
		// A redirect below an opaque directory leads out of it.
		l.abs, l.stop = true, false
	case l.abs:
		before = strings.TrimSuffix(l.name, after)
		before = before[:strings.LastIndexByte(before, '/')+1]
	}
	l.name = before + r.Path + after
	return nil
}

func (l *lookup) redirectValue() string {
	if l.abs {
		return "/" + l.name
	}
	return l.name
}

// lower asks the places below, topmost first.
func (l *lookup) lower() error {
	next := 0 // index of the next place, among the layers' roots after an absolute redirect
	abs := l.abs
	for !l.stop {
		i, ok := l.nextPlace(next)
		if !ok {
			return nil
		}
		if !l.mayFollow() {
			return unix.EPERM
		}
		place := l.placeAt(i)
		l.setLast(i, place.Layer)
		if err := l.ask(place); err != nil {
			return err
		}
		if next = i + 1; l.abs && !abs {
			// From here on the layers are asked from their roots, beginning with the one below this.
			abs, next = true, place.Layer.Index
		}
	}
	return nil
}

// nextPlace returns the first place from next on that is to be asked.
func (l *lookup) nextPlace(next int) (int, bool) {
	if l.abs {
		return next, next < len(l.s.Lower)
	}
	if !l.hinted {
		return next, next < len(l.dir.Places)
	}
	for _, i := range l.hint {
		if int(i) >= next {
			return int(i), true
		}
	}
	return 0, false
}

// setLast finds out whether a place is the last one to be asked. What is found there needs no look at its redirect.
func (l *lookup) setLast(i int, layer *Layer) {
	check := l.s.cfg.Redirect || len(l.s.Data) > 0
	switch {
	case !check && l.abs:
		l.last = i == len(l.s.Lower)-1
	case !check:
		l.last = i == len(l.dir.Places)-1
	case l.isDir || len(l.s.Data) == 0:
		l.last = layer.Index == len(l.s.Lower)
	}
}

func (l *lookup) placeAt(i int) *Place {
	if l.abs {
		return &Place{Layer: l.s.Lower[i]}
	}
	return &l.dir.Places[i]
}

// ask looks for the name in one place and takes what it finds.
func (l *lookup) ask(place *Place) error {
	at, err := l.walk(place)
	if err != nil || at == nil {
		return err
	}
	defer at.file.Release()
	if l.metacopy && at.mode != unix.S_IFREG || l.any && l.isDir != (at.mode == unix.S_IFDIR) {
		l.stop = true
		return nil
	}
	wasMeta := l.metacopy
	if err := l.inspect(at.file, at.name, at.mode); err != nil {
		return err
	}
	l.lowers++
	l.take(at, wasMeta)
	return nil
}

// take adds something found to the result. Of a chain of metacopy files only the top one and the data are kept.
func (l *lookup) take(at *located, wasMeta bool) {
	f := l.found
	if !l.any {
		f.Mode, f.Stat = at.mode, at.stat
		f.Metacopy = l.metacopy
	}
	l.any = true
	if at.mode == unix.S_IFDIR {
		if len(f.Places) == 0 {
			f.Origin = l.originPath(at)
		}
		p := at.dir.child(at.name)
		p.whiteouts = l.whiteouts
		f.Places = append(f.Places, p)
		return
	}
	if f.Lower == nil {
		f.Lower, f.LowerName = at.dir, at.name
	}
	if !l.metacopy && (wasMeta || f.Metacopy) {
		f.Data, f.DataName = at.dir, at.name
	}
}

// originPath is the path by which the union of the lower layers leads to a directory.
func (l *lookup) originPath(at *located) string {
	if at.abs {
		return at.path
	}
	return JoinPath(l.dir.Origin, at.name)
}

// JoinPath joins a path in a layer, empty for its root, and a name.
func JoinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// located is something that one place holds.
type located struct {
	file *File  // its directory, open
	dir  *Place // its directory
	name string // its name there
	path string // with abs, the path from the layer's root by which it was looked for
	abs  bool
	mode uint32 // file type
	stat unix.Statx_t
}

// walk looks for the name, or for the path from the root, in one place. It returns nil where the place has it not, or a
// whiteout (ovl_lookup_layer).
func (l *lookup) walk(place *Place) (*located, error) {
	switch {
	case !l.abs && l.hinted && l.any && l.isDir:
		return l.seen(place)
	case !l.abs:
		return l.step(place, l.name)
	}
	path := l.name
	for rest := path; ; {
		name, more, deeper := strings.Cut(rest, "/")
		at, err := l.step(place, name)
		if err != nil || at == nil {
			return nil, err
		}
		if !deeper {
			at.abs, at.path = true, path
			return at, nil
		}
		ok, err := l.passThrough(at, "/"+more)
		at.file.Release()
		if err != nil || !ok {
			return nil, err
		}
		next := place.child(name)
		place, rest = &next, more
	}
}

// open opens a place, and returns nil where its layer has it no more.
func (l *lookup) open(place *Place) (*File, error) {
	dir, err := l.s.OpenDir(*place)
	if err != nil && absent(err) {
		return nil, nil
	}
	return dir, err
}

// seen finds a directory that is known to be one: of the places below the topmost, a merge keeps directories only.
func (l *lookup) seen(place *Place) (*located, error) {
	dir, err := l.open(place)
	if dir == nil {
		return nil, err
	}
	return &located{file: dir, dir: place, name: l.name, mode: unix.S_IFDIR}, nil
}

// step looks for one name in one directory. A redirect may lead through "." or "..", where no look-up goes
// (lookup_noperm_common).
func (l *lookup) step(place *Place, name string) (*located, error) {
	if name == "" || name == "." || name == ".." {
		return nil, unix.EACCES
	}
	dir, err := l.open(place)
	if dir == nil {
		return nil, err
	}
	at := &located{file: dir, dir: place, name: name}
	if err := Stat(dir, name, &at.stat); err != nil {
		dir.Release()
		if absent(err) {
			return nil, nil
		}
		return nil, err
	}
	if IsWhiteout(l.s, dir, name, &at.stat, true) {
		l.stop = true
		dir.Release()
		return nil, nil
	}
	at.mode = uint32(at.stat.Mode) & unix.S_IFMT
	return at, nil
}

// passThrough goes through a directory on the way of an absolute redirect; after is what follows it. An opaque one hides
// the layers below, and a redirect of its own sends the look-up elsewhere in them, but not in its own layer.
func (l *lookup) passThrough(at *located, after string) (bool, error) {
	if at.mode != unix.S_IFDIR {
		l.stop = true
		return false, nil
	}
	if l.last {
		return true, nil
	}
	if l.s.Opaqueness(at.file, at.name) == whiteout.Opaque {
		l.stop = true
		return true, nil
	}
	return true, l.readRedirect(at.file, at.name, after)
}

// mayFollow is ovl_check_follow_redirect: a redirect or metacopy file leads to what its directory's permissions may not
// let a user reach, so both are followed only where the mount says so.
func (l *lookup) mayFollow() bool {
	return !(l.metacopy && !l.s.cfg.Metacopy) && !(l.redirect && !l.s.cfg.Redirect)
}

// result is what was found, unless it was found by a redirect or through a metacopy file that may not be followed, or a
// file's data is missing. Of files with metadata in a lower and data in a data-only layer neither is asked.
func (l *lookup) result() (*Found, error) {
	f := l.found
	switch {
	case !l.any:
		return nil, unix.ENOENT
	case l.metacopy && l.lowers > 0 && len(l.s.Data) > 0 && l.toRoot:
		return f, l.findData()
	case !l.mayFollow():
		return nil, unix.EPERM
	case l.metacopy || l.upperMeta && l.lowers == 0:
		return nil, unix.EIO
	}
	return f, nil
}

// findData looks for a metacopy file's data in the data-only layers, by an absolute redirect (ovl_lookup_data_layers). The
// kernel puts this off to the first access; so does the caller put up with its failing.
func (l *lookup) findData() error {
	dir, name := "", l.name
	if i := strings.LastIndexByte(l.name, '/'); i >= 0 {
		dir, name = l.name[:i], l.name[i+1:]
	}
	for _, layer := range l.s.Data {
		place := Place{Layer: layer, Path: dir}
		at, err := l.s.OpenDir(place)
		if err != nil {
			continue
		}
		var st unix.Statx_t
		err = Stat(at, name, &st)
		at.Release()
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			l.found.Data, l.found.DataName = &place, name
			return nil
		}
	}
	return nil
}

// IsWhiteout reports whether (dir, name), whose attributes are given, hides its name: a character device 0:0 or, where
// those of the other kind count, an empty file with the xattr. A look-up honours these anywhere, reading a directory only
// where the directory is marked as holding such (ovl_path_is_whiteout, ovl_dir_read).
func IsWhiteout(s *Stack, dir *File, name string, st *unix.Statx_t, xattrWhiteouts bool) bool {
	if whiteout.IsDevice(uint32(st.Mode), unix.Mkdev(st.Rdev_major, st.Rdev_minor)) {
		return true
	}
	if !xattrWhiteouts || !whiteout.MayBeXattrWhiteout(uint32(st.Mode), int64(st.Size)) {
		return false
	}
	_, err := Getxattr(dir, name, s.cfg.Namespace.Whiteout(), nil)
	return err == nil
}

// Opaqueness reads overlay.opaque of (dir, name), of the directory itself where name is empty.
func (s *Stack) Opaqueness(dir *File, name string) whiteout.Opaqueness {
	var buf [2]byte
	n, err := Getxattr(dir, name, s.cfg.Namespace.Opaque(), buf[:])
	if err != nil {
		return whiteout.NotOpaque
	}
	return whiteout.ParseOpaque(buf[:n])
}

// mayBeMarked reports whether (dir, name) may have xattrs of the stack's. Most have none, which one call tells for all of
// them. It does not for user.*: reading these takes leave to read the file, listing them does not.
func (s *Stack) mayBeMarked(dir *File, name string) bool {
	if s.cfg.Namespace != whiteout.Trusted {
		return true
	}
	var buf [512]byte
	n, err := listxattr(dir.FD, name, buf[:])
	return err != nil || bytes.Contains(buf[:n], []byte(whiteout.Trusted))
}

// aufsOpaque reports whether the directory (dir, name) holds the name by which AUFS marks it opaque.
func (s *Stack) aufsOpaque(dir *File, name string) bool {
	fd, err := openSafely(dir.FD, name, dirFlags|unix.O_PATH)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	return StatFD(fd, whiteout.AUFSOpaque, &st) == nil
}

// isMetacopy reads overlay.metacopy of a regular file.
func (s *Stack) isMetacopy(dir *File, name string, mode uint32) (bool, error) {
	if mode != unix.S_IFREG {
		return false, nil
	}
	size, err := Getxattr(dir, name, s.cfg.Namespace.Metacopy(), nil)
	if err == unix.EACCES && s.cfg.Namespace == whiteout.User {
		return false, nil // user.* takes leave to read the file, which the kernel's mounter may lack just so
	}
	if err != nil {
		return false, ignorable(err)
	}
	if size != 0 && size < whiteout.MinMetacopy {
		return false, unix.EIO
	}
	return true, nil
}

// ignorable returns nil for the errors that mean that a file has no such xattr.
func ignorable(err error) error {
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}

// errnoOf returns the errno that an error stands for, EIO for one without.
func errnoOf(err error) error {
	if err == nil {
		return nil
	}
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}
