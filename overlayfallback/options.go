package overlayfallback

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options are the mount's options other than its layers. Strings hold overlayfs's own words; an empty one means that the
// option was not given, so that the kernel's, or the union's, default holds.
type Options struct {
	ReadOnly    bool    // ro: nothing is written, neither in the mount nor in upper and work
	Flags       uintptr // MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME and their like, for mount(2)
	Propagation uintptr // MS_PRIVATE, MS_SHARED, MS_SLAVE or MS_UNBINDABLE, with MS_REC or without; 0 leaves it as it is

	RedirectDir string // on, follow, nofollow, off
	Metacopy    string // on, off
	Index       string // on, off
	XIno        string // on, auto, off
	NFSExport   string // on, off
	UUID        string // on, auto, null, off: kernel overlayfs only
	Verity      string // on, require, off: kernel overlayfs only
	UserXattr   bool   // user.overlay.* in place of trusted.overlay.*; chosen by itself where trusted.* cannot be set
	Volatile    bool   // no syncs to the upper layer

	Labels []Label // context= and its like, handed to the kernel's security module

	AllowOther bool    // FUSE mounted through fusermount3: let other users in (any other mount does so by itself)
	MaxRead    uint32  // FUSE: most bytes in one read, 0 for the kernel's choice
	Timeout    Timeout // FUSE: how long the kernel may keep names and attributes
	Writeback  bool    // FUSE: the kernel's writeback cache
	Fastpath   string  // FUSE: auto, cache, passthrough, off
	AUFS       string  // .wh. names in lower layers are whiteouts: on, off, auto (if a bounded search finds any)
}

// Timeout is how long the kernel may keep what it was told; unless Set it is for ever, since layers change through the union
// alone.
type Timeout struct {
	Set  bool
	Time time.Duration
}

// Label is one security option: Name is context, fscontext, defcontext or rootcontext.
type Label struct{ Name, Value string }

// destination says where an option goes.
type destination string

const (
	toLayers   destination = "layers"   // the layers, upper and work
	toMount    destination = "mount"    // flags of mount(2), any route
	toOverlay  destination = "overlay"  // what overlayfs understands, and the FUSE union with it
	toUnion    destination = "union"    // the FUSE union only
	toFUSE     destination = "fuse"     // the kernel's FUSE client
	toSecurity destination = "security" // the kernel's security module
	toPlan     destination = "plan"     // the choice of the route
	toNobody   destination = "ignored"  // mount(8)'s own, and tuning of other programs that has no meaning here
	toFuture   destination = "unknown"  // known, but not honoured: as bad as an unknown one
)

// option is one line of the table: its name (a `*` at the end stands for any ending), what its value may be, where it goes,
// and how it is set. A nil set does nothing.
type option struct {
	name  string
	value kind
	to    destination
	set   func(c *Config, value string) error
}

// kind says what may follow an option's name.
type kind struct {
	required bool     // a value must be given
	refused  bool     // none may be given
	among    []string // if set, the value is one of these
}

var (
	bare     = kind{refused: true}
	text     = kind{required: true}
	optional = kind{}
	onOff    = oneOf("on", "off")
)

func oneOf(words ...string) kind { return kind{required: true, among: words} }

// The table. The comment of each group says whose options they are.
var table = slices.Concat(layerOptions, overlayOptions, mountOptions, fuseOptions, ignoredOptions)

// overlayfs's layers (Documentation/filesystems/overlayfs.rst).
var layerOptions = []option{
	{"lowerdir", optional, toLayers, setLowerDir},
	{"lowerdir+", text, toLayers, func(c *Config, v string) error { c.Lower = append(c.Lower, unescapeOne(v)); return nil }},
	{"datadir+", text, toLayers, func(c *Config, v string) error { c.Data = append(c.Data, unescapeOne(v)); return nil }},
	{"upperdir", optional, toLayers, filePath(func(c *Config) *string { return &c.Upper })},
	{"workdir", optional, toLayers, filePath(func(c *Config) *string { return &c.Work })},
}

// overlayfs's other options, and security labels, which any file system takes.
var overlayOptions = []option{
	{"redirect_dir", oneOf("on", "follow", "nofollow", "off"), toOverlay, word(func(c *Config) *string { return &c.Options.RedirectDir })},
	{"metacopy", onOff, toOverlay, word(func(c *Config) *string { return &c.Options.Metacopy })},
	{"index", onOff, toOverlay, word(func(c *Config) *string { return &c.Options.Index })},
	{"xino", oneOf("on", "auto", "off"), toOverlay, word(func(c *Config) *string { return &c.Options.XIno })},
	{"nfs_export", onOff, toOverlay, word(func(c *Config) *string { return &c.Options.NFSExport })},
	{"uuid", oneOf("on", "auto", "null", "off"), toOverlay, word(func(c *Config) *string { return &c.Options.UUID })},
	{"verity", oneOf("on", "require", "off"), toOverlay, word(func(c *Config) *string { return &c.Options.Verity })},
	{"userxattr", bare, toOverlay, yes(func(c *Config) *bool { return &c.Options.UserXattr })},
	{"volatile", bare, toOverlay, yes(func(c *Config) *bool { return &c.Options.Volatile })},
	{"context", text, toSecurity, label("context")},
	{"fscontext", text, toSecurity, label("fscontext")},
	{"defcontext", text, toSecurity, label("defcontext")},
	{"rootcontext", text, toSecurity, label("rootcontext")},
}

// mount(2)'s flags, by the names of mount(8).
var mountOptions = []option{
	{"ro", bare, toMount, func(c *Config, _ string) error { c.Options.ReadOnly = true; return nil }},
	{"rw", bare, toMount, func(c *Config, _ string) error { c.Options.ReadOnly = false; return nil }},
	{"defaults", bare, toMount, nil},
	{"remount", bare, toMount, yes(func(c *Config) *bool { return &c.Remount })},
	{"nosuid", bare, toMount, flag(unix.MS_NOSUID, 0)}, {"suid", bare, toMount, flag(0, unix.MS_NOSUID)},
	{"nodev", bare, toMount, flag(unix.MS_NODEV, 0)}, {"dev", bare, toMount, flag(0, unix.MS_NODEV)},
	{"noexec", bare, toMount, flag(unix.MS_NOEXEC, 0)}, {"exec", bare, toMount, flag(0, unix.MS_NOEXEC)},
	{"sync", bare, toMount, flag(unix.MS_SYNCHRONOUS, 0)}, {"async", bare, toMount, flag(0, unix.MS_SYNCHRONOUS)},
	{"dirsync", bare, toMount, flag(unix.MS_DIRSYNC, 0)},
	{"noatime", bare, toMount, flag(unix.MS_NOATIME, anyAtime)}, {"atime", bare, toMount, flag(0, unix.MS_NOATIME)},
	{"relatime", bare, toMount, flag(unix.MS_RELATIME, anyAtime)}, {"norelatime", bare, toMount, flag(0, unix.MS_RELATIME)},
	{"strictatime", bare, toMount, flag(unix.MS_STRICTATIME, anyAtime)}, {"nostrictatime", bare, toMount, flag(0, unix.MS_STRICTATIME)},
	{"nodiratime", bare, toMount, flag(unix.MS_NODIRATIME, 0)}, {"diratime", bare, toMount, flag(0, unix.MS_NODIRATIME)},
	{"lazytime", bare, toMount, flag(unix.MS_LAZYTIME, 0)}, {"nolazytime", bare, toMount, flag(0, unix.MS_LAZYTIME)},
	{"nosymfollow", bare, toMount, flag(unix.MS_NOSYMFOLLOW, 0)}, {"symfollow", bare, toMount, flag(0, unix.MS_NOSYMFOLLOW)},
	{"private", bare, toMount, propagate(unix.MS_PRIVATE)}, {"rprivate", bare, toMount, propagate(unix.MS_PRIVATE | unix.MS_REC)},
	{"shared", bare, toMount, propagate(unix.MS_SHARED)}, {"rshared", bare, toMount, propagate(unix.MS_SHARED | unix.MS_REC)},
	{"slave", bare, toMount, propagate(unix.MS_SLAVE)}, {"rslave", bare, toMount, propagate(unix.MS_SLAVE | unix.MS_REC)},
	{"unbindable", bare, toMount, propagate(unix.MS_UNBINDABLE)}, {"runbindable", bare, toMount, propagate(unix.MS_UNBINDABLE | unix.MS_REC)},
}

const anyAtime = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME

// FUSE's and our own, and those of fuse-overlayfs whose meaning is ours too.
var fuseOptions = []option{
	{"allow_other", bare, toFUSE, yes(func(c *Config) *bool { return &c.Options.AllowOther })},
	{"default_permissions", bare, toFUSE, nil}, // always on: the union relies on the kernel for every access check
	{"max_read", text, toFUSE, setMaxRead},
	{"fsname", text, toFUSE, func(c *Config, v string) error { v, err := unescape(v); c.Source = v; return err }},
	{"timeout", text, toUnion, setTimeout},
	{"writeback", optional, toUnion, setWriteback},
	{"fastpath", oneOf("auto", "cache", "passthrough", "off"), toUnion, word(func(c *Config) *string { return &c.Options.Fastpath })},
	{"aufs", oneOf("auto", "on", "off"), toPlan, word(func(c *Config) *string { return &c.Options.AUFS })},
	{"route", text, toPlan, func(c *Config, v string) (err error) { c.Route, err = ParseRoute(v); return err }},
}

// What mount(8) and the service manager keep for themselves, tuning knobs of fuse-overlayfs and libfuse that change nothing a
// program can see, and (toFuture) fuse-overlayfs's options that do.
var ignoredOptions = slices.Concat(
	ignore(bare, "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail", "loud", "silent", "mand", "nomand",
		"iversion", "noiversion", "nonempty", "kernel_cache", "auto_cache", "direct_io", "noforget", "intr", "clone_fd", "big_writes",
		"large_read", "hard_remove", "use_ino", "readdir_ino", "async_read", "sync_read", "atomic_o_trunc", "splice_read",
		"splice_write", "splice_move", "no_splice_read", "no_splice_write", "no_splice_move", "nooverride_creds"),
	ignore(optional, "x-*", "X-*", "comment", "uhelper", "helper", "fsync", "threaded", "fast_ino", "ino32_t",
		"subtype", "blksize", "max_write", "max_background", "congestion_threshold", "max_readahead", "max_idle_threads", "max_threads",
		"entry_timeout", "attr_timeout", "negative_timeout", "ac_attr_timeout", "remember", "debug", "plugins", "nfs_filehandles"),
	unsupported("allow_root", "auto_unmount", "noxattrs", "noacl", "static_nlink", "squash_to_root", "squash_to_uid", "squash_to_gid",
		"uidmapping", "gidmapping", "xattr_permissions", "override_creds", "bind", "rbind", "move", "umask", "uid", "gid"),
)

func ignore(value kind, names ...string) []option {
	return lines(value, toNobody, names)
}

func unsupported(names ...string) []option {
	return lines(optional, toFuture, names)
}

func lines(value kind, to destination, names []string) []option {
	all := make([]option, len(names))
	for i, n := range names {
		all[i] = option{n, value, to, nil}
	}
	return all
}

func flag(set, clear uintptr) func(*Config, string) error {
	return func(c *Config, _ string) error { c.Options.Flags = c.Options.Flags&^clear | set; return nil }
}

func propagate(flags uintptr) func(*Config, string) error {
	return func(c *Config, _ string) error { c.Options.Propagation = flags; return nil }
}

func word(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error { *field(c) = v; return nil }
}

func yes(field func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, _ string) error { *field(c) = true; return nil }
}

func filePath(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) (err error) { *field(c), err = unescape(v); return err }
}

func label(name string) func(*Config, string) error {
	return func(c *Config, v string) error {
		v = unquote(v)
		if strings.Contains(v, `"`) {
			return errors.New("a security label holds no quote")
		}
		c.Options.Labels = append(c.Options.Labels, Label{name, v})
		return nil
	}
}

// setLowerDir replaces the layers that were named before, as the kernel does; an empty value leaves none.
func setLowerDir(c *Config, v string) error {
	if v == "" {
		c.Lower, c.Data = nil, nil
		return nil
	}
	lower, data, err := splitLowerDirs(v)
	if err != nil {
		return err
	}
	c.Lower, c.Data = lower, data
	return nil
}

func setMaxRead(c *Config, v string) error {
	n, err := strconv.ParseUint(v, 10, 32)
	c.Options.MaxRead = uint32(n)
	return err
}

// setTimeout takes seconds, with a fraction if need be.
func setTimeout(c *Config, v string) error {
	seconds, err := strconv.ParseFloat(v, 64)
	if err != nil || !(seconds >= 0 && seconds <= math.MaxUint32) {
		return errors.New("it is no number of seconds")
	}
	c.Options.Timeout = Timeout{Set: true, Time: time.Duration(seconds * float64(time.Second)).Round(time.Microsecond)}
	return nil
}

func setWriteback(c *Config, v string) error {
	switch v {
	case "", "1", "on", "yes":
		c.Options.Writeback = true
	case "0", "off", "no":
		c.Options.Writeback = false
	default:
		return fmt.Errorf("it is neither 1 nor 0")
	}
	return nil
}

var (
	errUnknownOption = errors.New("the option is unknown")
	errNotHonoured   = errors.New("the option is not supported")
)

// lookup finds an option in the table.
func lookup(name string) (option, bool) {
	i := slices.IndexFunc(table, func(o option) bool {
		if stem, open := strings.CutSuffix(o.name, "*"); open {
			return strings.HasPrefix(name, stem)
		}
		return o.name == name
	})
	if i < 0 {
		return option{}, false
	}
	return table[i], true
}

// check tells whether a value fits the option's kind.
func (k kind) check(o rawOption) error {
	switch {
	case k.required && o.value == "":
		return errors.New("it needs a value")
	case k.refused && o.hasValue:
		return errors.New("it takes no value")
	case k.among != nil && !slices.Contains(k.among, o.value):
		return fmt.Errorf("it is not one of %s", strings.Join(k.among, ", "))
	}
	return nil
}
