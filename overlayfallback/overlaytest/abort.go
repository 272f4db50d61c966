package overlaytest

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const connections = "/sys/fs/fuse/connections"

// mountControl mounts FUSE's control file system where it is missing.
var mountControl = sync.OnceFunc(func() {
	if entries, err := os.ReadDir(connections); err == nil && len(entries) == 0 {
		unix.Mount("fusectl", connections, "fusectl", 0, "")
	}
})

// abortConnection aborts the FUSE connection of the mount at p, found without touching the mount; nothing if there is none.
func abortConnection(p string) {
	mountControl()
	if minor := fuseMinor(p); minor != "" {
		os.WriteFile(fmt.Sprintf("%s/%s/abort", connections, minor), []byte("1"), 0)
	}
}

// fuseMinor returns the minor device number of the FUSE mount at p, which names its connection; empty if there is none.
func fuseMinor(p string) string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	minor := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if len(fields) > 4 && fields[4] == p && strings.HasPrefix(after, "fuse") {
			_, minor, _ = strings.Cut(fields[2], ":")
		}
	}
	return minor
}
