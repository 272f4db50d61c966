package perf

import (
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// defaultMaxWrite is go-fuse's own default for MountOptions.MaxWrite, in bytes.
const defaultMaxWrite = 128 << 10

// cancelEvery is how often the requests that are still in flight after an unmount are told so again.
const cancelEvery = 10 * time.Millisecond

// Config is what a Conn needs besides go-fuse's own options. The zero value is usable.
type Config struct {
	// ThreadInit runs once on each OS thread that serves requests, before it serves the first. The thread serves
	// nothing else and ends with the loop, so its umask, its credentials and, after unshare(CLONE_FS), its working
	// directory are the file system's own. An error on the first thread ends Serve; on a later one it is logged and the
	// Conn makes do with the threads that it has.
	ThreadInit func() error
	// MakeRoom is called where a request has failed for want of room (ENOSPC, EDQUOT), with the time since when it was handled. True
	// says that room has been made after that: the request is handled once more. It must have changed nothing by failing. nil means
	// that none is made.
	MakeRoom func(since time.Time) bool
	// MaxLoops bounds the threads that handle requests, and so the number of slow requests that are handled at once.
	// Beyond it requests wait in the kernel until a handler returns. 0 means 512.
	//
	// An INTERRUPT waits with them, so that none of MaxLoops slow requests can be broken off while all are handled. A loop
	// that reads for this alone is not possible: the kernel gives INTERRUPT out first, but who reads when there is none
	// gets another request, which it cannot give back.
	MaxLoops int
	// Log gets what no caller can be told: panics, refused replies, threads that could not be made. nil means
	// slog.Default().
	Log *slog.Logger
}

// Conn serves one FUSE connection: it reads requests from a mounted /dev/fuse descriptor, has them handled by go-fuse's
// fuse.ProtocolServer, and answers. See the package comment for how.
type Conn struct {
	dev      device
	fs       fuse.RawFileSystem
	protocol *fuse.ProtocolServer
	maxWrite int
	cfg      Config
	counters Counters
	crew     crew
	pace     pace
	door     door

	processors []int32 // those that the process may use
	pursuit    pursuit

	ready      chan struct{}
	inited     sync.Once
	negotiated atomic.Uint64
	serving    atomic.Bool
}

// NewConn prepares to serve dev, a descriptor of /dev/fuse that has been named in a mount, with fs. dev stays the
// caller's, who may close it as soon as NewConn has returned: the Conn holds a descriptor of its own until Serve ends.
// opts is copied; go-fuse's mount options in it are not used. fs.Init is called with a nil server, since the Conn's own
// methods take the place of the server's; it may use them, and Negotiated, and no request is read before it returns.
func NewConn(dev *os.File, fs fuse.RawFileSystem, opts *fuse.MountOptions, cfg Config) (*Conn, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.MaxLoops <= 0 {
		cfg.MaxLoops = defaultMaxLoops
	}
	own, err := openDevice(dev)
	if err != nil {
		return nil, err
	}
	c := &Conn{dev: own, fs: fs, cfg: cfg, ready: make(chan struct{})}
	c.crew.init()
	c.processors = usableProcessors()
	o := c.protocolOptions(opts)
	c.maxWrite = o.MaxWrite
	c.protocol = fuse.NewProtocolServer(fs, &o)
	return c, nil
}

func (c *Conn) protocolOptions(opts *fuse.MountOptions) fuse.MountOptions {
	var o fuse.MountOptions
	if opts != nil {
		o = *opts
	}
	if o.MaxWrite <= 0 {
		o.MaxWrite = defaultMaxWrite
	}
	if o.Logger == nil {
		o.Logger = slog.NewLogLogger(c.cfg.Log.Handler(), slog.LevelWarn)
	}
	if o.PanicHandler == nil {
		o.PanicHandler = func(v any) fuse.Status {
			c.logPanic(v)
			return fuse.EIO
		}
	}
	return o
}

func (c *Conn) logPanic(v any) {
	c.counters.panics.Add(1)
	c.cfg.Log.Error("a request handler panicked; the request failed with EIO", "panic", v, "stack", string(debug.Stack()))
}

// Serve handles requests until the file system is unmounted or the connection aborted. It returns when every handler has
// returned (those still at work are cancelled as by an interrupt) and fs.OnUnmount has been called. The error is nil
// after an unmount. Serve may be called once.
func (c *Conn) Serve() error {
	if !c.serving.CompareAndSwap(false, true) {
		return fmt.Errorf("serve FUSE connection: already served")
	}
	var monitor sync.WaitGroup
	monitor.Go(c.watchReaders)
	c.handOver(nil)
	<-c.crew.ended
	c.cancelInFlight()
	monitor.Wait()
	c.fs.OnUnmount()
	if err := c.closeDevice(); err != nil {
		c.cfg.Log.Warn("close the FUSE descriptor", "error", err)
	}
	return c.crew.err
}

// cancelInFlight closes the cancel channel of each request still being handled until all loops have ended. It repeats
// itself because a request that was read and not yet entered in the ProtocolServer cannot be cancelled.
func (c *Conn) cancelInFlight() {
	done := make(chan struct{})
	go func() {
		c.crew.running.Wait()
		close(done)
	}()
	for {
		for _, unique := range c.crew.inFlight() {
			c.interrupt(unique)
		}
		select {
		case <-done:
			return
		case <-time.After(cancelEvery):
		}
	}
}

// interrupt does what an INTERRUPT request for unique would do.
func (c *Conn) interrupt(unique uint64) {
	const size = unsafe.Sizeof(fuse.InterruptIn{})
	in := fuse.InterruptIn{Unique: unique}
	in.Length, in.Opcode = uint32(size), opInterrupt
	msg := (*[size]byte)(unsafe.Pointer(&in))[:]
	// An answer would say that the request is not known any more, which is as well.
	c.protocol.HandleRequest([][]byte{msg}, [][]byte{make([]byte, readHead)})
}

// initDone is called with the body of the answer to INIT once it has been sent.
func (c *Conn) initDone(out *fuse.InitOut) {
	c.inited.Do(func() {
		defer close(c.ready)
		defer func() {
			if v := recover(); v != nil {
				c.logPanic(v)
			}
		}()
		c.negotiated.Store(out.Flags64())
		c.fs.Init(nil)
	})
}

// Ready is closed when INIT has been answered, that is, when requests of programs are served.
func (c *Conn) Ready() <-chan struct{} { return c.ready }

// Negotiated returns the capability flags in force (fuse.CAP_*), 0 before Ready is closed.
func (c *Conn) Negotiated() uint64 { return c.negotiated.Load() }

// Counters returns what was served so far. It can be read at any time, also after Serve.
func (c *Conn) Counters() *Counters { return &c.counters }

// connectionOver tells an unmount from a failure: ENODEV is the kernel's word for the former, ECONNABORTED for a
// connection that was aborted through /sys/fs/fuse.
func connectionOver(errno syscall.Errno) bool {
	return errno == syscall.ENODEV || errno == syscall.ECONNABORTED
}
