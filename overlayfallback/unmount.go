package overlayfallback

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Unmount unmounts the union on target, whichever route and process made it. On the FUSE route it returns when the server has
// written everything and let go, a daemon when it has ended, or when ctx ends. As an ordinary user it goes through fusermount3.
// If files in the mount are in use it fails with EBUSY and the mount goes on. The errors are *Error.
func Unmount(ctx context.Context, target string) error {
	m, err := unionAt(target)
	if err != nil {
		return unmountError(target, err)
	}
	var holders []holder
	if m.Type == FSType {
		holders = holdersOf(m.minor())
	}
	defer func() {
		for _, h := range holders {
			unix.Close(h.handle)
		}
	}()
	if err := m.unmount(ctx, 0); err != nil {
		return unmountError(target, err)
	}
	for _, h := range holders {
		if err := h.await(ctx); err != nil {
			return &Error{Op: "unmount", Target: target, Err: err, Hint: "it is unmounted; what the server still has to write is being written"}
		}
	}
	return nil
}

var (
	errNotMounted = errors.New("nothing is mounted there")
	errNotUnion   = errors.New("what is mounted there is not a union")
)

// unionAt finds the union that is mounted on a folder.
func unionAt(target string) (MountInfo, error) {
	m, err := mountOn(target)
	if err == nil && !m.isUnion() {
		err = fmt.Errorf("%w but %s", errNotUnion, m.Type)
	}
	return m, err
}

// unmount takes a mount from its place, with flags of umount2(2), through fusermount3 where that takes its rights.
func (m MountInfo) unmount(ctx context.Context, flags int) error {
	err := unix.Unmount(m.Point, unix.UMOUNT_NOFOLLOW|flags)
	if errors.Is(err, unix.EPERM) && m.Type == FSType {
		return fuserUnmount(ctx, m.Point, flags)
	}
	return err
}

func unmountError(target string, err error) *Error {
	return &Error{Op: "unmount", Target: target, Err: err, Hint: unmountHint(err)}
}

func unmountHint(err error) string {
	switch {
	case errors.Is(err, unix.EBUSY):
		return "files in it are open, or a process has its working directory there: see fuser -m or lsof"
	case errors.Is(err, errNotUnion):
		return "use umount(8)"
	case errors.Is(err, errNotMounted):
		return "name the mount point itself"
	case errors.Is(err, unix.EPERM):
		return "only root, or who mounted it, may unmount it"
	}
	return ""
}

// Unmount does what the function Unmount does, for a mount of this process. Where others have unmounted it, it only waits for the
// server.
func (m *Mounted) Unmount(ctx context.Context) error {
	if m.entry.Point == "" {
		return &Error{Op: "unmount", Err: errors.New("the connection was mounted by someone else"), Hint: "have it unmounted there"}
	}
	if at, found := m.current(); found {
		if err := at.unmount(ctx, 0); err != nil {
			return unmountError(at.Point, err)
		}
	}
	if m.server == nil {
		return nil
	}
	select {
	case <-m.server.ended:
		return nil
	case <-ctx.Done():
		return &Error{Op: "unmount", Target: m.entry.Point, Err: fmt.Errorf("the server has not ended: %w", ctx.Err()),
			Hint: "it is unmounted; what the server still has to write is being written"}
	}
}

// Detach takes a mount of this process out of its folder, also one in use, which lives on for the files that are open. It does
// nothing where others have unmounted it. The errors are *Error.
func (m *Mounted) Detach(ctx context.Context) error {
	at, found := m.current()
	if !found {
		return nil
	}
	if err := at.unmount(ctx, unix.MNT_DETACH); err != nil {
		return unmountError(at.Point, err)
	}
	return nil
}

// Wait returns when the mount is gone, whoever unmounted it: nil, or what ended the FUSE server.
func (m *Mounted) Wait() error {
	if m.server == nil {
		return m.awaitGone()
	}
	<-m.server.ended
	if m.tidy != nil {
		m.tidy()
	}
	return m.server.err
}

// tidyUp takes away the mount of a server that has ended by itself, since nothing but errors would come from it.
func (m *Mounted) tidyUp() {
	<-m.server.ended
	if at, found := m.current(); found && isDead(at.Point) {
		err := m.Detach(context.Background())
		m.log.Error("the FUSE server has ended before it was unmounted", "target", at.Point, "error", m.server.err, "unmount", err)
	}
}

// isDead tells whether nobody serves what is mounted there. It keeps tidyUp from another union in the same place where the kernel
// cannot tell the two apart.
func isDead(point string) bool {
	var st unix.Statfs_t
	return errors.Is(unix.Statfs(point, &st), unix.ENOTCONN)
}

// awaitGone returns when the mount is no longer in this mount namespace. The kernel says so by an exceptional condition on the
// open list of mounts (proc(5), poll on mountinfo).
func (m *Mounted) awaitGone() error {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		if _, found := m.current(); !found {
			return nil
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// current finds the mount where it is now. A number out of the list of mounts alone does not do, since the kernel gives it to the
// next mount.
func (m *Mounted) current() (MountInfo, bool) {
	at, found := mountByID(m.entry.ID)
	switch {
	case !found:
		return at, false
	case m.unique == 0:
		return at, at.Point == m.entry.Point && at.Device == m.entry.Device
	}
	return at, mountExists(m.unique) // still so, after the list was read: then the number in the list was its own
}
