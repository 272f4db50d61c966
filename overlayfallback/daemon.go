package overlayfallback

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// holder is a process that serves a FUSE connection.
type holder struct {
	pid        int
	handle     int // pidfd_open(2): it cannot come to mean another process
	connection string
}

// holdersOf finds the processes that have a FUSE connection open. Kernels before 6.16 do not say which connection a
// descriptor is for; then there are none.
func holdersOf(connection string) []holder {
	var all []holder
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !holds(pid, connection) {
			continue
		}
		if handle, err := unix.PidfdOpen(pid, 0); err == nil {
			all = append(all, holder{pid, handle, connection})
		}
	}
	return all
}

// holds tells whether a process has a descriptor of a connection.
func holds(pid int, connection string) bool {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return slices.ContainsFunc(fds, func(fd os.DirEntry) bool { return connectionOf(pid, fd.Name()) == connection })
}

// connectionOf gives the number of the FUSE connection that a descriptor of a process is for, and "" for any other descriptor and
// where the kernel, before 6.16, does not say.
func connectionOf(pid int, fd string) string {
	if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd)); to != fuseDevice {
		return ""
	}
	info, _ := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd))
	for line := range strings.Lines(string(info)) {
		if key, value, _ := strings.Cut(line, ":"); key == "fuse_connection" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// await returns when the process has let go of the connection, which our server does last of all. If it is a daemon, running
// the same program as we do, it has nothing else to live for, and await returns when it has ended.
func (h holder) await(ctx context.Context) error {
	daemon := h.pid != os.Getpid() && sameProgram(h.pid)
	for !h.ended() && (daemon || holds(h.pid, h.connection)) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server, process %d, has not ended: %w", h.pid, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// ended tells whether the process is gone.
func (h holder) ended() bool {
	poll := []unix.PollFd{{Fd: int32(h.handle), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}

// sameProgram tells whether a process runs the program that we do.
func sameProgram(pid int) bool {
	ours, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && os.SameFile(ours, theirs)
}
