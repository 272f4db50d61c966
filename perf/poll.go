package perf

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// pollName is the name in the root directory that go-fuse's ProtocolServer itself answers for, to be polled.
const pollName = ".go-fuse-epoll-hack"

// SettlePoll makes the kernel ask this connection once whether files can be polled, so that it learns that they cannot
// and never asks again. mountPoint is a path of the mounted root, and Ready must have been closed.
//
// Only a process that uses the mount which it serves needs this, and before its first os.Open there: Go's runtime then
// calls epoll_ctl without leaving its processor to others, the kernel sends POLL and waits, and where all processors are
// in that state (GOMAXPROCS=1, or a garbage collection that stops the world) nobody is left to answer. poll(2), used
// here, gives its processor up.
func (c *Conn) SettlePoll(mountPoint string) error {
	name := filepath.Join(mountPoint, pollName)
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != nil {
		return fmt.Errorf("poll %s: %w", name, err)
	}
	return nil
}
