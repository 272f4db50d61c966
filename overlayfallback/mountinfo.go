package overlayfallback

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FSType is the file system type under which the FUSE route's mounts are listed.
const FSType = "fuse." + subtype

const subtype = "unionfs-deep"

// mountEntry is one line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mountEntry struct {
	id           int
	device       string // major:minor
	point        string
	fsType       string
	superOptions string
}

// isUnion tells whether it is a mount that one of the routes may have made.
func (m mountEntry) isUnion() bool { return m.fsType == "overlay" || m.fsType == FSType }

// minor gives the device's minor number, which is also the number of a FUSE connection.
func (m mountEntry) minor() string {
	_, minor, _ := strings.Cut(m.device, ":")
	return minor
}

// eachMount calls f for every mount that this process can see, until f returns false.
func eachMount(f func(mountEntry) bool) error {
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
func parseMount(line string) (mountEntry, bool) {
	place, system, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
	left, right := strings.Split(place, " "), strings.SplitN(system, " ", 3)
	if !ok || len(left) < 6 || len(right) < 3 {
		return mountEntry{}, false
	}
	id, err := strconv.Atoi(left[0])
	return mountEntry{id, left[2], unoctal(left[4]), unoctal(right[0]), right[2]}, err == nil
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
func mountByID(id int) (found mountEntry, ok bool) {
	eachMount(func(m mountEntry) bool {
		if m.id == id {
			found, ok = m, true
		}
		return !ok
	})
	return found, ok
}

// mountedAt finds the mount whose root folder a descriptor is. It asks nothing of the file system itself, so that it also
// works on a FUSE mount whose server has died.
func mountedAt(fd int) (mountEntry, bool) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return mountEntry{}, false
	}
	_, rest, _ := strings.Cut(string(info), "mnt_id:")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	id, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil {
		return mountEntry{}, false
	}
	m, found := mountByID(id)
	if path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); !found || err != nil || path != m.point {
		return mountEntry{}, false
	}
	return m, true
}

// overlayUsing finds the mount point of a kernel overlay that writes to one of the folders. It sees only this mount namespace,
// and only overlays whose folders were named by absolute paths.
func overlayUsing(upper, work folder) string {
	at := ""
	eachMount(func(m mountEntry) bool {
		if m.fsType == "overlay" && (usesFolder(m, "upperdir", upper.id) || usesFolder(m, "workdir", work.id)) {
			at = m.point
		}
		return at == ""
	})
	return at
}

func usesFolder(m mountEntry, option string, id folderID) bool {
	all, err := splitOptions(unoctal(m.superOptions))
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
