package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The driver's system calls are raw: the Go scheduler does not learn of them, so that a call which waits for a FUSE server
// neither loses its processor nor queues to get it back, which would cost as much as the call. The price is that a thread
// in such a call cannot be stopped for garbage collection: Run switches that off while a work is timed.

// deadlineEvery is how many operations a driver does between two looks at its context.
const deadlineEvery = 64

// call is one raw system call, repeated when a signal interrupted it.
func call(trap, a, b, c, d, e uintptr) (uintptr, error) {
	for {
		r, _, errno := unix.RawSyscall6(trap, a, b, c, d, e, 0)
		switch errno {
		case 0:
			return r, nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

func rawOpen(dir int, name *byte, flags int, mode uint32) (int, error) {
	fd, err := call(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(name)), uintptr(flags), uintptr(mode), 0)
	return int(fd), err
}

func rawRead(fd int, buf []byte) (int, error) {
	n, err := call(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	return int(n), err
}

func rawWrite(fd int, buf []byte) (int, error) {
	n, err := call(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	return int(n), err
}

func rawClose(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// rawStat does what lstat does, through statx.
func rawStat(dir int, name *byte, st *unix.Statx_t) error {
	_, err := call(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(name)), unix.AT_SYMLINK_NOFOLLOW,
		unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(st)))
	return err
}

func rawUnlink(dir int, name *byte) error {
	_, err := call(unix.SYS_UNLINKAT, uintptr(dir), uintptr(unsafe.Pointer(name)), 0, 0, 0)
	return err
}

func rawChmod(dir int, name *byte, mode uint32) error {
	_, err := call(unix.SYS_FCHMODAT, uintptr(dir), uintptr(unsafe.Pointer(name)), uintptr(mode), 0, 0)
	return err
}

// pinned runs f on n threads of their own at once, f getting the thread's number, and returns how long it took from the
// moment when all were ready until the last had ended. The runtime's preemption signal is blocked on them: it would
// interrupt FUSE requests, and each interrupted one costs the server a message more.
func pinned(n int, f func(thread int) error) (time.Duration, error) {
	errs := make([]error, n)
	start := make(chan struct{})
	var ready, done sync.WaitGroup
	for i := range n {
		ready.Add(1)
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			defer blockPreemption()()
			ready.Done()
			<-start
			errs[i] = f(i)
		})
	}
	ready.Wait()
	began := time.Now()
	close(start)
	done.Wait()
	return time.Since(began), errors.Join(errs...)
}

// blockPreemption blocks SIGURG on this thread and returns what undoes it.
func blockPreemption() func() {
	var set, old unix.Sigset_t
	bit := uint(syscall.SIGURG) - 1
	set.Val[bit/64] |= 1 << (bit % 64)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old) != nil {
		return func() {}
	}
	return func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) }
}

// pace tells a driver, every deadlineEvery operations, whether it should give up.
type pace struct {
	ctx   context.Context
	count int
}

func (p *pace) step() error {
	p.count++
	if p.count%deadlineEvery != 0 {
		return nil
	}
	return p.ctx.Err()
}

// cstrings returns the names as NUL-terminated strings, made once so that a timed pass allocates nothing.
func cstrings(names []string) []*byte {
	out := make([]*byte, len(names))
	for i, name := range names {
		b := append([]byte(name), 0)
		out[i] = &b[0]
	}
	return out
}

// openRoot opens the directory that a driver works in.
func openRoot(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}
