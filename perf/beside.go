package perf

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// lookEvery is after how many requests a loop looks where its client runs. A look costs about half as much as a request.
const lookEvery = 16

const (
	// calm is how long a loop that has followed its client sleeps before it answers.
	calm = 200 * time.Microsecond
	// calmApart is how far apart these sleeps are at least, so that a client which is moved time and again loses little by them.
	calmApart = 2 * time.Millisecond
)

const (
	// maxAway is how many looks in a row find the client elsewhere before following it is given up for restFor.
	maxAway = 64
	restFor = 10 * time.Second
)

// anywhere is the processor of a loop that has not looked yet.
const anywhere int32 = -1

// beside keeps the reading on the processor of the clients. There a client that waits for an answer and the loop that waits
// for a request take turns, which costs two context switches a request; across processors it costs waking an idle one,
// twice.
//
// A loop does not go after its client itself: the processor that it left would be idle just then, and the scheduler would
// put the client there when it is woken next. It invites another loop to the client's processor, and reads on for as long
// as there is something to be read. A loop is put onto a processor and left free again at once: where it is better off
// elsewhere, the scheduler moves it.
//
// A loop that has a client beside it sleeps as a reader when there is nothing to read: where several do, the kernel wakes them
// in turn, which is mostly the one beside who asks.
//
// The processor that client and loop have left may draw the client back with the next answer for as long as it is awake; one that
// has slept for a while does so less often, at least where it is virtual and its host may have taken it away (available_idle_cpu). So
// a loop that has followed its client lets it wait for the first answer until the other processor sleeps.
//
// Where clients cannot be followed, or are never found where the loop went, the reader waits actively for as long as a client on
// another processor needs.
type beside struct {
	processor atomic.Int32 // where the loop was put or seen last
	served    int          // requests since the last look
	home      bool         // it has a client here, as far as is known
	followed  bool         // it was put here, and has not answered yet
	client    uint32       // the number of that client's thread
	fromIt    int          // requests since the last look that were this client's
	stat      statFile     // of the client that was looked at last
	blind     bool         // where the clients are is not to be known, or is where no loop can stay beside them
}

// pursuit is how clients are followed, and whether it pays on this machine. A scheduler that puts whoever is woken on any idle
// processor takes each client away from beside its loop with the next answer.
type pursuit struct {
	mu    sync.Mutex
	calm  time.Time // when a loop slept last before it answered; guarded by mu
	away  int       // looks in a row that found the client elsewhere; guarded by mu
	until time.Time // when following is tried again; guarded by mu
}

// pays records whether a look has found the client beside its loop, and tells whether clients are to be followed.
func (p *pursuit) pays(beside bool, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case beside:
		p.away = 0
		return true
	case now.Before(p.until):
		return false
	}
	if p.away++; p.away < maxAway {
		return true
	}
	p.away, p.until = maxAway/2, now.Add(restFor) // the next trial is a shorter one
	return false
}

// calms tells whether a loop may sleep before it answers.
func (p *pursuit) calms(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.calm) < calmApart {
		return false
	}
	p.calm = now
	return true
}

// settle puts the loop onto the processor that it was invited to.
func (l *loop) settle() {
	l.served = 0
	if p := l.processor.Load(); p != anywhere {
		l.home, l.followed = true, true
		l.moveTo(p)
	}
}

// calmDown lets the processor from which the loop has followed its client fall asleep. Go's own timers would wake it.
func (l *loop) calmDown() {
	if !l.followed {
		return
	}
	l.followed = false
	if l.conn.pursuit.calms(time.Now()) {
		moment := unix.NsecToTimespec(int64(calm))
		_ = unix.Nanosleep(&moment, nil) // shorter where a signal comes
	}
}

// follow looks at times where the client of a request runs.
func (l *loop) follow(in *fuse.InHeader) {
	if l.served++; in.Pid == l.client {
		l.fromIt++
	}
	if l.served >= lookEvery && waitsFor(in) && len(l.conn.processors) > 1 {
		l.look(in.Pid)
		l.served, l.fromIt = 0, 0
	}
}

// look finds out where a client runs, and gets it a loop there.
func (l *loop) look(pid uint32) {
	client, own := l.processorOf(pid), ownProcessor()
	l.processor.Store(own)
	l.blind = !slices.Contains(l.conn.processors, client) || !l.conn.pursuit.pays(client == own, time.Now())
	switch {
	case l.blind:
		l.home = false
	case client == own:
		l.home, l.client = true, pid
	default:
		l.conn.invite(client)
		l.home = l.home && pid != l.client && l.fromIt > 0 // there is another client here
	}
}

// waitsFor tells whether a client waits for the answer to a request, and cannot be gone before it. It must be so for look: who
// reads the stat file of a process that ends meanwhile may be left with taking its memory down (mmput), the files in it
// included, and would wait for the answer to their FLUSH, which it should give itself. Nobody waits for a RELEASE, nor for data
// that is read ahead or written behind; for what is written directly perhaps not (io_submit(2)).
func waitsFor(in *fuse.InHeader) bool {
	switch in.Opcode {
	case opLookup, opGetAttr, opSetAttr, opMknod, opUnlink, opOpen, opGetXAttr, opCreate, opReadDirPlus:
		return true
	case opWrite:
		write := (*fuse.WriteIn)(unsafe.Pointer(in))
		return write.WriteFlags&fuse.WRITE_CACHE == 0 && write.Flags&syscall.O_DIRECT == 0
	}
	return false
}

// moveTo puts the calling thread onto a processor, if it may run there.
func (l *loop) moveTo(processor int32) {
	var allowed, one unix.CPUSet // read anew each time: it can be changed from outside
	if err := unix.SchedGetaffinity(0, &allowed); err != nil || !allowed.IsSet(int(processor)) {
		return
	}
	if one.Set(int(processor)); unix.SchedSetaffinity(0, &one) != nil {
		return
	}
	if err := unix.SchedSetaffinity(0, &allowed); err != nil {
		l.conn.cfg.Log.Warn("a serving thread stays on one processor", "processor", processor, "error", err)
	}
}

// usableProcessors is the processors that this process may run on.
func usableProcessors() (list []int32) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	for i := range int32(len(set) * 64) {
		if set.IsSet(int(i)) {
			list = append(list, i)
		}
	}
	return list
}

func ownProcessor() int32 {
	var p uint32
	if _, _, errno := syscall.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&p)), 0, 0); errno != 0 {
		return anywhere
	}
	return int32(p)
}

// processorOf is where a thread runs or ran last, and anywhere where that is not to be known.
func (b *beside) processorOf(thread uint32) int32 {
	const processor = 39 // task_cpu
	n, ok := b.stat.read(thread, processor)
	if !ok {
		return anywhere
	}
	return int32(n)
}
