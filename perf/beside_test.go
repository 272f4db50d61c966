package perf

import (
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestLooksWhileClientWaits checks that no process is looked at which may end meanwhile.
func TestLooksWhileClientWaits(t *testing.T) {
	waits := func(kind, writeFlags, openFlags uint32) bool {
		var in fuse.WriteIn // the largest that is looked into
		in.Opcode, in.WriteFlags, in.Flags = kind, writeFlags, openFlags
		return waitsFor(&in.InHeader)
	}
	for kind, name := range opcodeNames {
		switch name {
		case "FORGET", "BATCH_FORGET", "RELEASE", "RELEASEDIR", "READ", "FLUSH", "INTERRUPT", "NOTIFY_REPLY", "INIT", "DESTROY":
			if waits(uint32(kind), 0, 0) {
				t.Errorf("a client is looked at that may not wait for the answer to %s", name)
			}
		}
	}
	if waits(opWrite, fuse.WRITE_CACHE, 0) || waits(opWrite, 0, unix.O_DIRECT) {
		t.Error("a client is looked at that may not wait for a WRITE behind it, or to be written directly")
	}
	if !waits(opLookup, 0, 0) || !waits(opWrite, 0, unix.O_RDWR) {
		t.Error("no client is looked at for LOOKUP or for WRITE")
	}
}

// pinned runs f on a thread that stays on a processor.
func pinned(t *testing.T, processor int32, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	one.Set(int(processor))
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Error(err)
		return
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Error(err)
		return
	}
	defer unix.SchedSetaffinity(0, &before)
	f()
}

func statFor(t *testing.T, path string, d time.Duration) {
	var st unix.Stat_t
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := unix.Stat(path, &st); err != nil {
			t.Error(err)
			return
		}
	}
}

func TestProcessorOf(t *testing.T) {
	var b beside
	defer b.stat.close()
	processors := usableProcessors()
	for _, p := range processors {
		pinned(t, p, func() {
			if own, got := ownProcessor(), b.processorOf(uint32(unix.Gettid())); own != p || got != p {
				t.Errorf("on processor %d: ownProcessor() = %d, processorOf(self) = %d", p, own, got)
			}
		})
	}
	if got := b.processorOf(0); got != anywhere {
		t.Errorf("processorOf(0) = %d, want %d", got, anywhere)
	}
}

// readersAt is the processors on which loops read, as they were last seen.
func readersAt(c *Conn) (at []int32) {
	c.crew.mu.Lock()
	defer c.crew.mu.Unlock()
	for _, l := range c.crew.readers {
		at = append(at, l.processor.Load())
	}
	return at
}

// TestReaderFollowsClient checks that a client on any processor gets a reader there.
func TestReaderFollowsClient(t *testing.T) {
	processors := usableProcessors()
	if len(processors) < 2 {
		t.Skip("needs two processors")
	}
	m := mountMemFS(t, Config{})
	for _, p := range append(processors[:2:2], processors[0]) {
		pinned(t, p, func() {
			for end := time.Now().Add(10 * time.Second); !slices.Contains(readersAt(m.conn), p); {
				if time.Now().After(end) {
					t.Fatalf("no reader came to processor %d; they are at %v", p, readersAt(m.conn))
				}
				statFor(t, m.path("f"), 5*time.Millisecond)
			}
		})
	}
}

// TestReaderKeepsItsProcessors checks that the processors which a loop's thread may use stay those that somebody has given it.
func TestReaderKeepsItsProcessors(t *testing.T) {
	processors := usableProcessors()
	if len(processors) < 2 {
		t.Skip("needs two processors")
	}
	var one, got unix.CPUSet
	one.Set(int(processors[1]))
	var mu sync.Mutex
	var threads []int
	m := mountMemFS(t, Config{ThreadInit: func() error {
		mu.Lock()
		defer mu.Unlock()
		threads = append(threads, unix.Gettid())
		return unix.SchedSetaffinity(0, &one)
	}})
	for _, p := range processors[:2] {
		pinned(t, p, func() { statFor(t, m.path("f"), 50*time.Millisecond) })
	}
	mu.Lock()
	defer mu.Unlock()
	for _, thread := range threads {
		if err := unix.SchedGetaffinity(thread, &got); err != nil || got != one {
			t.Errorf("the thread may run on %v (%v), want %v", got, err, one)
		}
	}
}

// TestFewReaders checks that however many clients there are, each processor has at most one reader, and that one is left
// when they have gone.
func TestFewReaders(t *testing.T) {
	m := mountMemFS(t, Config{})
	most := 0
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() { statFor(t, m.path("f"), 300*time.Millisecond) })
	}
	for range 100 {
		most = max(most, len(readersAt(m.conn)))
		time.Sleep(2 * time.Millisecond)
	}
	clients.Wait()
	if processors := len(m.conn.processors); most > processors {
		t.Errorf("%d readers on %d processors", most, processors)
	}
	for end := time.Now().Add(10 * time.Second); len(readersAt(m.conn)) != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d readers are left, want 1", len(readersAt(m.conn)))
		}
		if _, err := os.Stat(m.path("f")); err != nil {
			t.Fatal(err)
		}
	}
}
