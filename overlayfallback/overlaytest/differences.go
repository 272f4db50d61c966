package overlaytest

import (
	"os"
	"slices"
	"strings"
	"sync"
)

// Excuse is one difference that a route may show.
type Excuse struct {
	Entry   string // the heading in docs/differences.md
	Applies func(Route, Difference) bool
}

// Differences holds every excuse. Each has its entry in docs/differences.md with the reason.
var Differences = []Excuse{
	{"Whiteouts in a directory that merges nothing are listed", func(r Route, d Difference) bool {
		return d.Field == "name" && d.Want == onlyListed && d.Got == "missing"
	}},
	{"Changes through a descriptor of an unlinked lower file fail", func(r Route, d Difference) bool {
		return slices.Contains(changesByDescriptor, d.Where) && d.Want == "EEXIST" && d.Got == "ok"
	}},
	{"An unlinked, still open lower file keeps its link count", func(r Route, d Difference) bool {
		return (strings.HasPrefix(d.Where, "fstat(") && d.Field == "nlink" || d.Where == "fstat nlink") && d.Got == "0"
	}},
	{"In a user namespace `overlay.origin` is left empty", func(r Route, d Difference) bool {
		return r.FUSE() && inUserNamespace() && strings.HasSuffix(d.Field, "overlay.origin") && d.Want == text(nil)
	}},
	{"Above a lower file system without a UUID a hard link", func(r Route, d Difference) bool {
		return r.FUSE() && d.Where == "same inode of a link" && d.Want == "false" && d.Got == "true"
	}},
	{"Whether a file may be linked by others (protected_hardlinks)", func(r Route, d Difference) bool {
		return r.FUSE() && strings.HasPrefix(d.Where, "link(") && d.Want == "EPERM" && d.Got == "EACCES"
	}},
	{"Which errno refuses a file of an owner that is not mapped", func(r Route, d Difference) bool {
		return r.FUSE() && inUserNamespace() && slices.Contains(refusals, d.Want) && slices.Contains(refusals, d.Got)
	}},
	{"COLLAPSE_RANGE and INSERT_RANGE", func(r Route, d Difference) bool {
		return r.FUSE() && d.Got == "ENOTSUP" && (strings.HasPrefix(d.Where, "fallocate COLLAPSE_RANGE") || strings.HasPrefix(d.Where, "fallocate INSERT_RANGE"))
	}},
	{"Which name of a hard-linked lower file a metacopy's redirect holds", func(r Route, d Difference) bool {
		return r.FUSE() && d.Field == "xattr "+TrustedOverlay+"redirect" && d.Want != absent("") && d.Got != absent("")
	}},
	{"A name whose look-up fails is listed", func(r Route, d Difference) bool {
		return r.FUSE() && d.Field == "name" && d.Want == "missing" && (d.Got == onlyListed || d.Got == "there ()")
	}},
	{"Opening an append-only or immutable file for writing", func(r Route, d Difference) bool {
		return r.FUSE() && strings.HasPrefix(d.Where, `open "`) && d.Want == "EPERM" && d.Got == "ok"
	}},
	{"A chown of another's file to nobody", func(r Route, d Difference) bool {
		return r.FUSE() && strings.Contains(d.Where, "chown") && strings.Contains(d.Where, " -1:-1") && d.Want == "EPERM" && d.Got == "ok"
	}},
	{"The writeback cache (`-o writeback`): a file's time of change", func(r Route, d Difference) bool {
		return r.Writeback() && (d.Field == "ctime" || d.Field == "mtime")
	}},
	{"Two copy-ups at once in one directory", func(r Route, d Difference) bool {
		return r.FUSE() && d.Where == "." && d.Field == "mtime" && (d.Want == "now" || d.Got == "now")
	}},
	{"O_NOATIME", func(r Route, d Difference) bool {
		return r.FUSE() && d.Where == "atime changed in spite of O_NOATIME"
	}},
	{"An impure mark outlasts what it was made for", func(r Route, d Difference) bool {
		return r.FUSE() && strings.HasSuffix(d.Field, "overlay.impure") && d.Want == absent("") && d.Got != absent("")
	}},
	{"Inode numbers and marks in the upper on the stacked route", func(r Route, d Difference) bool {
		return r.Name() == "stacked" && (strings.HasPrefix(d.Field, "d_ino") || strings.HasPrefix(d.Where, "same ") || d.Field == "inode" ||
			slices.Contains([]string{"opaque", "impure", "origin"}, strings.TrimPrefix(strings.TrimPrefix(d.Field, "xattr "), TrustedOverlay)))
	}},
}

// refusals are the errnos by which the kernel refuses to touch a file whose owner is not mapped. FUSE can hand on no owner
// that is outside of the mount's user namespace, so that the kernel refuses earlier, and by another of them.
var refusals = []string{"EPERM", "EACCES", "EOVERFLOW", "EINVAL", "EXDEV"}

// inUserNamespace tells whether this process is in a user namespace other than the initial one.
var inUserNamespace = sync.OnceValue(func() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(string(ids)), []string{"0", "0", "4294967295"})
})

// changesByDescriptor are the observations of the case that changes an unlinked lower file. Random programs leave such
// changes out, see throughDescriptor.
var changesByDescriptor = []string{"fchmod unlinked", "fchown unlinked", "futimens unlinked", "fsetxattr unlinked"}

// Unexcused returns the differences that no excuse covers.
func Unexcused(r Route, diffs []Difference) []Difference {
	var left []Difference
	for _, d := range diffs {
		if !excused(r, d) {
			left = append(left, d)
		}
	}
	return left
}

func excused(r Route, d Difference) bool {
	for _, e := range Differences {
		if e.Applies(r, d) {
			return true
		}
	}
	return false
}
