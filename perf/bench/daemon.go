package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is a FUSE server that runs in the foreground as a child of this process.
type Daemon struct {
	Pid    int
	cmd    *exec.Cmd
	output *tail
	gone   chan struct{} // closed when the process has ended and was waited for
}

var errDaemonEnded = errors.New("the program ended before it had mounted")

// endsWithin is how long a server may take to end by itself after its mount is gone.
const endsWithin = 5 * time.Second

// startDaemon starts a server and waits until its mount on target answers. When that fails, nothing is left of it.
func startDaemon(ctx context.Context, cmd *exec.Cmd, target string) (*Daemon, error) {
	parent, err := fileSystem(target)
	if err != nil {
		return nil, err
	}
	d := &Daemon{cmd: cmd, output: &tail{}, gone: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = d.output, d.output
	// A group of its own: an interrupt at the terminal is ours to act on. And no server outlives us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d.Pid = cmd.Process.Pid
	go func() {
		_ = cmd.Wait()
		close(d.gone)
	}()
	if err := awaitMount(ctx, target, parent, d.gone); err != nil {
		d.kill()
		_ = unix.Unmount(target, unix.MNT_DETACH)
		return nil, fmt.Errorf("%s: %w%s", cmd.Args[0], err, d.output.text())
	}
	return d, nil
}

// kill ends the server at once.
func (d *Daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.gone
}

// wait waits for the server to end by itself, which it should as soon as it is unmounted, and kills one that does not.
func (d *Daemon) wait() error {
	select {
	case <-d.gone:
		return nil
	case <-time.After(endsWithin):
		d.kill()
		return fmt.Errorf("%s (process %d) had to be killed after its unmount", d.cmd.Args[0], d.Pid)
	}
}

// CPU returns the processor time, user and system, that the server has taken so far, by all its threads.
func (d *Daemon) CPU() (time.Duration, error) {
	// The clock of another process, as clock_getcpuclockid(3) makes it: CPUCLOCK_SCHED is 2.
	clock := int32(^d.Pid)<<3 | 2
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("clock_gettime of process %d: %w", d.Pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Resident returns VmRSS, in bytes.
func (d *Daemon) Resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in the status of process %d", d.Pid)
}

// tail keeps the end of what a program writes, for an error message.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

const tailBytes = 1024

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.buf = t.buf[max(0, len(t.buf)-tailBytes):]
	return len(p), nil
}

// text returns the output on one line, with a colon before it; nothing if there was none.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	fields := bytes.Join(bytes.Fields(t.buf), []byte(" "))
	if len(fields) == 0 {
		return ""
	}
	return ": " + string(fields)
}

// runQuietly runs a command to its end and puts the end of its output into the error.
func runQuietly(cmd *exec.Cmd) error {
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w%s", cmd.Args[0], err, out.text())
	}
	return nil
}
