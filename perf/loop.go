package perf

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	// yieldEvery is how long a busy loop keeps its thread at least: a little less than forcePreemptNS of Go's runtime.
	yieldEvery = 8 * time.Millisecond
	// yieldLook is after how many requests a loop looks whether that has passed, some 0.6 ms of them. Where they come more slowly
	// the scheduler sees the loop asleep anyway.
	yieldLook = 64
)

// loop is one serving thread: it reads requests while it is a reader, and handles what it has read.
type loop struct {
	conn *Conn
	from int           // the descriptor from which the last request was read
	wake chan struct{} // one token when the parked loop should look whether it is to read

	// turn is odd while the loop handles a request as a reader; the monitor takes the reading from it by making the
	// number even. Each request changes it, so the monitor can tell a slow request from a second one.
	turn atomic.Uint64
	seen uint64 // turn at the monitor's last look; the monitor's own
	// unique is the number of the request being handled, 0 if none; caller is the thread that sent it, stored before.
	unique atomic.Uint64
	caller atomic.Uint32

	yielded time.Time // when it last let Go's scheduler come by

	waiter
	beside
	in, out buffer
	// HandleRequest takes lists of buffers; these save making one for each request.
	inList, outList [1][]byte
}

func newLoop(c *Conn) *loop {
	l := &loop{conn: c, wake: make(chan struct{}, 1)}
	l.waiter.init(&c.counters, len(c.processors))
	return l
}

// handling tells whether a value of loop.turn stands for a request being handled by a reader.
func handling(turn uint64) bool { return turn&1 == 1 }

// run is the body of the loop's goroutine. It never unlocks its thread, so that a thread which ThreadInit has changed
// ends with it.
func (l *loop) run() {
	c := l.conn
	runtime.LockOSThread()
	defer c.leave(l)
	defer l.in.free()
	defer l.out.free()
	defer l.stat.close()
	if err := l.prepare(); err != nil {
		if c.crew.alone() {
			c.crew.end(fmt.Errorf("start serving FUSE requests: %w", err))
			return
		}
		c.cfg.Log.Error("a further serving thread could not be made; requests may wait for slow ones", "error", err)
		return
	}
	for c.crew.enter(l) {
		l.settle()
		for l.serveOne() {
		}
		l.serveQueued()
	}
}

func (l *loop) prepare() (err error) {
	if l.conn.cfg.ThreadInit != nil {
		if err := l.conn.cfg.ThreadInit(); err != nil {
			return fmt.Errorf("prepare a serving thread: %w", err)
		}
	}
	size := max(l.conn.maxWrite, minReadBuffer) + pageSize
	if l.in, err = newBuffer(size, writeHead); err != nil {
		return err
	}
	l.out, err = newBuffer(size, readHead)
	return err
}

// serveOne reads and answers one request. It returns whether the loop is to go on reading.
func (l *loop) serveOne() bool {
	c := l.conn
	n, queued, errno := l.next()
	switch {
	case again(errno): // there is nothing to do for this one
		return false
	case errno == syscall.ENOENT: // the request was withdrawn while it was read
		return true
	case errno == 0 && n < int(unsafe.Sizeof(fuse.InHeader{})):
		errno = syscall.EBADMSG // not a descriptor of /dev/fuse
		fallthrough
	case errno != 0:
		c.stop(errno)
		return false
	}
	in := l.request()
	switch {
	case in.Opcode == opInit:
		// Nobody reads a request of a program before the file system's Init has returned.
		l.answer(n)
		return true
	case queued && l.isOther(in) && c.pace.slow(in.Opcode):
		c.handOver(l)
		l.answer(n)
		return false
	}
	turn := l.turn.Load() + 1
	l.turn.Store(turn)
	c.watch()
	l.follow(in)
	l.answer(n)
	goesOn := l.turn.CompareAndSwap(turn, turn+1)
	if turn/2%yieldLook == 0 {
		l.yield()
	}
	return goesOn
}

// yield lets Go's scheduler come by while requests come one upon another. A goroutine that it has not seen for 10 ms it takes for
// one that will not let go: sysmon preempts it by a signal, or takes its P away while it is in a system call, and then
// wakes every 20 us to see whether it has to again, which took a fortieth of the processor. A yield costs two wake-ups of a thread.
func (l *loop) yield() {
	if now := time.Now(); now.Sub(l.yielded) >= yieldEvery {
		l.yielded = now
		runtime.Gosched()
	}
}

// isOther tells whether a request may be of another client than the one before. That of a client which is not seen from here, in
// another PID namespace, may be anybody's.
func (l *loop) isOther(in *fuse.InHeader) bool { return in.Pid == 0 || in.Pid != l.caller.Load() }

// next reads the next request. queued tells that it was there already: it is another client's, or that of the last one, which
// has run on this processor since it was answered. That is found out where it matters: for a loop without a client beside it, which
// reads no more where there is nothing to read, unless it is the last reader; and while requests of some kind are slow.
func (l *loop) next() (n int, queued bool, errno syscall.Errno) {
	if l.home && !l.conn.pace.someSlow() {
		n, errno = l.sleep(time.Time{})
		return n, false, errno
	}
	if n, errno = l.tryRead(); !again(errno) {
		return n, true, errno
	}
	start := time.Now()
	if l.blind {
		n, errno = l.waitActively(l.tryRead, start)
	}
	if !again(errno) || !l.home && l.conn.crew.mayRest(l) {
		return n, false, errno
	}
	n, errno = l.sleep(start)
	return n, false, errno
}

func (l *loop) tryRead() (int, syscall.Errno) {
	l.from = l.conn.dev.fd
	return l.conn.dev.tryRead(l.in.data)
}

// sleep reads the next request, asleep since start, if that is given, until there is one.
func (l *loop) sleep(start time.Time) (int, syscall.Errno) {
	l.from = l.conn.dev.sleeping
	for {
		n, errno := l.conn.dev.sleepRead(l.in.data)
		if again(errno) {
			continue
		}
		l.slept(start)
		return n, errno
	}
}

// serveQueued answers, without being a reader, what is there to be read. So while there is more than one loop's work,
// the loops that do it need not be woken for each request.
func (l *loop) serveQueued() {
	for {
		n, errno := l.tryRead()
		if errno != 0 || n < int(unsafe.Sizeof(fuse.InHeader{})) {
			return // what is wrong the reader will find out as well
		}
		l.answer(n)
	}
}

// request is the header of the request that was read last.
func (l *loop) request() *fuse.InHeader {
	return (*fuse.InHeader)(unsafe.Pointer(&l.in.data[0]))
}

// stop ends the Conn after the error of a read.
func (c *Conn) stop(errno syscall.Errno) {
	if connectionOver(errno) {
		c.crew.end(nil)
		return
	}
	c.crew.end(fmt.Errorf("read a FUSE request: %w", errno))
}

// answer handles the request in the first n bytes of l.in and writes the reply.
func (l *loop) answer(n int) {
	c := l.conn
	in := l.request()
	if in.Opcode == opInterrupt && c.holdBack(in) {
		c.counters.count(in.Opcode, n, 0, false)
		return
	}
	l.caller.Store(in.Pid)
	l.unique.Store(in.Unique)
	defer l.unique.Store(0)
	start := time.Now()
	size := l.handle(in, n, start)
	c.pace.took(in.Opcode, time.Since(start))
	reply := (*fuse.OutHeader)(unsafe.Pointer(&l.out.data[0]))
	c.counters.count(in.Opcode, n, size, size > 0 && reply.Status != 0)
	if size == 0 {
		return
	}
	l.calmDown()
	errno := writeTo(l.from, l.out.data[:size])
	if errno == syscall.ENOENT && in.Opcode == opInterrupt {
		// It is to be sent again, which only the descriptor may ask for that its request was read from.
		errno = writeTo(c.dev.fd+c.dev.sleeping-l.from, l.out.data[:size])
	}
	if errno != 0 {
		l.replyRefused(in, size, errno)
		return
	}
	if in.Opcode == opInit && reply.Status == 0 {
		// Nothing overwrites the buffer: this loop reads no request before initDone has returned.
		c.initDone((*fuse.InitOut)(unsafe.Pointer(&l.out.data[readHead])))
	}
}

// handle has the request handled, from start on, and returns the size of the reply in l.out, 0 for none.
func (l *loop) handle(in *fuse.InHeader, n int, start time.Time) (size int) {
	defer func() {
		if v := recover(); v != nil {
			l.conn.logPanic(v)
			size = l.failed(in)
		}
	}()
	if err := l.growOut(in); err != nil {
		l.conn.cfg.Log.Error("no memory for a reply", "error", err)
		return l.failed(in)
	}
	l.inList[0], l.outList[0] = l.in.data[:n], l.out.data
	size, status := l.conn.protocol.HandleRequest(l.inList[:], l.outList[:])
	if status.Ok() && size > 0 && l.noRoom() && l.makeRoom(start) {
		size, status = l.conn.protocol.HandleRequest(l.inList[:], l.outList[:])
	}
	if !status.Ok() {
		return l.failed(in)
	}
	return size
}

// noRoom tells whether the answer in l.out is one that Config.MakeRoom may better.
func (l *loop) noRoom() bool {
	status := (*fuse.OutHeader)(unsafe.Pointer(&l.out.data[0])).Status
	return l.conn.cfg.MakeRoom != nil && (status == -int32(syscall.ENOSPC) || status == -int32(syscall.EDQUOT))
}

// makeRoom calls Config.MakeRoom, while another loop reads: room may be made by a FORGET that is still to be read.
func (l *loop) makeRoom(since time.Time) bool {
	if turn := l.turn.Load(); handling(turn) && l.turn.CompareAndSwap(turn, turn+1) {
		l.conn.handOver(l)
	}
	return l.conn.cfg.MakeRoom(since)
}

// failed puts the answer EIO into l.out and returns its size.
func (l *loop) failed(in *fuse.InHeader) int {
	if !wantsReply(in.Opcode) {
		return 0
	}
	out := (*fuse.OutHeader)(unsafe.Pointer(&l.out.data[0]))
	*out = fuse.OutHeader{Length: uint32(readHead), Status: -int32(syscall.EIO), Unique: in.Unique}
	return readHead
}

// replyRefused handles an error of writing a reply. ENOENT is normal: the request was withdrawn, by an interrupt or the
// unmount, before it was answered. After ENODEV the next read ends the loop. Any other reply the kernel threw away without
// ending the request, which would leave its caller waiting for good.
func (l *loop) replyRefused(in *fuse.InHeader, size int, errno syscall.Errno) {
	if errno == syscall.ENOENT || connectionOver(errno) {
		return
	}
	l.conn.cfg.Log.Error("the kernel refused a reply; the request failed with EIO",
		"request", opcodeName(in.Opcode), "bytes", size, "error", errno)
	if size := l.failed(in); size > 0 {
		if errno := writeTo(l.from, l.out.data[:size]); errno != 0 && !errors.Is(errno, syscall.ENOENT) {
			l.conn.cfg.Log.Error("the kernel refused the reply EIO as well", "request", opcodeName(in.Opcode), "error", errno)
		}
	}
}

// growOut makes room in l.out for the largest reply that the request can have. The size at first is enough for READ
// and WRITE; an ioctl or a directory may ask for more.
func (l *loop) growOut(in *fuse.InHeader) error {
	need := replyRoom(in)
	if need <= len(l.out.data) {
		return nil
	}
	bigger, err := newBuffer(need, readHead)
	if err != nil {
		return err
	}
	l.out.free()
	l.out = bigger
	return nil
}
