package overlayfallback

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FSType is the file system type under which the FUSE route's mounts are listed.
const FSType = "fuse." + subtype

const subtype = "unionfs-deep"

// MountInfo is one mount as the kernel lists it: a line of /proc/self/mountinfo (proc_pid_mountinfo(5)), its escapes undone.
type MountInfo struct {
	ID           int    // the number of the mount; a later mount may be given it again
	Device       string // MAJOR:MINOR, which no other mounted file system of this kernel has
	Point        string // the mount point, as this process reaches it
	Options      string // the options of this mount, such as rw,nosuid
	Type         string // the file system type, such as overlay or FSType
	Source       string // what was mounted
	SuperOptions string // the options of the file system itself, as the kernel writes them
}

// MountAt describes the uppermost mount on path, which is its mount point itself and no folder in it. Nothing is asked of the
// file system there, so that a dead FUSE server cannot hold it up. The errors are *Error.
func MountAt(path string) (MountInfo, error) {
	m, err := mountOn(path)
	if err != nil {
		return m, &Error{Op: "look for a mount", Target: path, Err: err, Hint: unmountHint(err)}
	}
	return m, nil
}

func mountOn(path string) (MountInfo, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return MountInfo{}, err
	}
	defer unix.Close(fd)
	m, found := mountedAt(fd)
	if !found {
		return m, errNotMounted
	}
	return m, nil
}

// isUnion tells whether it is a mount that one of the routes may have made.
func (m MountInfo) isUnion() bool { return m.Type == "overlay" || m.Type == FSType }

// minor gives the device's minor number, which is also the number of a FUSE connection.
func (m MountInfo) minor() string {
	_, minor, _ := strings.Cut(m.Device, ":")
	return minor
}

// eachMount calls f for every mount that this process can see, until f returns false.
func eachMount(f func(MountInfo) bool) error {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewReader(file) // not a Scanner: a line may hold more than 64 KiB of layers
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil
		}
		if m, ok := parseMount(line); ok && !f(m) {
			return nil
		}
	}
}

// parseMount reads one line: 36 35 98:0 /root /point options [optional fields] - type source super-options.
func parseMount(line string) (MountInfo, bool) {
	place, system, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
	left, right := strings.Split(place, " "), strings.SplitN(system, " ", 3)
	if !ok || len(left) < 6 || len(right) < 3 {
		return MountInfo{}, false
	}
	id, err := strconv.Atoi(left[0])
	return MountInfo{id, left[2], unoctal(left[4]), left[5], unoctal(right[0]), unoctal(right[1]), unoctal(right[2])}, err == nil
}

// unoctal undoes the kernel's way of writing spaces and their like, as `\040`.
func unoctal(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountByID finds a mount by its number.
func mountByID(id int) (found MountInfo, ok bool) {
	eachMount(func(m MountInfo) bool {
		if m.ID == id {
			found, ok = m, true
		}
		return !ok
	})
	return found, ok
}

// mountOfConnection finds a mount of a FUSE connection that a path of this process leads to.
func mountOfConnection(connection string) (found MountInfo, ok bool) {
	eachMount(func(m MountInfo) bool {
		if m.Device == "0:"+connection {
			at, err := mountOn(m.Point) // another mount may lie on top
			found, ok = at, err == nil && at.ID == m.ID
		}
		return !ok
	})
	return found, ok
}

// uniqueNumber gives the number of the uppermost mount on a path that no other mount is given (statx(2), STATX_MNT_ID_UNIQUE,
// Linux 6.8), and 0 where there is none or mountExists would not know it. Nothing is asked of the file system.
func uniqueNumber(path string) uint64 {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID_UNIQUE, &st)
	if err != nil || st.Mask&unix.STATX_MNT_ID_UNIQUE == 0 || !mountExists(st.Mnt_id) {
		return 0
	}
	return st.Mnt_id
}

// mountExists tells whether there is a mount of that unique number in this mount namespace (statmount(2), Linux 6.8).
func mountExists(unique uint64) bool {
	request := struct { // struct mnt_id_req of include/uapi/linux/mount.h, in its first version
		size, _   uint32
		id, param uint64
	}{size: 24, id: unique}
	var answer [512]byte // struct statmount without any of its strings
	_, _, errno := unix.Syscall6(unix.SYS_STATMOUNT, uintptr(unsafe.Pointer(&request)), uintptr(unsafe.Pointer(&answer)),
		unsafe.Sizeof(answer), 0, 0, 0)
	return errno == 0
}

// mountedAt finds the mount whose root folder a descriptor is. It asks nothing of the file system itself, so that it also
// works on a FUSE mount whose server has died.
func mountedAt(fd int) (MountInfo, bool) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return MountInfo{}, false
	}
	_, rest, _ := strings.Cut(string(info), "mnt_id:")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	id, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil {
		return MountInfo{}, false
	}
	m, found := mountByID(id)
	if path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); !found || err != nil || path != m.Point {
		return MountInfo{}, false
	}
	return m, true
}

// overlayUsing finds the mount point of a kernel overlay that writes to one of the folders. It sees only this mount namespace,
// and only overlays whose folders were named by absolute paths.
func overlayUsing(upper, work folder) string {
	at := ""
	eachMount(func(m MountInfo) bool {
		if m.Type == "overlay" && (usesFolder(m, "upperdir", upper.id) || usesFolder(m, "workdir", work.id)) {
			at = m.Point
		}
		return at == ""
	})
	return at
}

func usesFolder(m MountInfo, option string, id folderID) bool {
	all, err := splitOptions(m.SuperOptions)
	if err != nil {
		return false
	}
	for _, o := range all {
		path, err := unescape(o.value)
		if o.name != option || err != nil || !strings.HasPrefix(path, "/") {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && (folderID{st.Dev, st.Ino}) == id {
			return true
		}
	}
	return false
}
