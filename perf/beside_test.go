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

// TestRestlessClient checks that a client which is elsewhere whenever a loop looks is soon waited for actively, and followed again
// once it stays.
func TestRestlessClient(t *testing.T) {
	processors := usableProcessors()
	if len(processors) < 2 {
		t.Skip("needs two processors")
	}
	m := mountMemFS(t, Config{})
	l := newLoop(m.conn)
	defer l.stat.close()
	client, done := threadOn(t, processors[1])
	defer close(done)
	pinned(t, processors[0], func() {
		for range maxAway - 1 {
			if l.look(client); l.blind {
				t.Fatal("it was given up too soon")
			}
		}
		if l.look(client); !l.blind || l.home {
			t.Errorf("a client that is always elsewhere is still followed: blind %v, home %v", l.blind, l.home)
		}
	})
	pinned(t, processors[1], func() {
		if l.look(client); l.blind || !l.home {
			t.Errorf("a client beside the loop is waited for actively: blind %v, home %v", l.blind, l.home)
		}
	})
}

// TestPursuitTriedAgain checks that following is tried again after a while, for a shorter time.
func TestPursuitTriedAgain(t *testing.T) {
	var p pursuit
	now := time.Now()
	followed := func(looks int) (n int) {
		for range looks {
			if p.pays(false, now) {
				n++
			}
		}
		return n
	}
	if n := followed(1000); n != maxAway-1 {
		t.Errorf("followed for %d looks, want %d", n, maxAway-1)
	}
	now = now.Add(restFor)
	if n := followed(1000); n != maxAway/2-1 {
		t.Errorf("followed for %d looks the second time, want %d", n, maxAway/2-1)
	}
	if !p.pays(true, now) {
		t.Error("a client beside the loop is not followed")
	}
}

// TestCalmsApart checks that a client which is moved time and again waits for few of its answers.
func TestCalmsApart(t *testing.T) {
	var p pursuit
	calms, now := 0, time.Now()
	for range 1000 {
		if p.calms(now) {
			calms++
		}
		now = now.Add(calmApart / 10)
	}
	if calms != 100 {
		t.Errorf("%d of 1000 moves had the client wait, want 100", calms)
	}
}

// threadOn is the number of a thread that sleeps, having run on a processor last, until done is closed.
func threadOn(t *testing.T, processor int32) (thread uint32, done chan struct{}) {
	started, done := make(chan uint32), make(chan struct{})
	go func() {
		defer close(started) // also where it cannot be pinned
		pinned(t, processor, func() {
			started <- uint32(unix.Gettid())
			<-done
		})
	}()
	return <-started, done
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
