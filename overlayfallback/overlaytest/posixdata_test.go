package overlaytest

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// dataCases are about the content of files.
func dataCases() []Case {
	return []Case{
		on("seek_holes", func(r *Run) {
			for _, name := range []string{"sparse", "new"} {
				fd := r.Open(name, unix.O_RDWR|unix.O_CREAT, 0o644)
				if name == "new" {
					r.Pwrite(fd, 1<<20, "data")
					r.Err("fsync", unix.Fsync(fd))
				}
				r.seeks(fd)
				r.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 1<<20, 4096)
				r.seeks(fd)
			}
		}),
		on("seek_holes_written_directly", func(r *Run) {
			buffered := r.Open("new", unix.O_RDWR|unix.O_CREAT, 0o644)
			r.Pwrite(buffered, 4096, strings.Repeat("b", 8192))
			r.Fallocate(buffered, unix.FALLOC_FL_ZERO_RANGE, 100, 20_000)
			direct := r.Open("new", unix.O_RDWR|unix.O_DIRECT, 0)
			r.Pwrite(direct, 0, strings.Repeat("d", 4096))
			at, err := unix.Seek(direct, 0, unix.SEEK_HOLE)
			r.Err("seek", err)
			r.Note("hole at", at)
		}),
		withOptions(on("sync_unlinked", both(func(r *Run, name string) {
			fd := r.Open(name, unix.O_RDONLY, 0)
			r.Err("futimens", futimens(fd, [2]unix.Timespec{{Sec: 5}, {Sec: 6}}))
			r.Unlink(name)
			r.Err("fdatasync", unix.Fdatasync(fd))
			r.Err("fsync", unix.Fsync(fd))
			r.Fstat(fd)
		})), "metacopy=on", "redirect_dir=on"),
		on("fallocate_modes", both(func(r *Run, name string) {
			fd := r.Open(name, unix.O_RDWR, 0)
			r.Pwrite(fd, 0, strings.Repeat("0123456789abcdef", 2048))
			for _, mode := range []uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE,
				unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_UNSHARE_RANGE, 0x100} {
				r.Fallocate(fd, mode, 4096, 8192)
				r.Fallocate(fd, mode, 40_000, 100)
				r.Fallocate(fd, mode, -1, 10)
				r.Fallocate(fd, mode, 0, 0)
				r.Fstat(fd)
			}
			r.ReadFile(name)
			r.Fallocate(r.Open(name, unix.O_RDONLY, 0), 0, 0, 10)
			r.Fallocate(r.Open("lowdir", unix.O_RDONLY, 0), 0, 0, 10)
		})),
		on("fallocate_shift", func(r *Run) {
			fd := r.Open("upper", unix.O_RDWR, 0)
			r.Pwrite(fd, 0, strings.Repeat("x", 16384))
			r.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096)
			r.Fallocate(fd, unix.FALLOC_FL_INSERT_RANGE, 0, 4096)
			r.Fstat(fd)
			r.Err("restore", unix.Ftruncate(fd, 16384))
			r.Pwrite(fd, 0, strings.Repeat("x", 16384))
		}),
		on("buffered_direct_and_mapped", both(func(r *Run, name string) {
			buffered := r.Open(name, unix.O_RDWR, 0)
			direct := r.Open(name, unix.O_RDWR|unix.O_DIRECT, 0)
			if buffered < 0 || direct < 0 {
				return
			}
			r.Pwrite(buffered, 0, strings.Repeat("b", 8192))
			r.Pread(direct, 0, 4096)
			r.Pwrite(direct, 4096, strings.Repeat("d", 4096))
			r.Pread(buffered, 4000, 200)
			r.mapWrite(buffered, "mapped")
			r.Pread(direct, 0, 4096)
			r.Pread(buffered, 0, 20)
			r.Pwrite(direct, 8192, strings.Repeat("e", 4096))
			r.Fstat(buffered)
			r.Pread(buffered, 12_000, 1000)
			r.ReadFile(name)
			for _, at := range [][2]int64{{100, 4096}, {4096, 100}, {511, 512}, {512, 512}} {
				r.Pwrite(direct, at[0], strings.Repeat("f", int(at[1])))
				r.Pread(direct, at[0], int(at[1]))
			}
			r.ReadFile(name)
		})),
		on("map_sees_writes", both(func(r *Run, name string) {
			fd := r.Open(name, unix.O_RDWR, 0)
			m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
			r.Err("mmap", err)
			r.Err("fault in", unix.Madvise(m, unix.MADV_POPULATE_READ))
			r.Note("before", text(m[:20]))
			r.Pwrite(fd, 0, "written later")
			r.Note("after", text(m[:20]))
			r.Close(fd)
			r.Append(name, "tail")
			r.Note("append", text(m[90:120]))
			unix.Munmap(m)
		})),
		on("write_then_grow", both(func(r *Run, name string) {
			fd := r.Open(name, unix.O_RDWR, 0)
			r.Pread(fd, 0, 4096)
			r.Pwrite(fd, 50, "in the middle")
			r.Pread(fd, 0, 200)
			r.Err("shrink", unix.Ftruncate(fd, 30))
			r.Err("grow", unix.Ftruncate(fd, 5000))
			r.Pread(fd, 0, 5000)
			r.Pwrite(fd, 4999, "z")
			r.Pread(fd, 4000, 4000)
			r.Truncate(name, 1<<33)
			r.Pread(fd, 1<<33-10, 100)
			r.Truncate(name, -1)
			r.Truncate("lowdir", 0)
			r.Truncate(name, 100)
		})),
		on("append_by_several", both(func(r *Run, name string) {
			a, b := r.Open(name, unix.O_RDWR|unix.O_APPEND, 0), r.Open(name, unix.O_WRONLY|unix.O_APPEND, 0)
			plain := r.Open(name, unix.O_RDWR, 0)
			for i := range 5 {
				unix.Write(a, []byte(fmt.Sprint("a", i)))
				unix.Write(b, []byte(fmt.Sprint("b", i)))
				r.Pwrite(plain, 0, fmt.Sprint("p", i))
			}
			r.Pwrite(a, 0, "pwrite on O_APPEND")
			at, err := unix.Seek(a, 0, unix.SEEK_CUR)
			r.Err("position", err)
			r.Note("at", at)
			r.ReadFile(name)
		})),
		on("append_at_once", func(r *Run) {
			var group sync.WaitGroup
			var errs [4]error
			for i := range errs {
				group.Go(func() {
					fd, err := openUninterrupted(r.Path("low"), unix.O_WRONLY|unix.O_APPEND)
					for range 100 {
						if err == nil {
							_, err = unix.Write(fd, []byte(fmt.Sprintf("line of %d\n", i)))
						}
					}
					unix.Close(fd)
					errs[i] = err
				})
			}
			group.Wait()
			r.Err("append", errors.Join(errs[:]...))
			r.Stat("low")
			r.Truncate("low", 0)
		}),
		{Name: "copy_file_range", Set: writeSet(), NotOn: map[string]string{"stacked": "a lower file lies on another overlay: EXDEV"}, Run: func(r *Run) {
			for _, from := range []string{"low", "upper", "sparse"} {
				for _, to := range []string{"top", "merged/upper"} {
					a, b := r.Open(from, unix.O_RDONLY, 0), r.Open(to, unix.O_RDWR, 0)
					off, out := int64(10), int64(3)
					n, err := unix.CopyFileRange(a, &off, b, &out, 1<<21, 0)
					r.Err("copy "+from+" to "+to, err)
					r.Note("copied", n, off, out)
					_, err = unix.CopyFileRange(a, nil, b, nil, 50, 1)
					r.Err("bad flag", err)
					n, err = unix.CopyFileRange(b, &off, a, &out, 50, 0)
					r.Err("into read-only", err)
					r.Note("copied", n)
				}
			}
			fd := r.Open("top", unix.O_RDWR, 0)
			from, to := int64(0), int64(20)
			_, err := unix.CopyFileRange(fd, &from, fd, &to, 100, 0)
			r.Err("overlapping", err)
			r.ReadFile("top")
		}},
		on("ioctl_flags", func(r *Run) {
			for _, name := range []string{"low", "upper", "lowdir"} {
				fd := r.Open(name, unix.O_RDONLY, 0)
				flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
				r.Err("FS_IOC_GETFLAGS "+name, err)
				r.Note("flags", flags)
				for _, add := range []uint32{flagNoDump, flagAppend, flagImmutable, 0} {
					r.Err(fmt.Sprintf("FS_IOC_SETFLAGS %#x %s", add, name), unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|add)))
					again, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
					r.Err("again", err)
					r.Note("flags", again)
					if name != "lowdir" {
						r.Open(name, unix.O_WRONLY, 0)
						r.Open(name, unix.O_WRONLY|unix.O_APPEND, 0)
					}
					r.Chmod(name, 0o640)
					r.Unlink(name + "x")
				}
				_, err = unix.IoctlGetInt(fd, 0xdead)
				r.Err("unknown ioctl", err)
				_, err = unix.IoctlGetInt(fd, ioctlGetVersion)
				r.Note("FS_IOC_GETVERSION", Errno(err) == "ok" || Errno(err) == "ENOTTY")
			}
		}),
		on("directories_are_no_files", func(r *Run) {
			for _, name := range []string{"lowdir", "merged", "updir"} {
				fd := r.Open(name, unix.O_RDONLY, 0)
				r.Pread(fd, 0, 10)
				r.Pwrite(fd, 0, "x")
				r.Err("ftruncate", unix.Ftruncate(fd, 0))
				r.Err("fsync", unix.Fsync(fd))
				r.Err("fdatasync", unix.Fdatasync(fd))
				r.Err("fchmod", unix.Fchmod(fd, 0o711))
				r.Open(name, unix.O_RDWR, 0)
				r.Open(name, unix.O_CREAT|unix.O_RDONLY, 0o644)
			}
		}),
		on("busy_text", func(r *Run) {
			r.WriteFile("run", "#!/bin/sh\necho ran\n")
			r.Chmod("run", 0o755)
			out, err := exec.Command(r.Path("run")).Output()
			r.Note("script", string(out), err)
			exec.Command("cp", "/bin/sleep", r.Path("sleep")).Run()
			cmd := exec.Command(r.Path("sleep"), "5")
			r.Note("start", cmd.Start())
			r.Open("sleep", unix.O_WRONLY, 0)
			r.Unlink("sleep")
			cmd.Process.Kill()
			cmd.Wait()
		}),
		on("listing_while_changing", listingWhileChanging),
	}
}

// Flags of FS_IOC_SETFLAGS and ioctls (linux/fs.h), one of which few file systems know.
const (
	flagImmutable   = 0x10
	flagAppend      = 0x20
	flagNoDump      = 0x40
	ioctlGetVersion = 0x80087601
	ioctlBlockSize  = 2          // FIGETBSZ
	ioctlUUID       = 0x80111500 // FS_IOC_GETFSUUID
)

// seeks notes where data and holes are.
func (r *Run) seeks(fd int) {
	for _, off := range []int64{0, 4096, 1 << 20, 1<<20 + 4096, 1 << 30, -1} {
		for _, whence := range []int{unix.SEEK_DATA, unix.SEEK_HOLE} {
			at, err := unix.Seek(fd, off, whence)
			r.Err(fmt.Sprint("seek ", whence, " from ", off), err)
			r.Note("at", at)
		}
	}
}

// listingWhileChanging lists a directory again and again while others change it: names that are there all the time must be in
// every listing, once.
func listingWhileChanging(r *Run) {
	const fixed, listings = 300, 30
	for i := range fixed {
		unix.Mknod(r.Path(fmt.Sprintf("merged/fixed-%d", i)), unix.S_IFREG|0o644, 0)
	}
	stop := make(chan struct{})
	var group sync.WaitGroup
	for w := range 3 {
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := r.Path(fmt.Sprintf("merged/moving-%d-%d", w, i%50))
				unix.Mknod(name, unix.S_IFREG|0o644, 0)
				unix.Rename(name, name+"-x")
				unix.Unlink(name + "-x")
			}
		})
	}
	short, double := 0, 0
	for range listings {
		fd, err := unix.Open(r.Path("merged"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			r.Err("open", err)
			break
		}
		entries, _ := ReadDir(fd)
		unix.Close(fd)
		seen := map[string]int{}
		for _, e := range entries {
			if strings.HasPrefix(e.Name, "fixed-") {
				seen[e.Name]++
				if seen[e.Name] > 1 {
					double++
				}
			}
		}
		if len(seen) != fixed {
			short++
		}
	}
	close(stop)
	group.Wait()
	r.Note("listings that missed a name", short)
	r.Note("names listed twice", double)
	r.List("merged")
	for i := range fixed {
		unix.Unlink(r.Path(fmt.Sprintf("merged/fixed-%d", i)))
	}
}

// xattrCases are about xattrs of each namespace.
func xattrCases() []Case {
	names := []string{"user.x", "trusted.x", "security.x", "system.x", "other.x", "trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque",
		"trusted.overlay.overlay.opaque", "trusted.overlay.", "user.", "security.capability", strings.Repeat("user.", 51), strings.Repeat("user.", 60)}
	each := func(r *Run) {
		for _, name := range []string{"low", "upper", "lowdir", "link", "fifo"} {
			for _, attr := range names {
				r.SetXattr(name, attr, capability, 0)
				r.GetXattr(name, attr)
				r.SetXattr(name, attr, "again", unix.XATTR_CREATE)
				r.SetXattr(name, attr, "again", unix.XATTR_REPLACE)
				r.RemoveXattr(name, attr)
				r.RemoveXattr(name, attr)
				r.SetXattr(name, attr, "last", unix.XATTR_REPLACE)
			}
			r.ListXattr(name)
		}
	}
	plain := on("xattr_names", each)
	userxattr := withOptions(plain, "userxattr")
	asUser := on("xattr_names_as_a_user", func(r *Run) {
		r.Chown("low", 1000, 1000)
		r.Chown("upper", 1000, 1000)
		r.SetXattr("upper", "trusted.hidden", "1", 0)
		As(user, func() { each(r) })
	})
	sizes := on("xattr_sizes", both(func(r *Run, name string) {
		for _, n := range []int{0, 1, 255, 2000, 3900, 65536, 65537} {
			r.SetXattr(name, "user.size", strings.Repeat("v", n), 0)
			r.GetXattr(name, "user.size")
		}
		n, err := unix.Lgetxattr(r.Path(name), "user.size", nil)
		r.Err("size", err)
		r.Note("is", n)
		_, err = unix.Lgetxattr(r.Path(name), "user.size", make([]byte, 1))
		r.Err("into too little", err)
	}))
	through := on("xattr_through_symlink", func(r *Run) {
		r.Err("setxattr", unix.Setxattr(r.Path("link"), "user.via", []byte("v"), 0))
		r.GetXattr("low", "user.via")
		r.Symlink(r.Path("merged/low"), "absolute")
		r.Err("setxattr", unix.Setxattr(r.Path("absolute"), "user.via", []byte("v"), 0))
		r.Unlink("absolute")
	})
	return []Case{plain, userxattr, asUser, sizes, through}
}

// lockCases are about locks between openers.
func lockCases() []Case {
	return []Case{
		on("flock", both(func(r *Run, name string) {
			a, b := r.Open(name, unix.O_RDONLY, 0), r.Open(name, unix.O_RDWR, 0)
			r.Err("a shared", unix.Flock(a, unix.LOCK_SH|unix.LOCK_NB))
			r.Err("b shared", unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB))
			r.Err("b exclusive", unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
			r.Err("a unlock", unix.Flock(a, unix.LOCK_UN))
			r.Err("b exclusive", unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
			r.Err("a shared", unix.Flock(a, unix.LOCK_SH|unix.LOCK_NB))
			r.Close(b)
			r.Err("a shared", unix.Flock(a, unix.LOCK_SH|unix.LOCK_NB))
		})),
		on("record_locks", both(func(r *Run, name string) {
			a, b := r.Open(name, unix.O_RDWR, 0), r.Open(name, unix.O_RDWR, 0)
			lock := func(fd int, kind int16, from, size int64) {
				l := unix.Flock_t{Type: kind, Start: from, Len: size}
				r.Err(fmt.Sprint("lock ", kind, from, size), unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &l))
			}
			lock(a, unix.F_WRLCK, 0, 10)
			lock(b, unix.F_RDLCK, 5, 10)
			lock(b, unix.F_WRLCK, 10, 10)
			lock(a, unix.F_UNLCK, 0, 5)
			lock(b, unix.F_RDLCK, 0, 5)
			l := unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 100}
			r.Err("get", unix.FcntlFlock(uintptr(a), unix.F_OFD_GETLK, &l))
			r.Note("held", l.Type, l.Start, l.Len)
		})),
		on("lock_across_copy_up", func(r *Run) {
			a := r.Open("low", unix.O_RDONLY, 0)
			r.Err("flock", unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
			b := r.Open("low", unix.O_RDWR, 0)
			r.Err("flock after copy-up", unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
		}),
	}
}

// openUninterrupted opens a file that another thread may be copying up, for which kernel overlayfs waits in vain where a signal
// comes, as Go's own do (ovl_inode_lock_interruptible).
func openUninterrupted(name string, flags int) (fd int, err error) {
	for fd, err = -1, unix.EINTR; err == unix.EINTR; {
		fd, err = unix.Open(name, flags, 0)
	}
	return fd, err
}
