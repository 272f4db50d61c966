package perf

import (
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// The kernel sends an INTERRUPT with the first signal that a caller gets while it waits for an answer, whatever the signal does to
// it, and none with those after. The kernel's own file systems break off for a caller that is to die, and for nobody else
// (fatal_signal_pending): programs do not reckon with EINTR from chmod(2) or rename(2), and Go's get a signal every few
// milliseconds. So an INTERRUPT is held back until its caller is killed.

// lookForKilled is how often is looked whether a caller is killed whose INTERRUPT is held back.
const lookForKilled = 10 * time.Millisecond

// holdBack takes an INTERRUPT over whose request is being handled. It reports false for others: go-fuse tells the kernel to send
// it again.
func (c *Conn) holdBack(in *fuse.InHeader) bool {
	unique := (*fuse.InterruptIn)(unsafe.Pointer(in)).Unique
	caller, ok := c.crew.callerOf(unique)
	if ok {
		go c.interruptOnceKilled(unique, caller)
	}
	return ok
}

func (c *Conn) interruptOnceKilled(unique uint64, caller uint32) {
	var stat statFile
	defer stat.close()
	for !killed(&stat, caller) {
		time.Sleep(lookForKilled)
		if _, ok := c.crew.callerOf(unique); !ok {
			return
		}
	}
	c.interrupt(unique)
}

// killed tells whether a thread is to die: whichever signal it is of, SIGKILL is then pending for each thread of the process
// (complete_signal in kernel/signal.c). One that is not to be seen from here, in another PID namespace, counts as such, so
// that what it has asked for can be broken off.
func killed(stat *statFile, thread uint32) bool {
	const pending = 31 // of the thread itself
	signals, ok := stat.read(thread, pending)
	return !ok || signals&(1<<(syscall.SIGKILL-1)) != 0
}

// callerOf returns the thread that waits for the answer to a request, if that is being handled.
func (w *crew) callerOf(unique uint64) (thread uint32, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.all {
		if l.unique.Load() == unique {
			return l.caller.Load(), true
		}
	}
	return 0, false
}
