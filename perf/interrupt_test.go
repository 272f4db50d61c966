package perf

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestInterrupt kills a process that waits for a slow request: the handler must learn of it.
func TestInterrupt(t *testing.T) {
	m := mountMemFS(t, Config{})
	stat := startProcess(t, "stat", m.path("slow"))
	<-m.entered
	if err := stat.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := stat.Wait(); err == nil {
		t.Error("stat was not killed")
	}
	if n := m.canceled.Load(); n != 1 {
		t.Errorf("%d handlers were cancelled, want 1", n)
	}
}

// A signal that its receiver survives breaks nothing off, and one that kills it later still does.
func TestInterruptIsHeldBack(t *testing.T) {
	m := mountMemFS(t, Config{})
	thread, result := make(chan int), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread <- unix.Gettid()
		var st unix.Stat_t
		result <- unix.Stat(m.path("slow"), &st)
	}()
	tid := <-thread
	<-m.entered
	for range 5 {
		// The Go runtime handles it.
		if err := unix.Tgkill(os.Getpid(), tid, unix.SIGURG); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lookForKilled)
	}
	if n := m.canceled.Load(); n != 0 {
		t.Errorf("%d handlers were cancelled by a signal that kills nobody", n)
	}
	close(m.release)
	if err := <-result; err != unix.ENOENT {
		t.Errorf("stat gives %v, want what its handler does, ENOENT", err)
	}
}

// The kernel sends no second INTERRUPT for a request: that the caller is killed after a harmless signal must be seen all the same.
func TestKilledAfterSignal(t *testing.T) {
	m := mountMemFS(t, Config{})
	stat := startProcess(t, "sh", "-c", `trap : USR1; exec 3<"$0"`, m.path("slow"))
	<-m.entered
	for _, signal := range []os.Signal{unix.SIGUSR1, unix.SIGKILL} {
		if n := m.canceled.Load(); n != 0 {
			t.Errorf("before %v %d handlers were cancelled", signal, n)
		}
		if err := stat.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * lookForKilled)
	}
	stat.Wait()
	if n := m.canceled.Load(); n != 1 {
		t.Errorf("%d handlers were cancelled, want 1", n)
	}
}
