package perf

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestIdleCost checks that a mount which has served requests and waits for more uses next to no processor time.
func TestIdleCost(t *testing.T) {
	if testing.Short() {
		t.Skip("watches an idle mount for seconds")
	}
	m := mountMemFS(t, Config{})
	for range 1000 {
		if _, err := os.Stat(m.path("f")); err != nil {
			t.Fatal(err)
		}
	}
	// The collector and the test framework work in the background as well, and other packages' tests beside them: the
	// quietest of some windows counts.
	const window, allowed = time.Second, time.Millisecond
	least := window
	for deadline := time.Now().Add(15 * window); least > allowed && time.Now().Before(deadline); {
		before := processorTime(t)
		time.Sleep(window)
		least = min(least, processorTime(t)-before)
	}
	t.Logf("%v idle took %v of processor time", window, least)
	if least > allowed {
		t.Errorf("%v idle took %v of processor time, want at most %v", window, least, allowed)
	}
}

// TestActiveWaitStops checks that requests which come too seldom to be waited for actively end the active waits.
func TestActiveWaitStops(t *testing.T) {
	m := mountMemFS(t, Config{})
	for range 100 {
		if _, err := os.Stat(m.dir); err != nil { // a single request
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	s := m.conn.Counters().Snapshot().Loop
	t.Logf("%+v", s)
	if s.ActiveMisses > 2*maxCredit {
		t.Errorf("%d of 100 requests with pauses were waited for actively and in vain, want few", s.ActiveMisses)
	}
}

// TestCollectGarbage checks that neither a sleeping nor an actively waiting reader holds up the collector.
func TestCollectGarbage(t *testing.T) {
	m := mountMemFS(t, Config{})
	collect := func(when string) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.GC()
		}()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Fatalf("the collector did not finish %s", when)
		}
	}
	collect("while the mount was idle")
	stop := make(chan struct{})
	var client sync.WaitGroup
	client.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = os.Stat(m.path("f"))
			}
		}
	})
	for range 5 {
		collect("while the mount was busy")
	}
	close(stop)
	client.Wait()
}

// TestOneProcessor runs the tests of the loop where Go may use one processor: nothing may be waited for actively.
func TestOneProcessor(t *testing.T) {
	if runtime.GOMAXPROCS(0) == 1 {
		t.Skip("this is the process with one processor")
	}
	rerun(t, "Test(Serve.*|Slow.*|Interrupt|CollectGarbage|NoActiveWait|UnmountLeavesNothing)", "GOMAXPROCS=1")
}

// TestNoActiveWait checks, in the process of TestOneProcessor, that a single processor is left to the clients.
func TestNoActiveWait(t *testing.T) {
	if runtime.GOMAXPROCS(0) > 1 {
		t.Skip("needs a single processor; TestOneProcessor runs it with GOMAXPROCS=1")
	}
	m := mountMemFS(t, Config{})
	for i := range 100 {
		if _, err := os.Stat(m.path("f" + strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	if s := m.conn.Counters().Snapshot().Loop; s.ActiveHits+s.ActiveMisses > 0 {
		t.Errorf("active waits on a single processor: %+v", s)
	}
}

// TestCalmOnBusyMachine checks how long active waits stay away after yields that gave the processor to others.
func TestCalmOnBusyMachine(t *testing.T) {
	w := waiter{credit: maxCredit, processors: 2}
	now := time.Now()
	expect := func(after time.Duration, want bool) {
		t.Helper()
		if got := w.mayWaitActively(now.Add(after)); got != want {
			t.Errorf("%v after a stolen yield, calm for %v: waits actively: %v, want %v", after, w.calm, got, want)
		}
	}
	expect(0, true)
	for want := minCalm; want < maxCalm; want *= 4 {
		w.calmDown(now)
		expect(want-1, false)
		expect(want, true)
		now = now.Add(want)
	}
	w.calmDown(now)
	expect(maxCalm-1, false)
	expect(maxCalm, true)
	now = now.Add(3 * maxCalm) // a long time without a stolen yield
	w.calmDown(now)
	expect(minCalm, true)
}

func TestActiveWaitNeedsCreditAndProcessors(t *testing.T) {
	for _, w := range []waiter{{credit: 0, processors: 2}, {credit: 1, processors: 1}} {
		if w.mayWaitActively(time.Now()) {
			t.Errorf("%+v waits actively", w)
		}
	}
}
