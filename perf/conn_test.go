package perf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func TestServeConcurrentClients(t *testing.T) {
	m := mountMemFS(t, Config{})
	for clients := 1; clients <= 8; clients *= 2 {
		t.Run(fmt.Sprint(clients), func(t *testing.T) {
			var wg sync.WaitGroup
			for i := range clients {
				wg.Go(func() { writeAndReadBack(t, m.path(fmt.Sprintf("f%d-%d", clients, i)), byte(i+1)) })
			}
			wg.Wait()
		})
	}
}

// writeAndReadBack writes files of many sizes, requests of up to the largest size among them, and compares.
func writeAndReadBack(t *testing.T, path string, fill byte) {
	for _, size := range []int{0, 1, 4095, 4096, 70_000, 1 << 20, 3<<20 + 17} {
		want := bytes.Repeat([]byte{fill}, size)
		for i := range want {
			want[i] += byte(i >> 12)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Error(err)
			return
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			return
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes read back differ from the %d written", path, len(got), size)
		}
	}
}

func TestMissingName(t *testing.T) {
	m := mountMemFS(t, Config{})
	if _, err := os.Stat(m.path("nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat of a missing name: %v", err)
	}
}

func TestNegotiated(t *testing.T) {
	m := mountMemFS(t, Config{})
	if got := m.conn.Negotiated(); got&fuse.CAP_BIG_WRITES == 0 {
		t.Errorf("negotiated flags %#x lack big writes", got)
	}
}

// statSlow starts a stat whose handler blocks and waits until the handler runs.
func statSlow(t *testing.T, m *mounted, name string) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := os.Stat(m.path(name))
		done <- err
	}()
	select {
	case <-m.entered:
	case <-time.After(5 * time.Second):
		t.Fatalf("the handler of %s did not run within 5 s", name)
	}
	return done
}

func TestSlowHandlersDoNotBlockOthers(t *testing.T) {
	m := mountMemFS(t, Config{})
	var slow []<-chan error
	for i := range 40 {
		slow = append(slow, statSlow(t, m, fmt.Sprintf("slow%d", i)))
		if _, err := os.Stat(m.path("f")); err != nil {
			t.Fatalf("stat beside %d slow requests: %v", i+1, err)
		}
	}
	close(m.release)
	for _, done := range slow {
		if err := <-done; !errors.Is(err, os.ErrNotExist) {
			t.Errorf("slow stat: %v", err)
		}
	}
	if _, err := os.Stat(m.path("f")); err != nil {
		t.Errorf("stat after the slow requests: %v", err)
	}
	m.expectLoops(t, maxSpare+1)
}

// expectLoops waits until at most n loops are left.
func (m *mounted) expectLoops(t *testing.T, n int) {
	t.Helper()
	var have int
	for range 100 {
		m.conn.crew.mu.Lock()
		have = len(m.conn.crew.all)
		m.conn.crew.mu.Unlock()
		if have <= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d loops are left, want at most %d", have, n)
}

func TestMaxLoops(t *testing.T) {
	m := mountMemFS(t, Config{MaxLoops: 2})
	first, second := statSlow(t, m, "slow1"), statSlow(t, m, "slow2")
	third := make(chan error, 1)
	go func() {
		_, err := os.Stat(m.path("f"))
		third <- err
	}()
	select {
	case err := <-third:
		t.Errorf("a third request was served by two loops that are busy: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(m.release)
	for _, done := range []<-chan error{first, second} {
		if err := <-done; !errors.Is(err, os.ErrNotExist) {
			t.Errorf("slow stat: %v", err)
		}
	}
	if err := <-third; err != nil {
		t.Errorf("the request that waited: %v", err)
	}
}

func TestPanicFailsTheRequestOnly(t *testing.T) {
	var log bytes.Buffer
	m := mountMemFS(t, Config{Log: textLog(&log)})
	for range 3 {
		if _, err := os.Stat(m.path("panic")); !errors.Is(err, syscall.EIO) {
			t.Errorf("stat whose handler panics: %v, want EIO", err)
		}
		if _, err := os.Stat(m.path("f")); err != nil {
			t.Errorf("stat after a panic: %v", err)
		}
	}
	m.unmount(t)
	if s := log.String(); !strings.Contains(s, "as asked") {
		t.Errorf("the panic is not in the log: %q", s)
	}
	if n := m.conn.Counters().Snapshot().Loop.Panics; n != 3 {
		t.Errorf("%d panics counted, want 3", n)
	}
}

// TestMakeRoom: a request that finds no room is handled once more where room has been made. Others are served meanwhile.
func TestMakeRoom(t *testing.T) {
	for _, made := range []bool{true, false} {
		var mount atomic.Pointer[mounted]
		served := make(chan error, 2)
		m := mountMemFS(t, Config{MakeRoom: func(time.Time) bool {
			m := mount.Load()
			served <- within(5*time.Second, func() error {
				_, err := os.Stat(m.path("f"))
				return err
			})
			m.room.Store(made)
			return made
		}})
		mount.Store(m)
		_, err := os.Stat(m.path("full"))
		if made && err != nil || !made && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("with room %v: %v", made, err)
		}
		if len(served) != 1 {
			t.Errorf("with room %v: asked for room %d times", made, len(served))
		} else if err := <-served; err != nil {
			t.Errorf("another request was not served meanwhile: %v", err)
		}
	}
}

// within gives an error where f takes longer.
func within(d time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(d):
		return fmt.Errorf("still not done after %s", d)
	}
}

// TestRefusedReply answers with what the kernel throws away; the caller must not wait for good.
func TestRefusedReply(t *testing.T) {
	m := mountMemFS(t, Config{})
	if _, err := os.Stat(m.path("mad")); !errors.Is(err, syscall.EIO) {
		t.Errorf("stat whose reply the kernel refuses: %v, want EIO", err)
	}
	if _, err := os.Stat(m.path("f")); err != nil {
		t.Errorf("stat afterwards: %v", err)
	}
}

// TestWithoutClone serves by a duplicate of the descriptor, as where /dev/fuse cannot be opened.
func TestWithoutClone(t *testing.T) {
	fs := newMemFS()
	m := prepareMount(t, fs, fs, Config{Log: discardLog()})
	fd, err := duplicateDevice(int(m.dev.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.conn.dev.close(); err != nil {
		t.Fatal(err)
	}
	m.conn.dev = device{fd, fd}
	m.serve(t)
	writeAndReadBack(t, m.path("f"), 3)
}

// TestParallelSlowReads checks that requests known to be slow are handled side by side, without waiting for the monitor.
func TestParallelSlowReads(t *testing.T) {
	m := mountMemFS(t, Config{})
	const clients, reads, pause = 8, 20, 5 * time.Millisecond
	m.sleep.Store(int64(pause))
	start := time.Now()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			f, err := os.Open(m.path(fmt.Sprintf("f%d", i)))
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for range reads {
				if _, err := f.ReadAt(make([]byte, 10), 0); err != io.EOF {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if took, serial := time.Since(start), clients*reads*pause; took > serial/2 {
		t.Errorf("%d clients took %v for what takes one after the other %v", clients, took, serial)
	}
}

func TestUnmountLeavesNothing(t *testing.T) {
	runtime.GC() // lets finalizers of other tests' files run
	goroutines, descriptors, threads := runtime.NumGoroutine(), countDescriptors(t), countThreads(t)
	for range 5 {
		m := mountMemFS(t, Config{})
		done := statSlow(t, m, "slow")
		if _, err := os.Stat(m.path("f")); err != nil {
			t.Error(err)
		}
		// A forced unmount while a request is in flight: its handler must be cancelled.
		if err := unix.Unmount(m.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err == nil {
			t.Error("a stat survived the forced unmount")
		}
		m.expectEnd(t)
		if !m.unmounted.Load() || m.canceled.Load() != 1 {
			t.Errorf("OnUnmount called: %v, handlers cancelled: %d of 1", m.unmounted.Load(), m.canceled.Load())
		}
		m.dev.Close()
	}
	eventually(t, "goroutines", func() (int, bool) { n := runtime.NumGoroutine(); return n, n <= goroutines })
	eventually(t, "descriptors", func() (int, bool) { n := countDescriptors(t); return n, n <= descriptors })
	// The runtime keeps some threads of its own for later.
	eventually(t, "threads", func() (int, bool) { n := countThreads(t); return n, n <= threads+6 })
}

func eventually(t *testing.T, what string, check func() (int, bool)) {
	t.Helper()
	var n int
	for range 100 {
		var ok bool
		if n, ok = check(); ok {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d %s are left, more than there were before", n, what)
}

func countDescriptors(t *testing.T) int { return countEntries(t, "/proc/self/fd") }
func countThreads(t *testing.T) int     { return countEntries(t, "/proc/self/task") }

func countEntries(t *testing.T, dir string) int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestThreadInit checks that each thread that handles requests is prepared once, and that nothing else runs on it: the
// threads get a file system root of their own, whose working directory a handler changes.
func TestThreadInit(t *testing.T) {
	var inits atomic.Int32
	m := mountMemFS(t, Config{ThreadInit: func() error {
		inits.Add(1)
		return unix.Unshare(unix.CLONE_FS)
	}})
	first := statSlow(t, m, "slow1")
	second := statSlow(t, m, "slow2")
	if _, err := os.Stat(m.path("f")); err != nil {
		t.Fatal(err)
	}
	if n := inits.Load(); n != 3 {
		t.Errorf("%d threads were prepared, want 3: two slow requests and a reader", n)
	}
	close(m.release)
	<-first
	<-second
}

func TestThreadInitFails(t *testing.T) {
	dir, dev := mountFUSE(t)
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	broken := errors.New("no such luck")
	conn, err := NewConn(dev, newMemFS(), nil, Config{ThreadInit: func() error { return broken }})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Serve(); !errors.Is(err, broken) {
		t.Errorf("Serve: %v, want %v", err, broken)
	}
}

// TestLaterThreadInitFails checks that a Conn whose further threads cannot be made goes on with the one it has.
func TestLaterThreadInitFails(t *testing.T) {
	var inits atomic.Int32
	m := mountMemFS(t, Config{ThreadInit: func() error {
		if inits.Add(1) > 1 {
			return errors.New("no more")
		}
		return nil
	}})
	done := statSlow(t, m, "slow")
	time.Sleep(5 * tick)
	close(m.release)
	<-done
	if _, err := os.Stat(m.path("f")); err != nil {
		t.Error(err)
	}
}

func TestServeTwice(t *testing.T) {
	m := mountMemFS(t, Config{})
	if err := m.conn.Serve(); err == nil {
		t.Error("a second Serve was let through")
	}
}

func TestNewConnOfNoDevice(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conn, err := NewConn(f, newMemFS(), nil, Config{})
	if err == nil {
		err = conn.Serve()
	}
	if err == nil {
		t.Error("a plain file was served as a FUSE connection")
	}
}
