package overlaytest

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Route names a way to mount: its name, and after commas the options that are for this route alone and not for the oracle,
// as in "fuse,fastpath=off".
type Route string

// Kernel is the oracle: a plain kernel overlay, made by the test itself with no code of the product.
const Kernel Route = "kernel"

// Name returns the route's name without its options.
func (r Route) Name() string {
	name, _, _ := strings.Cut(string(r), ",")
	return name
}

// Options returns the options that are for this route alone.
func (r Route) Options() []string {
	_, opts, ok := strings.Cut(string(r), ",")
	if !ok {
		return nil
	}
	return strings.Split(opts, ",")
}

// Program returns the program of a "program=PATH" route, which is run in the form of fuse-overlayfs; empty for others.
func (r Route) Program() string {
	p, ok := strings.CutPrefix(r.Name(), "program=")
	if !ok {
		return ""
	}
	return p
}

// FUSE tells whether the route serves through FUSE.
func (r Route) FUSE() bool { return r.Name() == "fuse" || r.Program() != "" }

// Writeback tells whether the kernel gathers writes.
func (r Route) Writeback() bool { return slices.Contains(r.Options(), "writeback") }

// LazyOpens tells whether the route's opens send nothing, so that a lower file is copied up at its first change and not
// when it is opened for writing: docs/differences.md, "cache". Where that is so, every opening for writing is followed by a
// change, on the oracle too.
func (r Route) LazyOpens() bool {
	return r.Name() == "fuse" && !slices.Contains(r.Options(), "fastpath=off") && !slices.Contains(r.Options(), "fastpath=passthrough")
}

// touch changes a file opened for writing, if it is to be, in a way that shows in nothing but its times: a hole is punched where
// the file has none of its data. It returns the error of a copy-up, which without lazy opens is the open's.
func touch(lazy bool, fd, flags int) error {
	if !lazy || flags&unix.O_ACCMODE == unix.O_RDONLY || flags&(unix.O_TMPFILE|unix.O_PATH) != 0 {
		return nil
	}
	const beyond = 1 << 40
	err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, beyond, 1)
	switch err {
	case unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS:
		return err
	}
	return nil
}

// Title returns the route as a name for a subtest.
func (r Route) Title() string { return strings.ReplaceAll(string(r), "/", "_") }

// ParseRoutes takes a list of routes apart; semicolons separate them.
func ParseRoutes(list string) []Route {
	var routes []Route
	for r := range strings.SplitSeq(list, ";") {
		if r = strings.TrimSpace(r); r != "" {
			routes = append(routes, Route(r))
		}
	}
	return routes
}
