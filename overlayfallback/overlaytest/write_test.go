package overlaytest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWrite runs the cases that change the union: what they leave in the upper directory is compared as well.
func TestWrite(t *testing.T) {
	cases := append(copyUpCases(), nameCases()...)
	cases = append(append(cases, openFileCases()...), renameCases()...)
	cases = append(append(cases, signalCases()...), elsewhereCases()...)
	RunCases(t, append(cases, historyCases()...), routes("overlay", "stacked", "fuse", "fuse,fastpath=passthrough", "fuse,fastpath=off"))
}

// writeSet is a tree with something of everything, below and in the upper.
func writeSet(options ...string) Set {
	rich := Entry{Path: "rich", Kind: File, Mode: 0o6755, UID: 1000, GID: 1001, Seed: "rich", Size: 5000, Time: Time{1234567, 89},
		Xattrs: []Xattr{{"user.a", "1"}, {"trusted.b", "2"}, {"security.c", "3"}, {"system.posix_acl_access", acl("u::rwx,u:1000:rwx,g::r-x,m::rwx,o::r-x")}}}
	return Set{Options: options, Lower: []Layer{
		{file("top", "1"), file("merged/top", "1"), {Path: "h1", Kind: File, Seed: "h", Size: 50}, {Path: "h2", Kind: HardLink, Target: "h1"}, {Path: "sub/h3", Kind: HardLink, Target: "h1"}, rich,
			{Path: "setgid", Kind: Dir, Mode: 0o2777, GID: 1001}, {Path: "sticky", Kind: Dir, Mode: 0o1777}, {Path: "sticky/mine", Kind: File, UID: 1001, Mode: 0o666},
			{Path: "acl", Kind: Dir, Mode: 0o777, Xattrs: []Xattr{{"system.posix_acl_default", acl("u::rwx,u:1000:rwx,g::r-x,m::rwx,o::---")}}}},
		{file("low", "2"), file("merged/low", "2"), file("merged/sub/x", "2"), file("lowdir/a", "2"), file("lowdir/b/c", "2"), {Path: "link", Kind: Symlink, Target: "low"},
			{Path: "fifo", Kind: Fifo}, {Path: "null", Kind: CharDevice, Major: 1, Minor: 3, Mode: 0o666}, {Path: "sparse", Kind: File, Hole: 1 << 20, Size: 5000, Seed: "s"},
			{Path: "hole", Kind: File, Hole: 8192},
			{Path: "open", Kind: Dir, Mode: 0o777}, {Path: "open/f", Kind: File, Mode: 0o666, Size: 100, Seed: "o"}, dir("empty"), {Path: "shut", Kind: Dir, Mode: 0o555, UID: 1000}},
	}, Upper: Layer{file("upper", "u"), file("merged/upper", "u"), dir("updir")}}
}

// on returns the case with the writing tree.
func on(name string, run func(*Run)) Case { return Case{Name: name, Set: writeSet(), Run: run} }

// withOptions returns the case with mount options, and a name that says so.
func withOptions(c Case, options ...string) Case {
	c.Set.Options = options
	c.Name += "_" + strings.NewReplacer("=", "_", "_dir", "").Replace(strings.Join(options, "_"))
	return c
}

// copyUpCases are about what makes a copy of a lower file, and what the copy is like.
func copyUpCases() []Case {
	changes := map[string]func(*Run){
		"write":      func(r *Run) { fd := r.Open("rich", unix.O_WRONLY, 0); r.Pwrite(fd, 10, "changed"); r.Fstat(fd) },
		"append":     func(r *Run) { r.Append("rich", "more") },
		"truncate":   func(r *Run) { r.Truncate("rich", 100) },
		"open_trunc": func(r *Run) { r.Open("rich", unix.O_WRONLY|unix.O_TRUNC, 0) },
		"open_only":  func(r *Run) { r.Open("rich", unix.O_RDWR, 0); r.Pwrite(r.Open("low", unix.O_RDWR, 0), 0, "x") },
		"chmod":      func(r *Run) { r.Chmod("rich", 0o600) },
		"chown":      func(r *Run) { r.Chown("rich", 1001, 1000); r.Stat("rich") },
		"chown_same": func(r *Run) { r.Chown("rich", -1, -1); r.Stat("rich") },
		"utimens":    func(r *Run) { r.Utimens("rich", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 6, Nsec: 7}) },
		"setxattr":   func(r *Run) { r.SetXattr("rich", "user.new", "n", 0) },
		"removexattr": func(r *Run) {
			r.RemoveXattr("rich", "user.a")
			r.RemoveXattr("low", "user.none")
			r.RemoveXattr("low", "system.posix_acl_access")
			r.RemoveXattr("lowdir", "system.posix_acl_default")
		},
		"link":       func(r *Run) { r.Link("rich", "merged/rich2"); r.Stat("rich") },
		"rename":     func(r *Run) { r.Rename("rich", "merged/moved", 0); r.Stat("merged/moved") },
		"symlink":    func(r *Run) { r.Rename("link", "link2", 0); r.Chown("link2", 1, 1) },
		"fifo":       func(r *Run) { r.Chmod("fifo", 0o600); r.Rename("null", "null2", 0) },
		"directory":  func(r *Run) { r.Chmod("lowdir", 0o700); r.SetXattr("lowdir/b", "user.d", "1", 0) },
		"parents":    func(r *Run) { r.WriteFile("lowdir/b/new", "n"); r.WriteFile("merged/sub/new", "n") },
		"sparse":     func(r *Run) { r.Pwrite(r.Open("sparse", unix.O_RDWR, 0), 1<<20, "x") },
		"fallocate":  func(r *Run) { r.Fallocate(r.Open("low", unix.O_RDWR, 0), 0, 0, 10_000) },
		"by_reading": func(r *Run) { r.ReadFile("low"); r.List("lowdir"); r.GetXattr("rich", "user.a"); r.Stat("rich") },
		"refused": func(r *Run) {
			As(user, func() {
				r.Chmod("low", 0o777)
				r.WriteFile("low", "no")
				r.Chown("low", 0, 0)
				r.Utimens("low", unix.Timespec{}, unix.Timespec{})
			})
		},
		"as_owner": func(r *Run) { As(user, func() { r.Chmod("rich", 0o4711); r.Append("rich", "x"); r.Stat("rich") }) },
		"hard_link": func(r *Run) {
			r.Append("h1", "changed")
			r.Stat("h1")
			r.Stat("h2")
			r.ReadFile("h2")
			r.ReadFile("sub/h3")
		},
		"hole":      func(r *Run) { r.Chmod("hole", 0o600); r.Open("hole", unix.O_WRONLY|unix.O_APPEND, 0); r.Stat("hole") },
		"hard_meta": func(r *Run) { r.Chmod("h2", 0o600); r.Stat("h1"); r.Unlink("h1"); r.Stat("h2"); r.Stat("sub/h3") },
		"hard_link3": func(r *Run) {
			r.Link("h1", "h4")
			r.Stat("h2")
			r.Unlink("h2")
			r.Append("sub/h3", "z")
			r.ReadFile("h4")
		},
	}
	var cases []Case
	for _, name := range union(changes, nil) {
		c := on("copy_up_"+name, changes[name])
		cases = append(cases, withOptions(c, "metacopy=off", "index=off", "redirect_dir=off"))
		if name == "hard_link3" {
			c.NotesOn = map[string]string{"fuse": "FUSE names a file by its inode: which name of an indexed one the upper gets is not known"}
		}
		cases = append(cases, withOptions(c, "metacopy=on", "redirect_dir=on", "index=on"), withOptions(c, "index=on", "metacopy=off"))
		c.NotesOn = nil
		c.Set.Options = []string{"userxattr"}
		c.Name += "_userxattr"
		cases = append(cases, c)
	}
	return cases
}

// signalled runs a change of a file that takes a while to copy up, and meanwhile sends its thread signals that kill nobody. They
// are few: the kernel begins the copy anew after each.
func signalled(change func(r *Run)) func(*Run) {
	return func(r *Run) {
		var signals sync.WaitGroup
		As(Identity{}, func() {
			thread := unix.Gettid()
			signals.Go(func() {
				for range 5 {
					time.Sleep(5 * time.Millisecond)
					unix.Tgkill(unix.Getpid(), thread, unix.SIGURG) // which the Go runtime uses, and handles
				}
			})
			change(r)
			signals.Wait()
		})
	}
}

// signalCases change large files under signals. Nothing gives EINTR.
func signalCases() []Case {
	set := Set{Lower: []Layer{{{Path: "d/big", Kind: File, Mode: 0o644, Size: 64 << 20, Seed: "big"}}}}
	changes := map[string]func(*Run){
		"chmod":  func(r *Run) { r.Chmod("d/big", 0o600) },
		"rename": func(r *Run) { r.Rename("d/big", "d/moved", 0) },
		"link":   func(r *Run) { r.Link("d/big", "d/link") },
		"write":  func(r *Run) { r.Pwrite(r.Open("d/big", unix.O_RDWR, 0), 5, "x") },
	}
	var cases []Case
	for _, name := range union(changes, nil) {
		cases = append(cases, Case{Name: "signalled_" + name, Set: set, Run: signalled(changes[name])})
	}
	return cases
}

// nameCases make and remove names.
func nameCases() []Case {
	cases := []Case{
		on("create_each_kind", func(r *Run) {
			r.WriteFile("merged/new", "n")
			r.Mkdir("merged/newdir", 0o755)
			r.Mknod("merged/fifo", unix.S_IFIFO|0o640, 0, 0)
			r.Mknod("merged/sock", unix.S_IFSOCK|0o640, 0, 0)
			r.Mknod("merged/dev", unix.S_IFCHR|0o640, 1, 5)
			r.Mknod("merged/blk", unix.S_IFBLK|0o640, 7, 0)
			r.Mknod("merged/reg", unix.S_IFREG|0o640, 0, 0)
			r.Mknod("merged/white", unix.S_IFCHR|0o640, 0, 0)
			r.Symlink("target", "merged/link")
			r.List("merged")
		}),
		on("create_over_existing", func(r *Run) {
			for _, name := range []string{"low", "upper", "merged", "link", "fifo"} {
				r.Mkdir(name, 0o755)
				r.Mknod(name, unix.S_IFIFO, 0, 0)
				r.Symlink("x", name)
				r.Link("top", name)
				r.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
			}
		}),
		on("unlink_each_place", func(r *Run) {
			for _, name := range []string{"low", "top", "upper", "merged/low", "merged/top", "merged/upper", "h1", "fifo", "link", "merged", "missing", "low/x"} {
				r.Unlink(name)
			}
			r.Rmdir("low")
			r.List(".")
			r.List("merged")
		}),
		on("rmdir", func(r *Run) {
			r.Rmdir("lowdir")
			r.Rmdir("empty")
			r.Rmdir("updir")
			r.Rmdir("merged")
			for _, f := range []string{"lowdir/b/c", "lowdir/a"} {
				r.Unlink(f)
			}
			r.Rmdir("lowdir/b")
			r.Rmdir("lowdir")
			r.List(".")
		}),
		on("remove_and_make_again", func(r *Run) {
			r.Unlink("lowdir/a")
			r.Unlink("lowdir/b/c")
			r.Rmdir("lowdir/b")
			r.Rmdir("lowdir")
			r.Mkdir("lowdir", 0o755)
			r.List("lowdir")
			r.WriteFile("lowdir/a", "new")
			r.Mkdir("lowdir/b", 0o700)
			r.List("lowdir/b")
			r.Unlink("low")
			r.Mkdir("low", 0o755)
			r.Unlink("link")
			r.Symlink("elsewhere", "link")
			r.Unlink("top")
			r.WriteFile("top", "again")
			r.Unlink("top")
			r.Stat("top")
		}),
		on("no_needless_whiteouts", func(r *Run) {
			r.WriteFile("merged/a", "1")
			r.Rename("merged/a", "merged/b", 0)
			r.Unlink("merged/b")
			r.Mkdir("updir/d", 0o755)
			r.Rmdir("updir/d")
			r.Mkdir("d", 0o755)
			r.WriteFile("d/f", "x")
			r.Rename("d/f", "d/g", 0)
			r.Unlink("d/g")
			r.Rmdir("d")
			r.Unlink("upper")
		}),
		on("remove_all", func(r *Run) {
			for range 2 {
				r.Unlink("merged/sub/x")
				r.Rmdir("merged/sub")
				for _, f := range []string{"top", "low", "upper"} {
					r.Unlink("merged/" + f)
				}
				r.Rmdir("merged")
				r.Mkdir("merged", 0o755)
			}
			r.List("merged")
		}),
		on("link", func(r *Run) {
			r.Link("low", "merged/l1")
			r.Link("upper", "merged/l2")
			r.Link("link", "l3")
			r.Link("merged", "l4")
			r.Link("missing", "l5")
			r.Link("fifo", "l6")
			r.Stat("low")
			r.Stat("upper")
			r.Unlink("low")
			r.Stat("merged/l1")
			r.Append("merged/l1", "x")
		}),
		on("tmpfile", func(r *Run) {
			fd := r.Open("merged", unix.O_TMPFILE|unix.O_RDWR, 0o640)
			r.Pwrite(fd, 0, "content")
			r.Fstat(fd)
			from := fmt.Sprintf("/proc/self/fd/%d", fd)
			r.Err("linkat", unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, r.Path("merged/named"), unix.AT_SYMLINK_FOLLOW))
			r.Fstat(fd)
			r.Pwrite(fd, 3, "MORE")
			r.ReadFile("merged/named")
			closed := r.Open("lowdir", unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o640)
			r.Err("linkat excl", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", closed), unix.AT_FDCWD, r.Path("x"), unix.AT_SYMLINK_FOLLOW))
			r.Open("low", unix.O_TMPFILE|unix.O_RDWR, 0o640)
			r.Open("merged", unix.O_TMPFILE|unix.O_RDONLY, 0o640)
			As(user, func() { r.Fstat(r.Open("setgid", unix.O_TMPFILE|unix.O_RDWR, 0o666)) })
		}),
		on("names_with_meaning", func(r *Run) {
			for _, name := range []string{".wh.low", ".wh..wh..opq", "work", "index", "#1", strings.Repeat("n", 255), "new\nline", "comma,colon:\\"} {
				r.WriteFile(name, "x")
				r.Mkdir("merged/"+name, 0o755)
			}
			r.Unlink(".wh.low")
			r.List(".")
		}),
	}
	return cases
}

// renameCases move names about.
func renameCases() []Case {
	names := []string{"low", "upper", "merged", "lowdir", "updir", "empty", "h1", "link", "missing", "fifo"}
	pairs := func(flags uint) func(*Run) {
		return func(r *Run) {
			for i, from := range names {
				r.Rename(from, names[(i+3)%len(names)], flags)
				r.Rename(names[(i+5)%len(names)], "to", flags)
				r.Rename("to", from, flags)
			}
			r.List(".")
		}
	}
	bodies := map[string]func(*Run){
		"pairs":     pairs(0),
		"noreplace": pairs(unix.RENAME_NOREPLACE),
		"exchange":  pairs(unix.RENAME_EXCHANGE),
		"whiteout":  pairs(unix.RENAME_WHITEOUT),
		"bad_flags": func(r *Run) {
			r.Rename("low", "x", unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE)
			r.Rename("low", "x", unix.RENAME_WHITEOUT|unix.RENAME_EXCHANGE)
			r.Rename("low", "x", 64)
		},
		"lower_directory": func(r *Run) {
			r.Rename("lowdir", "moved", 0)
			r.List("moved")
			r.ReadFile("moved/b/c")
			r.WriteFile("moved/b/new", "n")
			r.Rename("moved/b", "merged/b", 0)
			r.Rename("moved", "merged/moved", 0)
			r.List("merged")
			r.Unlink("merged/moved/a")
			r.Rename("merged", "m2", 0)
			r.List("m2/moved")
		},
		"over_directory": func(r *Run) {
			r.Rename("updir", "empty", 0)
			r.Rename("empty", "lowdir", 0)
			r.Unlink("lowdir/a")
			r.Unlink("lowdir/b/c")
			r.Rmdir("lowdir/b")
			r.Mkdir("d", 0o755)
			r.WriteFile("d/f", "x")
			r.Rename("d", "lowdir", 0)
			r.List("lowdir")
			r.Rename("lowdir", "lowdir/inside", 0)
			r.Rename("merged/sub", "merged", 0)
		},
		"over_open_directory": func(r *Run) {
			whiteouts := r.Open("merged/sub", unix.O_PATH|unix.O_DIRECTORY, 0)
			r.Unlink("merged/sub/x")
			r.Mkdir("d", 0o755)
			r.Rename("d", "merged/sub", 0)
			r.Fstat(whiteouts)
			r.List("merged/sub")
			empty := r.Open("empty", unix.O_PATH|unix.O_DIRECTORY, 0)
			r.Rename("updir", "empty", 0)
			r.Fstat(empty)
		},
		"over_hard_link": func(r *Run) {
			r.Link("upper", "u2")
			r.Rename("upper", "u2", 0)
			r.Stat("upper")
			r.Rename("low", "u2", 0)
			r.Stat("upper")
			r.Rename("top", "h1", 0)
			r.Stat("h2")
			r.Stat("h1")
		},
		"back_again": func(r *Run) {
			r.Rename("low", "x", 0)
			r.Rename("x", "low", 0)
			r.Rename("merged/low", "merged/y", 0)
			r.Rename("merged/y", "merged/low", 0)
			r.Rename("lowdir", "z", 0)
			r.Rename("z", "lowdir", 0)
			r.ReadFile("lowdir/a")
		},
		"onto_a_full_directory": func(r *Run) {
			for _, name := range []string{"lowdir", "merged", "updir", "empty"} {
				r.Mkdir("full-"+name, 0o755)
				r.Mkdir("full-"+name+"/x", 0o755)
				r.Rename(name, "full-"+name, 0)
			}
		},
		"onto_a_full_directory_elsewhere": func(r *Run) {
			r.Mkdir("updir/full", 0o755)
			r.Mkdir("updir/full/x", 0o755)
			r.Rename("empty", "updir/full", 0)
			r.Stat(".")
		},
		"onto_a_full_directory_elsewhere_from_the_upper": func(r *Run) {
			r.Chmod("empty", 0o700)
			r.Mkdir("updir/full", 0o755)
			r.Mkdir("updir/full/x", 0o755)
			r.Stat(".")
			r.Rename("empty", "updir/full", 0)
			r.Stat(".")
		},
		"onto_a_full_directory_in_a_merged_one": func(r *Run) {
			r.Chmod("lowdir", 0o700)
			r.Chmod("empty", 0o700)
			r.Mkdir("pure", 0o755)
			r.Mkdir("merged/full", 0o755)
			r.Mkdir("merged/full/x", 0o755)
			r.List(".") // or the kernel would be told anew with the names
			for _, name := range []string{"empty", "pure", "lowdir"} {
				r.Rename(name, "merged/full", 0)
			}
		},
		"into_a_users": func(r *Run) {
			As(user, func() {
				r.Rename("open/f", "open/g", 0)
				r.Rename("low", "open/low", 0)
				r.Rename("open/g", "sticky/g", 0)
				r.Rename("sticky/mine", "open/mine", 0)
			})
		},
	}
	var cases []Case
	for _, name := range union(bodies, nil) {
		for _, redirect := range []string{"on", "off", "nofollow"} {
			cases = append(cases, withOptions(on("rename_"+name, bodies[name]), "redirect_dir="+redirect))
		}
		cases = append(cases, withOptions(on("rename_"+name, bodies[name]), "redirect_dir=on", "index=on", "metacopy=on"))
	}
	return cases
}

// elsewhereCases copy up from file systems whose handles and UUIDs are of another kind than ext4's.
func elsewhereCases() []Case {
	var cases []Case
	for _, mkfs := range []string{"mkfs.btrfs", "mkfs.xfs", "mksquashfs", "mksquashfs of each"} {
		for _, options := range [][]string{{"index=off"}, {"index=on", "redirect_dir=on", "metacopy=on"}} {
			c := withOptions(on("from_"+strings.TrimPrefix(mkfs, "mkfs."), func(r *Run) {
				r.Chmod("low", 0o600)
				r.Append("lowdir/a", "x")
				r.Rename("lowdir/a", "lowdir/moved", 0)
				r.Chmod("merged/sub", 0o700)
				before := r.Ino("lowdir/moved")
				for _, name := range []string{"top", "low"} { // below, and copied up
					r.RemoveXattr(name, "system.posix_acl_access")
					r.SetXattr(name, "system.posix_acl_access", acl("u::rwx,u:1000:rwx,g::r-x,m::r-x,o::r-x"), 0)
					r.GetXattr(name, "system.posix_acl_access")
				}
				r.Link("low", "linked")
				r.Note("same inode of a link", r.Ino("linked") == r.Ino("low"))
				r.Unlink("linked")
				r.Remount()
				r.Note("same inode after a remount", r.Ino("lowdir/moved") == before)
				r.List("lowdir")
			}), options...)
			switch mkfs {
			case "mksquashfs":
				c.Built = squash
			case "mksquashfs of each":
				c.Built = squashEach
			default:
				c.LayersOn = formatted(mkfs)
			}
			cases = append(cases, c)
		}
	}
	return cases
}

// openFileCases hold files open across changes of their names and layers.
func openFileCases() []Case {
	cases := []Case{
		on("open_across_copy_up", func(r *Run) {
			reader := r.Open("low", unix.O_RDONLY, 0)
			r.Pread(reader, 0, 10)
			writer := r.Open("low", unix.O_RDWR, 0)
			r.Pwrite(writer, 0, "changed")
			r.Pread(reader, 0, 20)
			r.Fstat(reader)
			r.Pwrite(writer, 200, "grown")
			r.Pread(reader, 190, 20)
			r.Note("same inode", r.sameInode(reader, writer))
		}),
		on("open_across_unlink", func(r *Run) {
			for _, name := range []string{"low", "upper", "merged/top"} {
				reader := r.Open(name, unix.O_RDONLY, 0)
				writer := r.Open(name, unix.O_RDWR, 0)
				r.Unlink(name)
				r.Pread(reader, 0, 10)
				r.Pwrite(writer, 0, "after")
				r.Pread(reader, 0, 10)
				r.Fstat(writer)
				r.WriteFile(name, "another")
				r.Pread(reader, 0, 10)
				r.ReadFile(name)
			}
		}),
		on("open_lower_across_unlink", func(r *Run) {
			reader := r.Open("low", unix.O_RDONLY, 0)
			r.Unlink("low")
			r.DropCaches()
			r.Pread(reader, 0, 10)
			r.Fstat(reader)
		}),
		on("change_lower_across_unlink", func(r *Run) {
			fd := r.Open("low", unix.O_RDONLY, 0)
			r.Unlink("low")
			r.Err("fchmod unlinked", unix.Fchmod(fd, 0o600))
			r.Err("fchown unlinked", unix.Fchown(fd, 1, 1))
			r.Err("futimens unlinked", futimens(fd, [2]unix.Timespec{{Sec: 1}, {Sec: 2}}))
			r.Err("fsetxattr unlinked", unix.Fsetxattr(fd, "user.a", []byte("v"), 0))
		}),
		on("open_metacopy_for_writing", func(r *Run) {
			r.Chmod("low", 0o600)
			r.Stat("low")
			r.Fstat(r.Open("low", unix.O_RDWR, 0))
		}),
		on("open_across_rename", func(r *Run) {
			fd := r.Open("low", unix.O_RDWR, 0)
			r.Rename("low", "merged/moved", 0)
			r.Pwrite(fd, 0, "still")
			r.ReadFile("merged/moved")
			other := r.Open("top", unix.O_RDONLY, 0)
			r.Rename("merged/moved", "top", 0)
			r.Pread(other, 0, 10)
			r.Pwrite(fd, 5, "there")
			r.ReadFile("top")
			r.Fstat(fd)
		}),
		on("open_across_replacement", func(r *Run) {
			reader := r.Open("low", unix.O_RDONLY, 0)
			r.WriteFile("new", "replacement")
			r.Rename("new", "low", 0)
			r.Pread(reader, 0, 11)
			r.ReadFile("low")
			r.Note("same inode", r.sameInode(reader, r.Open("low", unix.O_RDONLY, 0)))
		}),
		on("open_directory_across_changes", func(r *Run) {
			for _, name := range []string{"lowdir", "merged", "updir"} {
				fd := r.Open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
				n := Node{}
				r.WriteFile(name+"/new", "x")
				r.Err("list", list(n, fd))
				r.Note("entries", n["entries"])
				r.Rename(name, name+"2", 0)
				r.WriteFile(name+"2/newer", "x")
				r.Err("list", list(n, fd))
				r.Note("entries", n["entries"])
				r.Err("mkdirat", unix.Mkdirat(fd, "by-descriptor", 0o755))
			}
		}),
		on("removed_directory", func(r *Run) {
			for _, name := range []string{"empty", "updir"} {
				fd := r.Open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
				r.Rmdir(name)
				r.Err("mkdirat", unix.Mkdirat(fd, "x", 0o755))
				_, err := unix.Openat(fd, "x", unix.O_CREAT|unix.O_WRONLY, 0o644)
				r.Err("openat", err)
				n := Node{}
				r.Err("list", list(n, fd))
				r.Note("entries", n["entries"])
			}
		}),
		on("descriptor_of_unlinked_linked_again", func(r *Run) {
			fd := r.Open("upper", unix.O_RDWR, 0)
			r.Unlink("upper")
			r.Err("linkat", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, r.Path("again"), unix.AT_SYMLINK_FOLLOW))
		}),
		on("open_again_by_proc", func(r *Run) {
			fd := r.Open("low", unix.O_RDONLY, 0)
			again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR, 0)
			r.Err("reopen", err)
			r.Pwrite(again, 0, "by proc")
			r.Pread(fd, 0, 10)
			unix.Close(again)
		}),
	}
	all := append([]Case{}, cases...)
	for _, c := range cases {
		all = append(all, withOptions(c, "metacopy=on", "redirect_dir=on", "index=on"))
	}
	return all
}

// sameInode tells whether two descriptors are of one file.
func (r *Run) sameInode(a, b int) bool {
	var sa, sb unix.Stat_t
	unix.Fstat(a, &sa)
	unix.Fstat(b, &sb)
	return sa.Ino == sb.Ino && sa.Dev == sb.Dev
}

// historyCases run over several mounts.
func historyCases() []Case {
	inode := func(name string, change func(*Run)) Case {
		return on("inode_stays_"+name, func(r *Run) {
			names := []string{"low", "merged", "lowdir", "h2", "upper", "link"}
			before := map[string]uint64{}
			for _, n := range names {
				before[n] = r.Ino(n)
			}
			change(r)
			for _, n := range names {
				r.Note("same "+n, r.Ino(n) == before[n])
			}
			r.Remount()
			for _, n := range names {
				r.Note("same after remount "+n, r.Ino(n) == before[n])
			}
		})
	}
	cases := []Case{
		inode("copy_up", func(r *Run) {
			for _, n := range []string{"low", "merged", "lowdir", "h2"} {
				r.Chmod(n, 0o700)
			}
			r.Chown("link", 1, 1)
		}),
		inode("rename", func(r *Run) { r.Rename("low", "x", 0); r.Rename("x", "low", 0); r.Rename("merged/low", "lowdir/z", 0) }),
		on("lower_after_remount", func(r *Run) {
			r.Rename("lowdir", "moved", 0)
			r.Rename("merged/sub", "sub2", 0)
			r.Remount()
			r.List("moved")
			r.Rename("moved", "again", 0)
			r.ReadFile("again/b/c")
			r.Rename("sub2", "again/sub3", 0)
			r.Remount()
			r.List("again")
			r.Unlink("again/a")
			r.WriteFile("again/sub3/new", "x")
		}),
		on("work_after_remounts", func(r *Run) {
			for i := range 3 {
				r.Append("low", fmt.Sprint("round ", i))
				r.WriteFile(fmt.Sprint("new", i), "x")
				r.Unlink(fmt.Sprint("new", i-1))
				r.Remount()
			}
			r.ReadFile("low")
		}),
	}
	return append(cases, withOptions(cases[0], "index=on", "redirect_dir=on"), withOptions(cases[2], "redirect_dir=on"), withOptions(cases[2], "redirect_dir=on", "metacopy=on", "index=on"))
}
