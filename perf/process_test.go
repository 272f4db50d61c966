package perf

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// startProcess runs a program as a client of its own; it is killed at the end of the test.
func startProcess(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Skipf("cannot run %s: %v", name, err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

func discardLog() *slog.Logger { return textLog(io.Discard) }

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// expectEnd waits for Serve to return after an unmount.
func (m *mounted) expectEnd(t testing.TB) {
	t.Helper()
	select {
	case err := <-m.end:
		if err != nil {
			t.Errorf("Serve returned %v after an unmount", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("Serve did not return within 5 s of the unmount; has another mount namespace a copy of the mount? make test sees to that")
	}
	m.end = nil
}

// processorTime returns what this process has used of the processors.
func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rerun runs the named test of this binary in a process of its own with further environment, and reports its failure.
func rerun(t *testing.T, test string, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+test+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s with %v: %v\n%s", test, env, err, out)
	}
}
