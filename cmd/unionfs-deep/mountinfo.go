package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountEntry is one line of mountinfo, see proc_pid_mountinfo(5).
type mountEntry struct {
	id           uint64
	device       string // MAJOR:MINOR, which no other mounted file system of this kernel has
	point        string
	fsType       string
	source       string
	superOptions string
}

var errNotMountPoint = errors.New("nothing is mounted there")

// mountAt describes the uppermost mount at path. It asks no file system server, so that a dead one cannot hold it up.
func mountAt(path string) (mountEntry, error) {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &stat)
	switch {
	case err != nil:
		return mountEntry{}, &os.PathError{Op: "inspect", Path: path, Err: err}
	case stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0:
		return mountEntry{}, fmt.Errorf("inspect %q: %w", path, errNotMountPoint)
	}
	info, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mountEntry{}, err
	}
	defer info.Close()
	lines := bufio.NewScanner(info)
	lines.Buffer(nil, 1<<20) // an overlay's line names all its layers
	for lines.Scan() {
		if entry, ok := parseMountEntry(lines.Text()); ok && entry.id == stat.Mnt_id {
			return entry, nil
		}
	}
	return mountEntry{}, fmt.Errorf("inspect %q: find it in mountinfo: %w", path, errors.Join(errNotMountPoint, lines.Err()))
}

// parseMountEntry reads a line such as
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 - ext3 /dev/root rw,errors=continue
func parseMountEntry(line string) (mountEntry, bool) {
	before, after, ok := strings.Cut(line, " - ")
	mount, super := strings.Fields(before), strings.Fields(after)
	if !ok || len(mount) < 6 || len(super) < 3 {
		return mountEntry{}, false
	}
	id, err := strconv.ParseUint(mount[0], 10, 64)
	return mountEntry{id, mount[2], unescapeOctal(mount[4]), super[0], unescapeOctal(super[1]), unescapeOctal(super[2])}, err == nil
}

// unescapeOctal undoes the kernel's escapes of space, tab, newline and backslash, such as \040.
func unescapeOctal(s string) string {
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
