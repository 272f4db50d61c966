package overlayfallback

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Remount changes the flags of the union that is mounted on target, whichever route and process made it: options, one -o string as
// [Config.Set] reads it, come on top of those that the mount has (mount(8), remount). Options that are no flags of mount(2) change
// nothing, so that all that made the mount may be given again, as kernel overlayfs has it (ovl_parse_param). It fails with EROFS where a
// union is to become writable that has no upper layer or was mounted with ro, and with EBUSY where one is to become read-only in which
// files are open for writing; the mount then stays as it was. The errors are *Error.
func Remount(target, options string) error {
	m, err := unionAt(target)
	if err != nil {
		return remountError(target, err)
	}
	had, err := m.flags()
	if err != nil {
		return remountError(target, err)
	}
	wanted := Config{Lenient: true, Options: had}
	if err := wanted.Set(options); err != nil {
		return about(&Config{Target: target}, err)
	}
	err = m.setFlags(&wanted.Options)
	if err == nil && had.ReadOnly && !wanted.Options.ReadOnly {
		if err = refusesWrites(m.Point); err != nil {
			_ = m.setFlags(&had)
		}
	}
	if err != nil {
		return remountError(target, err)
	}
	return nil
}

// flags reads a mount's flags back from the kernel's list, where those of the file system itself stand before its options
// (show_sb_opts).
func (m MountInfo) flags() (Options, error) {
	words := m.Options
	for _, word := range strings.Split(m.SuperOptions, ",") {
		if !slices.Contains([]string{"rw", "ro", "sync", "dirsync", "lazytime"}, word) {
			break
		}
		if word != "rw" { // a mount may be read-only of a file system that is not
			words += "," + word
		}
	}
	c := Config{Lenient: true}
	err := c.Set(words)
	return c.Options, err
}

func (m MountInfo) setFlags(o *Options) error {
	return unix.Mount("", m.Point, "", unix.MS_REMOUNT|o.mountFlags(), "")
}

// refusesWrites gives EROFS where a FUSE union takes no changes although its mount does, of which the kernel's FUSE client knows
// nothing. What it tries changes nothing: it replaces an xattr that is not there.
func refusesWrites(point string) error {
	if err := unix.Lsetxattr(point, "user.unionfs-deep", nil, unix.XATTR_REPLACE); errors.Is(err, unix.EROFS) {
		return err
	}
	return nil
}

func remountError(target string, err error) *Error {
	return &Error{Op: "remount", Target: target, Err: err, Hint: remountHint(err)}
}

func remountHint(err error) string {
	switch {
	case errors.Is(err, unix.EBUSY):
		return "files in it are open for writing: see fuser -m or lsof"
	case errors.Is(err, unix.EROFS):
		return "it has no upper layer, or was mounted with ro: unmount it and mount it writable"
	case errors.Is(err, errNotUnion):
		return "use mount(8)"
	case errors.Is(err, errNotMounted):
		return "name the mount point itself"
	case errors.Is(err, unix.EPERM):
		return "only root may remount it"
	}
	return ""
}
