package overlayfallback

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// onOwnThread runs f on an OS thread that does not share what unshare says (CLONE_FS, its working directory; CLONE_NEWNS, its
// mounts; 0 for nothing) with the rest of the process. The thread ends afterwards, so that whatever f does to these is never
// seen elsewhere. The table of descriptors stays shared: Go's own poller is in it, and any thread may be the one to use that.
func onOwnThread(unshare int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: Go ends a thread whose goroutine ends while it is locked to it.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Go cannot end the process's first thread. Hold it here, so that the work lands on another one.
			defer runtime.UnlockOSThread()
			done <- onOwnThread(unshare, f)
			return
		}
		if err := unix.Unshare(unshare); err != nil {
			done <- fmt.Errorf("unshare: %w", err)
			return
		}
		err := f()
		if unshare&unix.CLONE_FS != 0 {
			// The thread ends a moment after this returns: an unmount must not find it in a folder until then.
			unix.Chdir("/")
		}
		done <- err
	}()
	return <-done
}
