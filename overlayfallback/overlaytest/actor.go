package overlaytest

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Identity is who runs an operation. The zero value is root with umask 022.
type Identity struct {
	UID, GID int
	Groups   []int
	Umask    int // 0 stands for 022; NoMask for none
}

// NoMask stands for umask 0, since the zero value stands for the default.
const NoMask = 1 << 16

// Actor is an OS thread of its own, on which functions run one after the other. Umask, user, groups and working directory
// belong to the thread, so actors do not disturb each other or the test.
type Actor struct {
	work chan func()
}

// NewActor starts an actor; Close ends it.
func NewActor() *Actor {
	a := &Actor{work: make(chan func())}
	go a.run()
	return a
}

// run is the actor's thread. It is never unlocked, so that the thread ends with it and nobody inherits its state.
func (a *Actor) run() {
	runtime.LockOSThread()
	unix.Unshare(unix.CLONE_FS)
	for f := range a.work {
		f()
	}
}

// Do runs f on the actor's thread as root and returns when it is done.
func (a *Actor) Do(f func()) {
	done := make(chan struct{})
	a.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// As runs f on the actor's thread as id.
func (a *Actor) As(id Identity, f func()) {
	a.Do(func() {
		if err := id.assume(); err != nil {
			panic(fmt.Sprintf("become uid %d: %v", id.UID, err)) // the test itself is broken
		}
		defer Identity{}.assume()
		f()
	})
}

// Close ends the actor's thread.
func (a *Actor) Close() { close(a.work) }

// As runs f as id on a thread that ends with it.
func As(id Identity, f func()) {
	a := NewActor()
	defer a.Close()
	a.As(id, f)
}

// assume gives the calling thread the identity. The saved user stays root, which is the way back; the raw calls are used
// because those of package syscall change every thread of the process.
func (id Identity) assume() error {
	mask := id.Umask
	switch mask {
	case 0:
		mask = 0o022
	case NoMask:
		mask = 0
	}
	unix.Umask(mask)
	keep := ^uintptr(0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, 0); e != 0 {
		return e
	}
	if err := setGroups(id.Groups); err != nil {
		return err
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(id.GID), 0); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(id.UID), 0); e != 0 {
		return e
	}
	return nil
}
