package unionfs

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// credentials are the server's own, and how to put on a caller's.
//
// Who may do what is decided by the kernel before a request is sent (default_permissions). What is left to the server is
// that a new file belongs to the caller, and that set-id bits go when they must. A thread that serves requests is locked to
// its goroutine and shares no file system state with others, so that its file system user may be changed for one call.
type credentials struct {
	uid, gid uint32
	caps     [2]unix.CapUserData // of the server
}

// capHeader names the calling thread.
var capHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

func newCredentials() credentials {
	c := credentials{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	hdr := capHeader
	_ = unix.Capget(&hdr, &c.caps[0])
	return c
}

// initThread prepares an OS thread that will serve requests: file modes come from the caller's umask alone.
func (c *credentials) initThread() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare(CLONE_FS): %w", err)
	}
	unix.Umask(0)
	return nil
}

// as runs make as the caller's file system user and group, so that what it makes is the caller's: by the rules of the
// layer's file system for set-group-id directories, default ACLs and quota. The server's capabilities stay: what they would
// let through, the kernel has refused before (default_permissions, mode_strip_sgid).
func (c *credentials) as(caller *fuse.Caller, make func() error) error {
	if c.are(caller) {
		return make()
	}
	if c.uid != 0 {
		return unix.EPERM // the server may not act for others
	}
	setfsid(unix.SYS_SETFSGID, caller.Gid)
	setfsid(unix.SYS_SETFSUID, caller.Uid)
	defer func() { // also where make panics: the thread goes on serving
		setfsid(unix.SYS_SETFSUID, c.uid)
		setfsid(unix.SYS_SETFSGID, c.gid)
	}()
	caps := c.caps
	capset(&caps)
	return make()
}

// are reports whether they are the caller's.
func (c *credentials) are(caller *fuse.Caller) bool {
	return caller.Uid == c.uid && caller.Gid == c.gid
}

// setfsid changes the calling thread alone, where the wrappers of package syscall change all threads.
func setfsid(call uintptr, id uint32) { unix.RawSyscall(call, uintptr(id), 0, 0) }

func capset(data *[2]unix.CapUserData) {
	hdr := capHeader
	unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(data)), 0)
}

// inGroup reports whether a caller is of a group, by its file system group or a supplementary one.
func inGroup(caller *fuse.Caller, gid uint32) bool {
	return caller.Gid == gid || slices.Contains(supplementaryGroups(caller.Pid), gid)
}

// supplementaryGroups reads a process's groups. A process that is gone, or is not seen from here, has none.
func supplementaryGroups(pid uint32) []uint32 {
	file, err := os.Open("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return nil
	}
	defer file.Close()
	var groups []uint32
	for s := bufio.NewScanner(file); s.Scan(); {
		list, ok := strings.CutPrefix(s.Text(), "Groups:")
		if !ok {
			continue
		}
		for field := range strings.FieldsSeq(list) {
			if gid, err := strconv.ParseUint(field, 10, 32); err == nil {
				groups = append(groups, uint32(gid))
			}
		}
		break
	}
	return groups
}

// mayWriteTo reports whether a process has a file of an inode number open for writing. Of one that is not seen from here it is
// assumed.
func mayWriteTo(pid uint32, ino uint64) bool {
	dir := "/proc/" + strconv.FormatUint(uint64(pid), 10) + "/fdinfo/"
	descriptors, err := os.ReadDir(dir)
	if err != nil {
		return true
	}
	for _, d := range descriptors {
		info, err := os.ReadFile(dir + d.Name())
		if errors.Is(err, unix.EACCES) || descriptorField(info, "ino:", 10) == ino && descriptorField(info, "flags:", 8)&unix.O_ACCMODE != unix.O_RDONLY {
			return true
		}
	}
	return false
}

// descriptorField is a number of what the kernel tells of a descriptor (proc_pid_fdinfo(5)), 0 for none.
func descriptorField(info []byte, name string, base int) uint64 {
	for line := range strings.Lines(string(info)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(value), base, 64)
			return n
		}
	}
	return 0
}

// withoutSetID is a file's mode without its set-user-id bit, and without its set-group-id bit where its group may execute it
// or the caller is neither of its group nor root (setattr_should_drop_suidgid). Root is the one of a user namespace: of another
// the kernel does not ask for bits to be dropped.
func withoutSetID(st *unix.Statx_t, caller *fuse.Caller) uint32 {
	mode := uint32(st.Mode) &^ unix.S_ISUID
	if mode&unix.S_ISGID != 0 && (mode&unix.S_IXGRP != 0 || caller.Uid != 0 && !inGroup(caller, st.Gid)) {
		mode &^= unix.S_ISGID
	}
	return mode
}

// killSuidgid drops the set-id bits that withoutSetID leaves out. It reports whether there was anything to drop.
func killSuidgid(p place, caller *fuse.Caller) (bool, error) {
	var st unix.Statx_t
	if err := layers.Stat(p.File, p.name, &st); err != nil {
		return false, err
	}
	mode := withoutSetID(&st, caller)
	if mode == uint32(st.Mode) {
		return false, nil
	}
	return true, chmod(p, mode&07777)
}

// dropForeignSgid drops a set-group-id bit without group execution where the caller is not of the file's group.
func dropForeignSgid(p place, caller *fuse.Caller) error {
	var st unix.Statx_t
	if err := layers.Stat(p.File, p.name, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_ISGID == 0 || st.Mode&unix.S_IXGRP != 0 || inGroup(caller, st.Gid) {
		return nil
	}
	return chmod(p, uint32(st.Mode)&07777&^unix.S_ISGID)
}

// ownerCheck tells files whose owner has no number in our user namespace: they show the overflow numbers.
type ownerCheck struct {
	partial  bool // not every number is mapped
	uid, gid uint32
}

func newOwnerCheck() ownerCheck {
	c := ownerCheck{uid: overflowID("uid"), gid: overflowID("gid")}
	m, err := os.ReadFile("/proc/self/uid_map")
	c.partial = err == nil && !slices.Equal(strings.Fields(string(m)), []string{"0", "0", "4294967295"})
	return c
}

func overflowID(kind string) uint32 {
	b, err := os.ReadFile("/proc/sys/kernel/overflow" + kind)
	id, perr := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil || perr != nil {
		return 65534
	}
	return uint32(id)
}

// check refuses to copy up a file whose owner is not mapped: the copy would belong to somebody else (CVE-2023-0386).
// Whether the overflow number is really the owner's is found out by an open that only an owner, or root over a mapped owner,
// may do.
func (c ownerCheck) check(p place, st *unix.Statx_t) error {
	if !c.partial || st.Uid != c.uid && st.Gid != c.gid {
		return nil
	}
	fd, err := unix.Openat(p.FD, dotIfEmpty(p.name), unix.O_RDONLY|unix.O_NOATIME|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
		return nil
	}
	return unix.EOVERFLOW
}

func dotIfEmpty(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// procName is a path by which calls that take no descriptor reach a place.
func procName(p place) string {
	path := "/proc/self/fd/" + strconv.Itoa(p.FD)
	if p.name != "" {
		path += "/" + p.name
	}
	return path
}
