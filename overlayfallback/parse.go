package overlayfallback

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Route is a way to make the union. Auto lets the planner choose.
type Route string

// The routes, in the order in which Auto tries them.
const (
	Auto    Route = "auto"
	Overlay Route = "overlay"
	Stacked Route = "stacked"
	FUSE    Route = "fuse"
)

// ParseRoute reads a route's name; the empty one is Auto.
func ParseRoute(s string) (Route, error) {
	switch r := Route(s); r {
	case "":
		return Auto, nil
	case Auto, Overlay, Stacked, FUSE:
		return r, nil
	}
	return "", &Error{Op: "parse options", Options: "route=" + s, Err: errors.New("the route is unknown"),
		Hint: "it is one of auto, overlay, stacked, fuse"}
}

// Config says what to mount and where. The zero value of every field but Target and Lower is a sound default.
type Config struct {
	Source string // shown as the mount's source; "overlay" if empty
	Target string // the mount point

	Lower []string // the lower layers, topmost first
	Data  []string // the data-only layers, topmost first
	Upper string   // the writable layer; empty for a read-only union
	Work  string   // its work directory, on the same mount; both or neither, but for a read-only mount

	Route   Route  // empty is Auto
	Naming  Naming // how the overlay route names the layers; empty is the first that fits
	Options Options
	Remount bool // remount: a mount is to be changed, which Remount does; Mount and NewPlan refuse it

	// Lenient is the drop-in form: options that are not known, or not honoured, are noted in Warnings and passed over, and
	// AUFS whiteouts are looked for in the layers without being asked. Set it before Set is called.
	Lenient  bool
	Warnings []string // what was passed over, one sentence each

	MountPoint *os.File     // the mount point, if the caller has it open already (O_PATH will do); it stays the caller's
	Log        *slog.Logger // nil for none
}

// Parse reads a standard mount triple with its target, as in containerd's mount.Mount: each of options is one option, or
// several with commas between. fsType is overlay, or one of the FUSE form's names, which asks for the FUSE route. The errors
// are *Error.
func Parse(fsType, source, target string, options []string) (Config, error) {
	c := Config{Source: source, Target: target}
	switch fsType {
	case "overlay", "overlayfs", "unionfs-deep":
	case "fuse.unionfs-deep", "fuse.fuse-overlayfs", "fuse-overlayfs", "fuse3", "fuse":
		c.Route = FUSE
	default:
		return c, &Error{Op: "parse options", Source: source, Target: target, Err: fmt.Errorf("file system type %q is not a union's", fsType),
			Hint: "use overlay or fuse.unionfs-deep"}
	}
	for _, o := range options {
		if err := c.Set(o); err != nil {
			return c, about(&c, err)
		}
	}
	return c, nil
}

// Set reads one -o string, such as `ro,lowerdir=/a:/b\:c`, and adds it to what was set before; where an option is given
// twice, the last one holds. In values of lowerdir, upperdir and workdir, `\,`, `\:` and `\\` stand for the second character.
// The errors are *Error; Config is then to be thrown away.
func (c *Config) Set(options string) error {
	all, err := splitOptions(options)
	if err != nil {
		return err
	}
	for _, o := range all {
		if err := c.setOne(o); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) setOne(o rawOption) error {
	known, found := lookup(o.name)
	switch {
	case !found:
		return c.unknown(o, errUnknownOption)
	case known.to == toFuture:
		return c.unknown(o, errNotHonoured)
	}
	err := known.value.check(o)
	if err == nil && known.set != nil {
		err = known.set(c, o.value)
	}
	var typed *Error
	if err == nil || errors.As(err, &typed) {
		return err
	}
	return &Error{Op: "parse options", Options: o.String(), Err: err, Hint: "correct it or leave it out"}
}

// unknown refuses an option that we do not honour, or notes it in the drop-in form, whose callers hand on whatever their own
// users gave them.
func (c *Config) unknown(o rawOption, err error) error {
	if c.Lenient {
		c.Warnings = append(c.Warnings, fmt.Sprintf("option %q: %v; it is left out", shorten(o.String()), err))
		return nil
	}
	return &Error{Op: "parse options", Options: o.String(), Err: err, Hint: "leave it out"}
}

// OptionString gives the options as one -o string, which Set reads back to the same Config but for the fields that are no
// options: Target, Naming, Lenient, Warnings, MountPoint and Log.
func (c *Config) OptionString() string {
	var all []string
	add := func(name, value string) {
		if value != "" {
			all = append(all, name+"="+value)
		}
	}
	add("fsname", escape(c.Source))
	add("route", string(c.Route))
	if len(c.Lower) > 0 {
		add("lowerdir", joinLowerDirs(c.Lower, c.Data))
	} else {
		for _, d := range c.Data {
			add("datadir+", escape(d))
		}
	}
	add("upperdir", escape(c.Upper))
	add("workdir", escape(c.Work))
	if c.Remount {
		all = append(all, "remount")
	}
	return strings.Join(append(all, c.Options.words()...), ",")
}

// words gives every option that is not at its default, as Set reads it.
func (o *Options) words() []string {
	all := append(o.flagWords(), o.overlayWords()...)
	for _, p := range propagationWords {
		if o.Propagation == p.flag {
			all = append(all, p.name)
		}
	}
	for _, l := range o.Labels {
		all = append(all, l.Name+`="`+l.Value+`"`)
	}
	return append(all, o.unionWords()...)
}

// unionWords gives the options that are FUSE's and our own.
func (o *Options) unionWords() []string {
	var all []string
	for _, w := range []struct{ name, value string }{{"fastpath", o.Fastpath}, {"aufs", o.AUFS}} {
		if w.value != "" {
			all = append(all, w.name+"="+w.value)
		}
	}
	if t := o.Timeout; t.Set {
		all = append(all, fmt.Sprintf("timeout=%d.%06d", t.Time/time.Second, t.Time%time.Second/time.Microsecond))
	}
	if o.AllowOther {
		all = append(all, "allow_other")
	}
	if o.MaxRead > 0 {
		all = append(all, "max_read="+strconv.FormatUint(uint64(o.MaxRead), 10))
	}
	if o.Writeback {
		all = append(all, "writeback")
	}
	return all
}

// overlayWords gives the options that kernel overlayfs takes, in its own words.
func (o *Options) overlayWords() []string {
	var all []string
	for _, w := range []struct{ name, value string }{
		{"redirect_dir", o.RedirectDir}, {"metacopy", o.Metacopy}, {"index", o.Index}, {"xino", o.XIno},
		{"nfs_export", o.NFSExport}, {"uuid", o.UUID}, {"verity", o.Verity},
	} {
		if w.value != "" {
			all = append(all, w.name+"="+w.value)
		}
	}
	if o.UserXattr {
		all = append(all, "userxattr")
	}
	if o.Volatile {
		all = append(all, "volatile")
	}
	return all
}

// flagWords gives the flags of mount(2) by their names.
func (o *Options) flagWords() []string {
	var all []string
	if o.ReadOnly {
		all = append(all, "ro")
	}
	for _, f := range flagNames {
		if o.Flags&f.flag != 0 {
			all = append(all, f.name)
		}
	}
	return all
}

type flagWord struct {
	flag uintptr
	name string
}

var flagNames = []flagWord{
	{unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"}, {unix.MS_SYNCHRONOUS, "sync"},
	{unix.MS_DIRSYNC, "dirsync"}, {unix.MS_NOATIME, "noatime"}, {unix.MS_RELATIME, "relatime"}, {unix.MS_STRICTATIME, "strictatime"},
	{unix.MS_NODIRATIME, "nodiratime"}, {unix.MS_LAZYTIME, "lazytime"}, {unix.MS_NOSYMFOLLOW, "nosymfollow"},
}

var propagationWords = []flagWord{
	{unix.MS_PRIVATE, "private"}, {unix.MS_PRIVATE | unix.MS_REC, "rprivate"}, {unix.MS_SHARED, "shared"},
	{unix.MS_SHARED | unix.MS_REC, "rshared"}, {unix.MS_SLAVE, "slave"}, {unix.MS_SLAVE | unix.MS_REC, "rslave"},
	{unix.MS_UNBINDABLE, "unbindable"}, {unix.MS_UNBINDABLE | unix.MS_REC, "runbindable"},
}
