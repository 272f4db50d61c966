package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// scratch is the directory in the root of the union that works make what they make in.
const scratch = "bench-scratch"

// Mount is a subject's tree, ready to be used.
type Mount struct {
	Root   string  // the union's root
	Daemon *Daemon // the process that serves it; nil: the kernel does

	target   string // to be unmounted at the end; empty: nothing is mounted
	made     string // to be removed at the end; empty: goes with the upper directory
	requests func(ctx context.Context) (int64, error)
}

// Requests returns how many requests the daemon has served so far by its own count; false if it keeps none that can be read.
func (m *Mount) Requests(ctx context.Context) (int64, bool) {
	if m.requests == nil {
		return 0, false
	}
	n, err := m.requests(ctx)
	return n, err == nil
}

// Close unmounts, waits for the daemon to end and removes what works made in a plain directory.
func (m *Mount) Close() error {
	var errs []error
	if m.target != "" {
		errs = append(errs, unmount(m.target))
	}
	if m.Daemon != nil {
		errs = append(errs, m.Daemon.wait())
	}
	if m.made != "" {
		errs = append(errs, os.RemoveAll(m.made))
	}
	return errors.Join(errs...)
}

// Abort makes a mount let go of whoever waits in it, so that it can be closed: the daemon is killed, which ends its FUSE
// connection.
func (m *Mount) Abort() {
	if m.Daemon != nil {
		m.Daemon.kill()
	}
}

// unmount unmounts target. A mount stays busy for a moment after its last file was closed, since FUSE releases files in
// the background; after busyFor it is detached, which is reported.
func unmount(target string) error {
	const busyFor = 3 * time.Second
	deadline := time.Now().Add(busyFor)
	for {
		err := unix.Unmount(target, 0)
		switch {
		case err == nil || err == unix.EINVAL:
			return nil
		case err != unix.EBUSY:
			_ = unix.Unmount(target, unix.MNT_DETACH)
			return fmt.Errorf("umount %s: %w", target, err)
		case time.Now().After(deadline):
			_ = unix.Unmount(target, unix.MNT_DETACH)
			return fmt.Errorf("umount %s: still busy after %v, detached", target, busyFor)
		}
		time.Sleep(time.Millisecond)
	}
}

// mounted says whether something else than its parent's file system is mounted on target. statfs asks a FUSE server,
// so a true also says that the server answers.
func mounted(target string, parent unix.Fsid) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return false, fmt.Errorf("statfs %s: %w", target, err)
	}
	return st.Type == unix.FUSE_SUPER_MAGIC || st.Type == unix.OVERLAYFS_SUPER_MAGIC || st.Fsid != parent, nil
}

// awaitMount waits until target is mounted, or until gone is closed because the one who should mount it has ended.
func awaitMount(ctx context.Context, target string, parent unix.Fsid, gone <-chan struct{}) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := mounted(target, parent)
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gone:
			return errDaemonEnded
		case <-tick.C:
		}
	}
}

// fileSystem returns the identity of the file system that path lies on.
func fileSystem(path string) (unix.Fsid, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return unix.Fsid{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	return st.Fsid, nil
}
