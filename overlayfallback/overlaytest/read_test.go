package overlaytest

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRead runs the cases that write nothing.
func TestRead(t *testing.T) {
	RunCases(t, append(mergeCases(), accessCases()...), routes("overlay", "stacked", "fuse"))
}

func file(path, seed string) Entry { return Entry{Path: path, Kind: File, Seed: seed, Size: 100} }

func dir(path string, xattrs ...Xattr) Entry { return Entry{Path: path, Kind: Dir, Xattrs: xattrs} }

func white(path string) Entry { return Entry{Path: path, Kind: Whiteout} }

func ovl(name, value string) Xattr { return Xattr{TrustedOverlay + name, value} }

// mergeCases are about how layers make one tree; the tree is all there is to compare.
func mergeCases() []Case {
	sets := map[string]Set{
		"whiteouts": {Lower: []Layer{
			{white("a"), white("d/x"), file("back", "top"), white("missing"), white("d/e")},
			{file("a", "1"), white("back"), file("d/y", "1")},
			{file("a", "2"), file("b", "2"), file("d/x", "2"), file("back", "2"), file("d/e/f", "2")},
		}},
		"whiteout_by_xattr": {Lower: []Layer{
			{dir("x", ovl("opaque", "x")), {Path: "x/gone", Kind: EmptyWhiteout, Xattrs: []Xattr{ovl("whiteout", "y")}},
				{Path: "plain", Kind: EmptyWhiteout, Xattrs: []Xattr{ovl("whiteout", "y")}},
				{Path: "x/full", Kind: File, Seed: "f", Size: 5, Xattrs: []Xattr{ovl("whiteout", "y")}}, file("x/new", "n")},
			{file("x/gone", "1"), file("plain", "1"), file("x/full", "1"), file("x/stays", "1")},
		}},
		"opaque": {Lower: []Layer{
			{dir("o", ovl("opaque", "y")), file("o/new", "1"), dir("z", ovl("opaque", "z")), dir("e", ovl("opaque", ""))},
			{file("o/old", "2"), file("z/old", "2"), file("e/old", "2"), dir("o/deep", ovl("opaque", "y"))},
			{file("o/older", "3"), file("z/older", "3")},
		}},
		"opaque_in_the_middle": {Lower: []Layer{
			{file("o/top", "1")}, {dir("o", ovl("opaque", "y")), file("o/mid", "2")}, {file("o/low", "3"), file("o/mid", "3")},
		}},
		"types_replaced": {Lower: []Layer{
			{file("dir-to-file", "1"), dir("file-to-dir"), {Path: "file-to-link", Kind: Symlink, Target: "x"}, file("through", "1")},
			{file("dir-to-file/below", "2"), file("file-to-dir", "2"), file("file-to-link", "2"), file("three", "2")},
			{file("through/below", "3"), dir("three"), file("three/x", "3"), file("file-to-dir/hidden", "3")},
		}},
		"file_between_directories": {Lower: []Layer{{file("d/a", "1")}, {file("d", "2")}, {file("d/b", "3")}}},
		"hard_links": {Lower: []Layer{
			{file("h1", "1"), {Path: "h2", Kind: HardLink, Target: "h1"}, {Path: "d/h3", Kind: HardLink, Target: "h1"}},
			{file("g1", "2"), {Path: "g2", Kind: HardLink, Target: "g1"}, {Path: "h2", Kind: HardLink, Target: "g1"}},
		}},
		"special_files": {Lower: []Layer{{
			{Path: "fifo", Kind: Fifo, Mode: 0o640}, {Path: "socket", Kind: Socket}, {Path: "null", Kind: CharDevice, Major: 1, Minor: 3},
			{Path: "block", Kind: BlockDevice, Major: 7, Minor: 200_000}, {Path: "link", Kind: Symlink, Target: "/etc/passwd"},
			{Path: "dangling", Kind: Symlink, Target: "nowhere"}, {Path: "long", Kind: Symlink, Target: strings.Repeat("l/", 2000)},
		}, {}}},
		"attributes": {Lower: []Layer{{
			{Path: "suid", Kind: File, Mode: 0o4755}, {Path: "none", Kind: File, Mode: NoMode}, {Path: "all", Kind: File, Mode: 0o7777},
			{Path: "owner", Kind: File, UID: 1 << 31, GID: 65534}, {Path: "old", Kind: File, Time: Time{-2_000_000_000, 1}},
			{Path: "new", Kind: File, Time: Time{7_000_000_000, 999_999_999}}, {Path: "epoch", Kind: File, Time: Time{0, 1}},
			{Path: "sticky", Kind: Dir, Mode: 0o1777}, {Path: "setgid", Kind: Dir, Mode: 0o2775, GID: 1000}, {Path: "closed", Kind: Dir, Mode: NoMode},
		}, {}}},
		"xattrs": {Lower: []Layer{{
			{Path: "f", Kind: File, Xattrs: []Xattr{{"user.a", "1"}, {"user.empty", ""}, {"trusted.b", "\x00\xff"}, {"security.c", "x"}, {"user.big", strings.Repeat("b", 3000)}}},
			dir("d", Xattr{"user.dir", "1"}, Xattr{"trusted.overlay", "not ours"}), {Path: "l", Kind: Symlink, Target: "f", Xattrs: []Xattr{{"trusted.link", "1"}}},
			{Path: "acl", Kind: Dir, Xattrs: []Xattr{{"system.posix_acl_access", acl("u::rwx,u:1000:rwx,g::r-x,m::rwx,o::---")}, {"system.posix_acl_default", acl("u::rwx,g::r-x,o::r-x")}}},
		}, {}}},
		"own_xattrs_hidden": {Lower: []Layer{
			{dir("d", ovl("origin", "junk"), ovl("impure", "y"), ovl("nlink", "U+1"), ovl("protattr", "i"), ovl("unknown", "x"), Xattr{"user.overlay.opaque", "y"})},
			{file("d/f", "1")},
		}},
		"nested": {Lower: []Layer{
			{dir("d", ovl("overlay.opaque", "y"), ovl("overlay.overlay.opaque", "y")), {Path: "d/w", Kind: EmptyWhiteout, Xattrs: []Xattr{ovl("overlay.whiteout", "y")}}},
			{file("d/f", "1"), file("d/w", "1"), dir("d", ovl("overlay.redirect", "/x"))},
		}},
		"odd_names": {Lower: []Layer{
			{file("new\nline", "1"), file("back\\slash", "1"), file("a:b,c=d", "1"), file("\xff\xfe", "1"), file("ünï", "1"), file(strings.Repeat("n", 255), "1"), file(".wh.x", "1"), file(" ", "1")},
			{file("x", "2"), file("...", "2"), file(strings.Repeat("ü", 127), "2")},
		}},
		"root_attributes": {Lower: []Layer{{dir("a")}, {file("b", "2")}, {white("b")}}},
		"many_layers":     manyLayers(60),
		"big_directory":   bigDirectory(3000),
	}
	cases := make([]Case, 0, len(sets))
	for _, name := range union(sets, nil) {
		cases = append(cases, Case{Name: name, Set: sets[name], ReadOnly: true})
	}
	return append(append(cases, redirectCases()...), metacopyCases()...)
}

// manyLayers returns n layers that add to, hide from and replace in the same directories.
func manyLayers(n int) Set {
	var s Set
	for i := range n {
		l := Layer{file(fmt.Sprintf("d/own%d", i), "own"), file("d/same", fmt.Sprint(i)), file(fmt.Sprintf("d/e%d/f", i%7), fmt.Sprint(i))}
		if i%5 == 0 {
			l = append(l, white(fmt.Sprintf("d/own%d", i+3)))
		}
		if i == n/2 {
			l = append(l, dir("d/e3", ovl("opaque", "y")))
		}
		s.Lower = append(s.Lower, l)
	}
	return s
}

// bigDirectory returns a directory that needs many calls to be listed.
func bigDirectory(n int) Set {
	var top, low Layer
	for i := range n {
		low = append(low, Entry{Path: fmt.Sprintf("d/some-longer-name-%d", i), Kind: File})
		if i%3 == 0 {
			top = append(top, white(fmt.Sprintf("d/some-longer-name-%d", i)))
		}
	}
	return Set{Lower: []Layer{top, low}}
}

// brokenBelow is why cases with entries that cannot be looked up do not apply to the stacked route.
var brokenBelow = map[string]string{"stacked": "an overlay that is a layer fails the listing of a directory with an entry that it cannot look up"}

func redirectCases() []Case {
	s := Set{Lower: []Layer{
		{dir("abs", ovl("redirect", "/was/here")), dir("rel", ovl("redirect", "old")), dir("chain", ovl("redirect", "/mid")), dir("lost", ovl("redirect", "/nowhere")),
			dir("to-file", ovl("redirect", "/plain")), dir("dots", ovl("redirect", "/was/../was/here")), dir("empty", ovl("redirect", "")),
			dir("via-link", ovl("redirect", "/ln/here")), dir("outside", ovl("redirect", "/out/ssl")), dir("root", ovl("redirect", "/")), dir("above", ovl("redirect", "/../../../../etc")),
			dir("up", ovl("redirect", "..")), dir("slash", ovl("redirect", "a/b")), dir("opaque", ovl("redirect", "/old"), ovl("opaque", "y")), white("old")},
		{dir("mid", ovl("redirect", "/was")), file("mid/m", "2"), file("abs/hidden", "2")},
		{file("was/here/w", "3"), file("old/o", "3"), file("plain", "3"), file("chain/not", "3"), file("rel/not", "3"),
			{Path: "ln", Kind: Symlink, Target: "was"}, {Path: "out", Kind: Symlink, Target: "/etc"}},
	}}
	var cases []Case
	for _, mode := range []string{"on", "follow", "nofollow", "off"} {
		s.Options = []string{"redirect_dir=" + mode}
		cases = append(cases, Case{Name: "redirect_" + mode, Set: s, ReadOnly: true, NotOn: brokenBelow})
	}
	return cases
}

func metacopyCases() []Case {
	meta := func(p, redirect, value string) Entry {
		e := Entry{Path: p, Kind: File, Mode: 0o600, UID: 1000, Hole: 100, Xattrs: []Xattr{ovl("metacopy", value)}}
		if redirect != "" {
			e.Xattrs = append(e.Xattrs, ovl("redirect", redirect))
		}
		return e
	}
	s := Set{
		Lower: []Layer{
			{meta("plain", "", ""), meta("moved", "/was", ""), meta("chain", "", ""), meta("lost", "", ""), meta("blob", "/blobs/b", ""), meta("blob-lost", "/blobs/none", ""),
				meta("long", "", "\x00\x04\x00\x00"), meta("short", "", "\x01"), meta("rel", "was", ""), meta("over-dir", "", ""), meta("blob-dir", "/blobs", ""),
				meta("blob-link", "/blobs/l", ""), meta("digest", "/blobs/b", "\x00\x24\x00\x01"+strings.Repeat("d", 32)), meta("blob2", "/blobs/two", "")},
			{file("plain", "2"), file("was", "2"), meta("chain", "", ""), file("long", "2"), file("short", "2"), file("over-dir/x", "2"), meta("mid", "/blobs/b", "")},
			{file("chain", "3"), file("plain", "3")},
		},
		Data: []Layer{{file("blobs/b", "data"), {Path: "blobs/l", Kind: Symlink, Target: "b"}, file("not-seen", "data")}, {file("blobs/two", "data 2"), file("blobs/b", "hidden")}},
	}
	var cases []Case
	for name, options := range map[string][]string{"metacopy_on": {"redirect_dir=on", "metacopy=on"}, "metacopy_off": {"redirect_dir=on", "metacopy=off"},
		"metacopy_off_nofollow": {"redirect_dir=nofollow", "metacopy=off"}} {
		s.Options = options
		cases = append(cases, Case{Name: name, Set: s, ReadOnly: true, NotOn: brokenBelow})
	}
	return cases
}

// accessSet is a tree for the cases that look at it call by call.
func accessSet() Set {
	return Set{Lower: []Layer{
		{file("f", "top"), file("d/own", "1"), {Path: "private", Kind: File, Mode: 0o600}, {Path: "closed", Kind: Dir, Mode: 0o700}, file("closed/f", "c"),
			{Path: "acl", Kind: File, Mode: 0o600, Xattrs: []Xattr{{"system.posix_acl_access", acl("u::rw-,u:1000:r--,g::---,m::r--,o::---")}}},
			{Path: "sparse", Kind: File, Hole: 1 << 20, Size: 5000, Seed: "s"}, {Path: "fifo", Kind: Fifo}, {Path: "link", Kind: Symlink, Target: "f"}},
		{file("d/low", "2"), {Path: "group", Kind: File, Mode: 0o640, GID: 1001}, {Path: "x", Kind: File, Mode: 0o644, Xattrs: []Xattr{{"user.a", "12345"}}}},
	}}
}

func accessCases() []Case {
	cases := []Case{
		{Name: "as_a_user", Run: func(r *Run) {
			As(user, func() {
				for _, name := range []string{"f", "private", "closed", "closed/f", "acl", "group", "d/low"} {
					r.ReadFile(name)
					for _, f := range accessFlags {
						r.Err("access "+f.name+" "+name, unix.Faccessat2(unix.AT_FDCWD, r.Path(name), uint32(f.bit), unix.AT_EACCESS))
					}
				}
				r.List("closed")
			})
		}},
		{Name: "read_only", Run: func(r *Run) {
			for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_RDONLY | unix.O_TRUNC, unix.O_WRONLY | unix.O_CREAT} {
				r.Open("f", flags, 0o644)
			}
			r.Open("new", unix.O_CREAT|unix.O_WRONLY, 0o644)
			r.Open(".", unix.O_TMPFILE|unix.O_RDWR, 0o644)
			r.Mkdir("new", 0o755)
			r.Mkdir("d", 0o755)
			r.Mknod("new", unix.S_IFIFO|0o644, 0, 0)
			r.Symlink("x", "new")
			r.Link("f", "new")
			r.Unlink("f")
			r.Unlink("missing")
			r.Rmdir("d")
			r.Rename("f", "new", 0)
			r.Rename("f", "f", 0)
			r.Chmod("f", 0o600)
			r.Chown("f", 1, 1)
			r.Truncate("f", 0)
			r.Utimens("f", unix.Timespec{Sec: 1}, unix.Timespec{Sec: 1})
			r.SetXattr("f", "user.a", "1", 0)
			r.RemoveXattr("x", "user.a")
			r.Err("access W_OK", unix.Access(r.Path("f"), unix.W_OK))
		}},
		{Name: "open_flags", Run: func(r *Run) {
			r.Open("f", unix.O_RDONLY|unix.O_DIRECTORY, 0)
			r.Open("link", unix.O_RDONLY|unix.O_NOFOLLOW, 0)
			r.Open("d", unix.O_WRONLY, 0)
			r.Open("missing", unix.O_RDONLY, 0)
			r.Open("f/below", unix.O_RDONLY, 0)
			r.Open("fifo", unix.O_WRONLY|unix.O_NONBLOCK, 0)
			r.Fstat(r.Open("link", unix.O_PATH|unix.O_NOFOLLOW, 0))
			fd := r.Open("f", unix.O_PATH, 0)
			r.Pread(fd, 0, 10)
			r.Fstat(fd)
		}},
		{Name: "holes", Run: func(r *Run) {
			fd := r.Open("sparse", unix.O_RDONLY, 0)
			for _, off := range []int64{0, 4096, 1 << 20, 1<<20 + 4999, 1<<20 + 5000, 1 << 22} {
				for _, whence := range []int{unix.SEEK_DATA, unix.SEEK_HOLE} {
					at, err := unix.Seek(fd, off, whence)
					r.Err(fmt.Sprint("seek ", whence, off), err)
					r.Note("at", at)
				}
			}
		}},
		{Name: "xattr_sizes", Run: func(r *Run) {
			for _, size := range []int{0, 2, 5, 100} {
				n, err := unix.Lgetxattr(r.Path("x"), "user.a", make([]byte, size))
				r.Err(fmt.Sprint("getxattr into ", size), err)
				r.Note("size", n)
				n, err = unix.Llistxattr(r.Path("x"), make([]byte, size))
				r.Err(fmt.Sprint("listxattr into ", size), err)
				r.Note("size", n)
			}
			r.GetXattr("x", "user.missing")
			r.GetXattr("x", "nonsense")
			r.GetXattr("x", "trusted.overlay.origin")
			r.GetXattr("link", "user.a")
			As(user, func() { r.ListXattr("x"); r.GetXattr("x", "trusted.overlay.opaque") })
		}},
		{Name: "statfs", Run: func(r *Run) {
			var st unix.Statfs_t
			r.Err("statfs", unix.Statfs(r.Path("d"), &st))
			r.Note("statfs", st.Bsize, st.Frsize, st.Blocks, st.Files, st.Namelen, st.Flags&unix.ST_RDONLY)
		}},
		{Name: "inode_numbers_stay", Run: func(r *Run) {
			names := []string{"f", "d", "d/own", "d/low", "x", "link"}
			var before []uint64
			for _, n := range names {
				before = append(before, r.Ino(n))
			}
			r.DropCaches()
			for i, n := range names {
				r.Note("same after drop_caches "+n, r.Ino(n) == before[i])
			}
			r.Remount()
			for i, n := range names {
				r.Note("same after remount "+n, r.Ino(n) == before[i])
			}
		}},
		{Name: "directory_positions", Run: directoryPositions},
		{Name: "long_paths", Run: func(r *Run) {
			r.Stat(strings.Repeat("n", 255))
			r.Stat(strings.Repeat("n", 256))
			r.Stat("missing/" + strings.Repeat("n", 256))
			r.Stat("d/" + strings.Repeat("./", 2100) + "own")
			r.Stat("d/" + strings.Repeat("../d/", 300) + "own")
		}},
		{Name: "devices_do_not_block", Run: func(r *Run) {
			r.Stat("fifo")
			r.ListXattr("fifo")
			fd := r.Open("fifo", unix.O_RDONLY|unix.O_NONBLOCK, 0)
			r.Pread(fd, 0, 1)
			r.Close(fd)
		}},
		{Name: "ioctls", Run: func(r *Run) {
			fd := r.Open("f", unix.O_RDONLY, 0)
			_, err := unix.IoctlGetInt(fd, 0x5401)
			r.Err("TCGETS", err)
			_, err = unix.IoctlGetInt(fd, 0xdead)
			r.Err("unknown ioctl", err)
			flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
			r.Err("FS_IOC_GETFLAGS", err)
			r.Note("flags", flags)
		}},
	}
	for i := range cases {
		cases[i].Set, cases[i].ReadOnly = accessSet(), true
	}
	return append(cases, execCase())
}

// directoryPositions lists a directory in pieces: by small buffers, from positions taken earlier, and after rewinding.
func directoryPositions(r *Run) {
	fd := r.Open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	all, err := ReadDir(fd)
	r.Err("readdir", err)
	r.Note("entries", len(all))
	unix.Seek(fd, 0, unix.SEEK_SET)
	small := make([]byte, 64)
	var names []string
	var middle int64
	for {
		n, err := unix.Getdents(fd, small)
		if n <= 0 || err != nil {
			r.Err("end", err)
			break
		}
		part, _ := parseDirents(small[:n])
		for _, e := range part {
			names = append(names, e.Name)
		}
		if len(names) == 4 {
			middle, _ = unix.Seek(fd, 0, unix.SEEK_CUR)
		}
	}
	r.Note("entries by small buffers", len(names))
	unix.Seek(fd, middle, unix.SEEK_SET)
	rest, err := ReadDir(fd)
	r.Err("from the middle", err)
	r.Note("entries from the middle", len(rest) > 0 && len(rest) == len(names)-4)
}

// execCase runs a program that lies in a layer.
func execCase() Case {
	script := "#!/bin/sh\necho ran\n"
	return Case{Name: "execute", ReadOnly: true, Set: Set{Lower: []Layer{{{Path: "run", Kind: File, Mode: 0o755, Seed: script[:len(script)-1], Size: len(script)},
		{Path: "not", Kind: File, Mode: 0o644, Seed: "x", Size: 2}}, {}}}, Run: func(r *Run) {
		out, err := exec.Command(r.Path("run")).Output()
		r.Note("run", string(out), err)
		_, err = exec.Command(r.Path("not")).Output()
		r.Note("not executable", strings.Contains(fmt.Sprint(err), "permission denied"))
	}}
}
