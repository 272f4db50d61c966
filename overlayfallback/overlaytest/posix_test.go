package overlaytest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPosix runs the corners of POSIX and of Linux, on files from below and from the upper alike.
func TestPosix(t *testing.T) {
	cases := append(limitCases(), modeCases()...)
	cases = append(append(cases, timeCases()...), dataCases()...)
	cases = append(append(cases, xattrCases()...), handleCases()...)
	RunCases(t, append(cases, lockCases()...), routes("overlay", "stacked", "fuse", "fuse,fastpath=passthrough", "fuse,fastpath=off"))
}

// both runs the body for a file from below and one from the upper.
func both(body func(r *Run, name string)) func(*Run) {
	return func(r *Run) {
		for _, name := range []string{"low", "upper"} {
			body(r, name)
		}
	}
}

// limitCases are about names and paths that are too long.
func limitCases() []Case {
	return []Case{
		on("name_too_long", func(r *Run) {
			for _, n := range []int{255, 256, 1000} {
				for _, parent := range []string{"", "merged/", "lowdir/b/", "updir/"} {
					name := parent + strings.Repeat("n", n)
					r.Stat(name)
					r.WriteFile(name, "x")
					r.Mkdir(name+"d", 0o755)
					r.Mknod(name[:len(name)-1]+"f", unix.S_IFIFO|0o644, 0, 0)
					r.Symlink("x", name[:len(name)-1]+"s")
					r.Link("low", name[:len(name)-1]+"l")
					r.Rename("low", name[:len(name)-1]+"r", 0)
					r.Rename(name[:len(name)-1]+"r", "low", 0)
					r.Unlink(name)
					r.GetXattr(name, "user.a")
				}
			}
		}),
		on("path_too_long", func(r *Run) {
			fd := r.deep(strings.Repeat("deep", 50), 40)
			f, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_RDWR, 0o644)
			r.Err("create 8,000 bytes down", err)
			r.open[f] = true
			r.Pwrite(f, 0, "at the bottom")
			r.Err("mkdir", unix.Mkdirat(fd, "dir", 0o755))
			r.Err("rename", unix.Renameat(fd, "file", fd, "dir/moved"))
			r.Err("link", unix.Linkat(fd, "dir/moved", fd, "again", 0))
			r.Err("symlink", unix.Symlinkat("x", fd, "link"))
			r.Err("unlink", unix.Unlinkat(fd, "again", 0))
			r.Err("long name", unix.Mkdirat(fd, strings.Repeat("n", 256), 0o755))
			r.Fstat(f)
			long := strings.Repeat("./", 2040)
			r.Err("path of 4,083 bytes", unix.Mkdirat(fd, long+"ok1", 0o755))
			r.Err("path of 4,097 bytes", unix.Mkdirat(fd, long+strings.Repeat("n", 17), 0o755))
		}),
		{Name: "path_too_long_below", Set: deepSet(), Run: func(r *Run) {
			fd := r.Open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
			for range 17 {
				next, err := unix.Openat(fd, strings.Repeat("deep", 50), unix.O_RDONLY|unix.O_DIRECTORY, 0)
				if err != nil {
					r.Err("descend", err)
					return
				}
				r.open[next] = true
				fd = next
			}
			f, err := unix.Openat(fd, "f", unix.O_RDWR, 0)
			r.Err("copy up", err)
			r.open[f] = true
			r.Err("chmod", unix.Fchmodat(fd, "f", 0o600, 0))
			r.Err("rename", unix.Renameat(fd, "f", fd, "g"))
		}},
		on("symlink_limits", func(r *Run) {
			r.Symlink(strings.Repeat("x", 4095), "l1")
			r.Symlink(strings.Repeat("x", 4096), "l2")
			r.Symlink("", "l3")
			for i := range 45 {
				r.Symlink(fmt.Sprint("loop", i+1), fmt.Sprint("loop", i))
			}
			r.ReadFile("loop0")
			r.ReadFile("loop40")
			buf := make([]byte, 3)
			n, err := unix.Readlink(r.Path("link"), buf)
			r.Err("readlink into 3 bytes", err)
			r.Note("read", string(buf[:max(n, 0)]))
		}),
		on("trailing_slashes", func(r *Run) {
			r.Mkdir("new/", 0o755)
			r.Rmdir("new/")
			r.Unlink("low/")
			r.WriteFile("x/", "x")
			r.Rename("low", "moved/", 0)
			r.Rename("lowdir/", "moved/", 0)
			r.Link("upper", "l/")
			r.Rmdir("moved/.")
			r.Rmdir("merged/..")
			r.Rename("merged/.", "x", 0)
			r.Symlink("lowdir", "dirlink")
			r.List("dirlink/")
		}),
	}
}

// deepSet is a lower file whose path takes 3,400 bytes: as deep as the layer can be built by its path.
func deepSet() Set {
	return Set{Lower: []Layer{{file(strings.Repeat(strings.Repeat("deep", 50)+"/", 17)+"f", "deep")}, {}}}
}

// modeCases are about permission bits: umask, default ACLs, set-id bits, sticky directories.
func modeCases() []Case {
	makeAll := func(r *Run, dir string) {
		r.Open(dir+"/file", unix.O_CREAT|unix.O_WRONLY, 0o6777)
		r.Mkdir(dir+"/dir", 0o7777)
		r.Mknod(dir+"/fifo", unix.S_IFIFO|0o6777, 0, 0)
		r.Mknod(dir+"/sock", unix.S_IFSOCK|0o777, 0, 0)
		r.Mknod(dir+"/reg", unix.S_IFREG|0o4777, 0, 0)
		r.Symlink("x", dir+"/link")
		r.Fstat(r.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o6777))
		for _, n := range []string{"file", "dir", "fifo", "sock", "reg", "link"} {
			r.Stat(dir + "/" + n)
			r.GetXattr(dir+"/"+n, "system.posix_acl_access")
			r.GetXattr(dir+"/"+n, "system.posix_acl_default")
		}
	}
	var cases []Case
	for _, mask := range []int{NoMask, 0o022, 0o027, 0o077, 0o777} {
		for _, uid := range []int{0, 1000} {
			name := fmt.Sprintf("umask_%03o_uid_%d", mask&0o777, uid)
			cases = append(cases, on(name, func(r *Run) {
				As(Identity{UID: uid, GID: uid, Groups: []int{1001}, Umask: mask}, func() {
					for _, dir := range []string{"open", "acl", "setgid", "sticky"} {
						makeAll(r, dir)
					}
				})
			}))
		}
	}
	return append(cases, []Case{
		on("setgid_directory", func(r *Run) {
			for _, id := range []Identity{{}, user, {UID: 1002, GID: 1002}} {
				As(id, func() {
					r.Mkdir(fmt.Sprint("setgid/d", id.UID), 0o777)
					r.Open(fmt.Sprint("setgid/f", id.UID), unix.O_CREAT|unix.O_WRONLY, 0o2777)
					r.Open(fmt.Sprint("setgid/g", id.UID), unix.O_CREAT|unix.O_WRONLY, 0o2767)
					r.Mkdir(fmt.Sprintf("setgid/d%d/e", id.UID), 0o755)
				})
			}
		}),
		on("chmod_setgid_of_foreign_group", func(r *Run) {
			r.Chown("upper", 1000, 1002)
			r.Chown("low", 1000, 1001)
			As(user, func() { r.Chmod("upper", 0o2755); r.Stat("upper"); r.Chmod("low", 0o2755); r.Stat("low") })
		}),
		on("suid_cleared_by_write", setIDCleared(func(r *Run, name string, fd int) { r.Pwrite(fd, 0, "x") })),
		on("suid_cleared_by_truncate", setIDCleared(func(r *Run, name string, _ int) { r.Truncate(name, 10) })),
		on("suid_cleared_by_ftruncate", setIDCleared(func(r *Run, _ string, fd int) { r.Err("ftruncate", unix.Ftruncate(fd, 10)) })),
		on("suid_cleared_by_open_trunc", setIDCleared(func(r *Run, name string, _ int) { r.Open(name, unix.O_WRONLY|unix.O_TRUNC, 0) })),
		on("suid_cleared_by_fallocate", setIDCleared(func(r *Run, _ string, fd int) { r.Fallocate(fd, 0, 0, 10_000) })),
		on("suid_cleared_by_chown", setIDCleared(func(r *Run, name string, _ int) { r.Chown(name, -1, 1001) })),
		on("suid_cleared_by_owners_chown_same", setIDClearedBy(user, func(r *Run, name string, _ int) { r.Chown(name, -1, -1) })),
		on("suid_cleared_by_roots_chown_same", both(func(r *Run, name string) {
			r.Chmod(name, 0o6755)
			r.Chown(name, -1, -1)
			r.Stat(name)
		})),
		on("suid_kept_from_others_chown", func(r *Run) {
			for i, mode := range []uint32{0o4755, 0o2755, 0o2644, 0o755} {
				for _, gid := range []int{0, 1001} {
					name := fmt.Sprintf("others%d-%d", i, gid)
					r.WriteFile(name, "x")
					early := r.Open(name, unix.O_RDWR, 0)
					r.Chown(name, -1, gid)
					r.Chmod(name, mode)
					As(user, func() { r.Pwrite(early, 0, "written by another") })
					r.Stat(name)
					r.Close(early)
					r.Chmod(name, mode)
					As(user, func() { r.Chown(name, -1, -1) })
					r.Stat(name)
					fd := r.Open(name, unix.O_RDWR, 0)
					As(user, func() { r.Pwrite(fd, 0, "once more") })
					r.Stat(name)
				}
			}
		}),
		{Name: "sgid_cleared_by_removing_acl", Set: Set{Lower: []Layer{{{Path: "d", Kind: Dir, Mode: 0o2777, UID: 1000},
			{Path: "f", Kind: File, Mode: 0o2755, UID: 1000}, {Path: "g", Kind: File, Mode: 0o2755, UID: 1000, GID: 1001}}}}, Run: func(r *Run) {
			for range 2 { // below, then in the upper
				for _, name := range []string{"d", "f", "g"} {
					As(user, func() { r.RemoveXattr(name, "system.posix_acl_access") })
					r.Stat(name)
					r.Chmod(name, 0o2755)
				}
			}
		}},
		on("suid_of_special_files", func(r *Run) {
			for _, mode := range []uint32{unix.S_IFIFO | 0o6755, unix.S_IFSOCK | 0o2644, unix.S_IFCHR | 0o6645} {
				name := fmt.Sprintf("special%o", mode)
				r.Mknod(name, mode, 1, 3)
				for _, uid := range []int{0, 1000} {
					for _, id := range []Identity{user, {}} {
						r.Chown(name, uid, 1002)
						r.Chmod(name, mode)
						As(id, func() { r.Chown(name, -1, -1) })
						r.Stat(name)
					}
				}
			}
		}),
		on("sgid_kept_by_default_acl", func(r *Run) {
			for _, name := range []string{"setgid", "updir"} {
				r.Chown(name, 1000, 0)
				r.Chmod(name, 0o2777)
				As(user, func() { r.SetXattr(name, "system.posix_acl_default", acl("u::rwx,g::r-x,o::r-x"), 0) })
				r.Stat(name)
				As(user, func() { r.RemoveXattr(name, "system.posix_acl_default") })
				r.Stat(name)
				As(user, func() { r.SetXattr(name, "system.posix_acl_access", acl("u::rwx,g::r-x,o::r-x"), 0) })
				r.Stat(name)
			}
		}),
		{Name: "suid_kept_from_others_chown_below", Set: Set{Lower: []Layer{{{Path: "d/low", Kind: File, Mode: 0o2755}}}}, Run: func(r *Run) {
			As(user, func() { r.Chown("d/low", -1, -1) })
			r.Stat("d/low")
		}},
		{Name: "capabilities_after_others_chown", Set: Set{Lower: []Layer{{
			{Path: "low", Kind: File, Mode: 0o2755, Xattrs: []Xattr{{capabilityXattr, capability}}},
			{Path: "plain", Kind: File, Mode: 0o755, Xattrs: []Xattr{{capabilityXattr, capability}}},
		}}}, Run: func(r *Run) {
			r.WriteFile("new", "x")
			r.SetXattr("new", capabilityXattr, capability, 0)
			r.Chmod("new", 0o6755)
			for _, name := range []string{"new", "low", "plain"} {
				for _, id := range []Identity{{UID: 1001, GID: 1001}, user} {
					As(id, func() { r.Chown(name, -1, -1) })
					r.Stat(name)
					r.GetXattr(name, capabilityXattr)
				}
			}
		}},
		on("suid_kept_by_rename_and_link", setIDCleared(func(r *Run, name string, _ int) {
			r.Rename(name, "x", 0)
			r.Link("x", name)
			r.Unlink("x")
		})),
		on("suid_cleared_by_mmap", setIDCleared(func(r *Run, _ string, fd int) { r.mapWrite(fd, "mapped") })),
		on("suid_cleared_by_copy_range", setIDCleared(func(r *Run, _ string, fd int) {
			from := r.Open("top", unix.O_RDONLY, 0)
			_, err := unix.CopyFileRange(from, nil, fd, nil, 50, 0)
			r.Err("copy_file_range", err)
		})),
		on("sticky_directory", func(r *Run) {
			r.WriteFile("sticky/roots", "x")
			As(user, func() {
				r.Unlink("sticky/roots")
				r.Unlink("sticky/mine")
				r.Rename("sticky/mine", "sticky/other", 0)
				r.WriteFile("sticky/own", "x")
				r.Rename("sticky/own", "sticky/mine", 0)
				r.Unlink("sticky/own")
				r.Rmdir("sticky")
			})
			As(Identity{UID: 1001, GID: 1001}, func() { r.Unlink("sticky/mine") })
		}),
		on("closed_directories", func(r *Run) {
			r.Chmod("lowdir", 0)
			r.Chmod("updir", 0o555)
			As(user, func() {
				r.List("lowdir")
				r.Stat("lowdir/a")
				r.WriteFile("updir/x", "x")
				r.WriteFile("shut/x", "x")
				r.Chmod("shut", 0o755)
				r.WriteFile("shut/x", "x")
			})
			r.ReadFile("lowdir/a")
			r.WriteFile("updir/x", "x")
		}),
		on("acl_and_mode", func(r *Run) {
			r.SetXattr("low", "system.posix_acl_access", acl("u::rw-,u:1000:rwx,g::r--,m::rwx,o::r--"), 0)
			r.Stat("low")
			r.Chmod("low", 0o640)
			r.GetXattr("low", "system.posix_acl_access")
			r.SetXattr("low", "system.posix_acl_access", "bad", 0)
			r.SetXattr("low", "system.posix_acl_default", acl("u::rwx,g::r-x,o::r-x"), 0)
			r.SetXattr("lowdir", "system.posix_acl_default", acl("u::rwx,g::r-x,o::r-x"), 0)
			r.Mkdir("lowdir/new", 0o777)
			r.RemoveXattr("low", "system.posix_acl_access")
			r.RemoveXattr("upper", "system.posix_acl_access")
			r.Chmod("acl", 0o700)
			As(user, func() { r.SetXattr("upper", "system.posix_acl_access", acl("u::rwx,g::rwx,o::rwx"), 0); r.List("acl") })
			r.Remount()
			r.GetXattr("lowdir/new", "system.posix_acl_default")
		}),
	}...)
}

// setIDCleared runs a change by root and by the owner on files with set-id bits and a capability, below and in the upper.
func setIDCleared(change func(r *Run, name string, fd int)) func(*Run) {
	return func(r *Run) {
		setIDClearedBy(Identity{}, change)(r)
		setIDClearedBy(user, change)(r)
	}
}

// setIDClearedBy is setIDCleared by one of the two.
func setIDClearedBy(id Identity, change func(r *Run, name string, fd int)) func(*Run) {
	return func(r *Run) {
		for _, mode := range []uint32{0o6755, 0o6745, 0o2644} {
			for _, below := range []bool{true, false} {
				name := fmt.Sprintf("f%o-%d-%v", mode, id.UID, below)
				if below {
					r.Link("low", name)
					name = "low"
				} else {
					r.WriteFile(name, strings.Repeat("content", 20))
				}
				r.Chown(name, 1000, 1000)
				r.SetXattr(name, capabilityXattr, capability, 0)
				r.Chmod(name, mode)
				As(id, func() {
					fd := r.Open(name, unix.O_RDWR, 0)
					change(r, name, fd)
				})
				r.Stat(name)
				r.GetXattr(name, capabilityXattr)
			}
		}
	}
}

// capability is a valid security.capability: version 2, CAP_NET_RAW permitted.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// mapWrite writes through a shared mapping of the descriptor.
func (r *Run) mapWrite(fd int, data string) {
	m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if !r.Err("mmap", err) {
		return
	}
	if r.Err("fault in", unix.Madvise(m, unix.MADV_POPULATE_WRITE)) {
		copy(m, data)
		r.Err("msync", unix.Msync(m, unix.MS_SYNC))
	}
	r.Err("munmap", unix.Munmap(m))
}

// timeCases are about time stamps.
func timeCases() []Case {
	omit, now := unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_NOW}
	return []Case{
		on("times_far_and_fine", both(func(r *Run, name string) {
			for _, sec := range []int64{-2_147_483_649, -2_147_483_648, -1, 0, 1, 2_147_483_647, 2_147_483_648, 4_294_967_296, 15_032_385_535, 15_032_385_536, 1 << 40} {
				r.Utimens(name, unix.Timespec{Sec: sec, Nsec: 1}, unix.Timespec{Sec: sec, Nsec: 999_999_999})
				r.Stat(name)
			}
			r.Remount()
			r.Stat(name)
		})),
		on("times_omitted_and_now", both(func(r *Run, name string) {
			r.Utimens(name, unix.Timespec{Sec: 10, Nsec: 1}, unix.Timespec{Sec: 20, Nsec: 2})
			r.Utimens(name, omit, unix.Timespec{Sec: 30})
			r.Stat(name)
			r.Note("atime", r.atime(name))
			r.Utimens(name, unix.Timespec{Sec: 40}, omit)
			r.Stat(name)
			r.Note("atime", r.atime(name))
			r.Changes(name, "omit both", func() { r.Utimens(name, omit, omit) })
			r.Utimens(name, now, omit)
			r.Note("atime", r.atime(name) != "40.0")
			r.Utimens(name, unix.Timespec{Nsec: 2_000_000_000}, omit)
			As(user, func() { r.Utimens(name, now, now); r.Utimens(name, omit, omit) })
			r.Chmod(name, 0o666)
			As(user, func() {
				r.Utimens(name, now, now)
				r.Utimens(name, now, omit)
				r.Utimens(name, unix.Timespec{Sec: 1}, now)
			})
		})),
		on("atime_after_reading", func(r *Run) {
			long := unix.Timespec{Sec: 1000}
			for _, name := range []string{"low", "upper", "lowdir", "updir"} {
				r.Utimens(name, long, unix.Timespec{Sec: 2000})
				if strings.HasSuffix(name, "dir") {
					r.List(name)
				} else {
					r.ReadFile(name)
				}
				r.Note("atime changed", r.atime(name) != "1000.0")
				before := r.atime(name)
				r.ReadFile("merged/low")
				r.Note("atime changed by others", r.atime(name) != before)
			}
			fd := r.Open("upper", unix.O_RDONLY|unix.O_NOATIME, 0)
			r.Utimens("upper", long, unix.Timespec{Sec: 2000})
			r.Pread(fd, 0, 10)
			r.Note("atime changed in spite of O_NOATIME", r.atime("upper") != "1000.0")
			As(user, func() { r.Open("low", unix.O_RDONLY|unix.O_NOATIME, 0) })
		}),
		on("omit_both_copies_nothing_up", func(r *Run) { r.Utimens("low", omit, omit); r.Stat("low") }),
		on("changed_times", func(r *Run) {
			for _, name := range []string{"low", "upper", "lowdir", "updir"} {
				r.Changes(name, "chmod", func() { r.Chmod(name, 0o711) })
				r.Changes(name, "chown", func() { r.Chown(name, 5, 5) })
				r.Changes(name, "chown to the same", func() { r.Chown(name, 5, 5) })
				r.Changes(name, "chown of nothing", func() { r.Chown(name, -1, -1) })
				r.Changes(name, "setxattr", func() { r.SetXattr(name, "user.x", "1", 0) })
				r.Changes(name, "removexattr", func() { r.RemoveXattr(name, "user.x") })
				r.Changes(name, "rename", func() { r.Rename(name, name+"2", 0); r.Rename(name+"2", name, 0) })
				r.Changes(".", "mkdir below", func() { r.Mkdir("m"+name, 0o755) })
				r.Changes(".", "rename below", func() { r.Rename("m"+name, "n"+name, 0) })
				r.Changes(".", "rmdir below", func() { r.Rmdir("n" + name) })
				r.Changes(name, "stat", func() { r.Stat(name); r.ListXattr(name) })
			}
		}),
		on("changed_times_of_the_directory_of_a_copy_up", func(r *Run) {
			r.Changes("merged", "chmod in it", func() { r.Chmod("merged/low", 0o600); time.Sleep(200 * time.Millisecond) })
		}),
		on("changed_times_of_files", both(func(r *Run, name string) {
			fd := r.Open(name, unix.O_RDWR, 0)
			r.Changes(name, "read", func() { r.Pread(fd, 0, 10) })
			r.Changes(name, "write", func() { r.Pwrite(fd, 0, "x") })
			r.Changes(name, "write of nothing", func() { r.Pwrite(fd, 0, "") })
			r.Changes(name, "ftruncate", func() { r.Err("ftruncate", unix.Ftruncate(fd, 50)) })
			r.Changes(name, "ftruncate to the same", func() { r.Err("ftruncate", unix.Ftruncate(fd, 50)) })
			r.Changes(name, "truncate to the same", func() { r.Truncate(name, 50) })
			r.Changes(name, "fallocate", func() { r.Fallocate(fd, 0, 0, 100) })
			r.Changes(name, "fsync", func() { r.Err("fsync", unix.Fsync(fd)) })
			r.Changes(name, "link", func() { r.Link(name, name+"-l") })
			r.Changes(name, "unlink of the link", func() { r.Unlink(name + "-l") })
			r.Changes(name, "mmap", func() { r.mapWrite(fd, "m") })
			r.Changes(name, "open for writing", func() { r.Open(name, unix.O_WRONLY, 0) })
			r.Changes(name, "open and truncate", func() { r.Open(name, unix.O_WRONLY|unix.O_TRUNC, 0) })
			r.Changes(name, "open and truncate what is empty", func() { r.Open(name, unix.O_WRONLY|unix.O_TRUNC, 0) })
			r.Changes(name, "close", func() { r.Close(fd) })
		})),
		{Name: "changed_times_of_files_cut_to_their_size", Set: Set{Lower: []Layer{{{Path: "low", Kind: File},
			{Path: "long", Kind: File, Seed: "long", Size: 5000}}}}, UpperOn: tmpfs("size=8m"), Run: func(r *Run) {
			r.Changes("long", "cut to less", func() { r.Truncate("long", 4096) })
			r.WriteFile("new", "") // tmpfs tells truncate(2) and ftruncate(2) apart, ext4 does not
			for _, name := range []string{"low", "new"} {
				for what, cut := range []func(){
					func() { r.Truncate(name, 0) },
					func() { r.Err("ftruncate", unix.Ftruncate(r.Open(name, unix.O_RDWR, 0), 0)) },
					func() { r.Open(name, unix.O_WRONLY|unix.O_TRUNC, 0) },
				} {
					time.Sleep(20 * time.Millisecond) // times are those of the last tick
					r.Changes(name, fmt.Sprint("cut ", what), cut)
				}
			}
		}},
		on("changed_times_by_a_mapping", both(func(r *Run, name string) {
			for _, name := range []string{name, name + "-new"} {
				fd := r.Open(name, unix.O_RDWR|unix.O_CREAT, 0o600)
				r.Err("ftruncate", unix.Ftruncate(fd, 4096))
				m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				if !r.Err("mmap", err) {
					return
				}
				r.Changes(name, "read by a mapping", func() { r.Err("fault in", unix.Madvise(m, unix.MADV_POPULATE_READ)) })
				r.Changes(name, "write by a mapping", func() {
					r.Err("fault in", unix.Madvise(m, unix.MADV_POPULATE_WRITE))
					r.Err("msync", unix.Msync(m, unix.MS_SYNC))
				})
				r.Err("munmap", unix.Munmap(m))
			}
		})),
		on("changed_times_of_an_emptied_directory", func(r *Run) {
			r.Mkdir("new", 0o755)
			r.Rename("low", "new/low", 0)
			r.Unlink("new/low")
			r.Stat("new")
			r.Changes("new", "listing it", func() { r.List("new") })
		}),
		on("changed_times_by_further_calls", func(r *Run) {
			for _, name := range []string{"low", "upper", "lowdir", "updir"} {
				flags := unix.O_RDWR
				if strings.HasSuffix(name, "dir") {
					flags = unix.O_RDONLY
				}
				fd := r.Open(name, flags, 0)
				was, _ := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
				r.Changes(name, "file flags", func() {
					r.Err("set flags", unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, was|flagNoDump))
				})
				r.Changes(name, "the same file flags", func() {
					r.Err("set flags", unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, was|flagNoDump))
				})
				r.Changes(name, "acl", func() { r.SetXattr(name, "system.posix_acl_access", acl("u::rwx,u:5:r--,g::r-x,m::r-x,o::r-x"), 0) })
				r.Changes(name, "no acl", func() { r.RemoveXattr(name, "system.posix_acl_access") })
				r.Changes(name, "default acl", func() { r.SetXattr(name, "system.posix_acl_default", acl("u::rwx,g::r-x,o::r-x"), 0) })
				r.Changes(name, "xattr that is there", func() { r.SetXattr(name, "user.y", "1", 0); r.SetXattr(name, "user.y", "2", unix.XATTR_CREATE) })
				r.Changes(name, "xattr that is missing", func() { r.RemoveXattr(name, "user.none") })
				r.Changes(name, "mkdir of what is there", func() { r.Mkdir(name, 0o755) })
				r.Changes(".", "link over what is there", func() { r.Link("low", name) })
				if flags == unix.O_RDONLY {
					r.Changes(name, "symlink in it", func() { r.Symlink("x", name+"/s") })
					r.Changes(name, "fifo in it", func() { r.Mknod(name+"/p", unix.S_IFIFO|0o600, 0, 0) })
					r.Changes(name, "open in it", func() { r.Open(name+"/f", unix.O_CREAT|unix.O_RDWR, 0o600) })
					r.Changes(name, "open in it again", func() { r.Open(name+"/f", unix.O_CREAT|unix.O_RDWR, 0o600) })
					r.Changes(name, "nameless file in it", func() { r.Open(name, unix.O_TMPFILE|unix.O_RDWR, 0o600) })
					r.Changes(name, "link in it", func() { r.Link(name+"/f", name+"/g") })
					r.Changes(name, "exchange in it", func() { r.Rename(name+"/s", name+"/p", unix.RENAME_EXCHANGE) })
					r.Changes(name, "rename onto what is there", func() { r.Rename(name+"/s", name+"/p", unix.RENAME_NOREPLACE) })
					r.Changes(name+"/f", "replaced link", func() { r.Rename(name+"/p", name+"/g", 0) })
					r.Changes(name, "rmdir while full", func() { r.Rmdir(name) })
					r.Changes(name, "move out of it", func() { r.Rename(name+"/f", "moved", 0) })
					r.Changes("moved", "move back", func() { r.Rename("moved", name+"/f", 0) })
					continue
				}
				from := r.Open("top", unix.O_RDONLY, 0)
				copied := func(n int) func() {
					return func() {
						_, err := unix.CopyFileRange(from, nil, fd, nil, n, 0)
						r.Err("copy_file_range", err)
					}
				}
				r.Changes(name, "copy_file_range", copied(1))
				r.Changes(name, "copy_file_range of nothing", copied(0))
				r.Changes(name, "hole", func() { r.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 10) })
				r.Changes(name, "zeroes", func() { r.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 0, 10) })
				r.Changes(name, "blocks beyond the end", func() { r.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 1<<20, 4096) })
				r.Changes(name, "write beyond what may be", func() { r.Pwrite(fd, 1<<62, "x") })
				r.Changes(name, "fifo instead", func() { r.Mknod("fifo2", unix.S_IFIFO|0o600, 0, 0); r.Rename("fifo2", name+"-none", 0) })
				r.Changes("top", "sendfile from it", func() {
					off := int64(0)
					_, err := unix.Sendfile(fd, from, &off, 1)
					r.Err("sendfile", err)
				})
			}
		}),
		on("mtime_stays_over_copy_up", func(r *Run) {
			r.Changes("lowdir", "chmod of a child", func() { r.Chmod("lowdir/a", 0o600) })
			r.Changes("lowdir/b", "write to a child", func() { r.Append("lowdir/b/c", "x") })
			r.Changes("rich", "chmod", func() { r.Chmod("rich", 0o600) })
			r.Stat("lowdir")
			r.Remount()
			r.Stat("lowdir")
			r.Stat("rich")
		}),
	}
}

// atime returns the access time of the name itself.
func (r *Run) atime(name string) string {
	var st unix.Stat_t
	unix.Lstat(r.Path(name), &st)
	return fmt.Sprintf("%d.%d", st.Atim.Sec, st.Atim.Nsec)
}

// handleCases open files by their handles, for which kernel overlayfs wants nfs_export.
func handleCases() []Case {
	body := func(r *Run) {
		mnt := r.Open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		handles := map[string]unix.FileHandle{}
		names := []string{"low", "upper", "merged", "lowdir", "lowdir/b/c", "h1", "link"}
		for _, name := range names {
			h, _, err := unix.NameToHandleAt(mnt, name, 0)
			r.Err("name_to_handle_at "+name, err)
			handles[name] = h
		}
		open := func(when string) {
			for _, name := range names {
				fd, err := unix.OpenByHandleAt(mnt, handles[name], unix.O_RDONLY|unix.O_NONBLOCK)
				if r.Err("open_by_handle_at "+name+" "+when, err) {
					var st unix.Stat_t
					unix.Fstat(fd, &st)
					r.Note("type", st.Mode&unix.S_IFMT, st.Size)
					unix.Close(fd)
				}
			}
		}
		open("at once")
		r.DropCaches()
		open("after drop_caches")
		r.Chmod("low", 0o600)
		r.Rename("upper", "merged/upper2", 0)
		r.DropCaches()
		open("after changes")
	}
	c := withOptions(on("handles", body), "index=on", "nfs_export=on", "redirect_dir=on")
	c.NotesOn = map[string]string{"fuse": "handles need no nfs_export there: no directory is copied up and no file indexed for one"}
	return []Case{c}
}
