package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// readyFDVariable tells a daemon the descriptor on which its parent waits for one byte. It is set by startDaemon alone.
const readyFDVariable = "UNIONFS_DEEP_READY_FD"

// What a daemon says on that descriptor once the mount answers.
const (
	served byte = 's' // it stays to serve the mount
	done   byte = 'd' // the kernel serves the mount, and the process ends
)

// isDaemon reports whether this process was started by startDaemon.
func isDaemon() bool { return os.Getenv(readyFDVariable) != "" }

// startDaemon runs this command line again in a session of its own and returns when that process says that the mount
// answers. A Go program cannot fork, so everything from reading the layers on happens in the new process: it has our
// standard streams until it is ready, prints its own error, and its exit status becomes ours.
func startDaemon(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start the daemon: find this program: %w", err)
	}
	ours, theirs, err := readyPipe()
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	defer ours.Close()
	daemon := exec.CommandContext(ctx, self, os.Args[1:]...)
	daemon.Args[0] = os.Args[0] // which form of the command line this is depends on it
	daemon.Cancel = func() error { return daemon.Process.Signal(unix.SIGTERM) }
	daemon.Env = append(os.Environ(), fmt.Sprintf("%s=%d", readyFDVariable, theirs.Fd()))
	daemon.Stdin, daemon.Stdout, daemon.Stderr = os.Stdin, os.Stdout, os.Stderr
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = daemon.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	word := make([]byte, 1)
	n, _ := ours.Read(word)
	switch {
	case n == 0:
		return daemonFailure(daemon.Wait())
	case word[0] == done:
		return daemon.Wait()
	}
	return nil
}

// readyPipe makes the pipe with a writing end that the daemon inherits under its number here: a number that we chose
// might be that of a descriptor which the caller hands on, as for a mount at /dev/fd/N.
func readyPipe() (ours, theirs *os.File, err error) {
	if ours, theirs, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	if _, err := unix.FcntlInt(theirs.Fd(), unix.F_SETFD, 0); err != nil {
		return nil, nil, errors.Join(os.NewSyscallError("fcntl", err), ours.Close(), theirs.Close())
	}
	return ours, theirs, nil
}

// daemonFailure is the parent's error after its daemon ended without having been ready.
func daemonFailure(err error) error {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		return silentError(exit.ExitCode()) // it has said why
	case err == nil:
		return errors.New("the daemon ended before the mount was ready")
	}
	return fmt.Errorf("the daemon ended before the mount was ready: %w", err)
}

// adoptReadyPipe takes the pipe to the parent out of the environment and out of the reach of programs that we start.
func adoptReadyPipe() (*os.File, error) {
	fd, err := strconv.Atoi(os.Getenv(readyFDVariable))
	if err != nil {
		return nil, fmt.Errorf("%s is for this program's own use: %w", readyFDVariable, err)
	}
	os.Unsetenv(readyFDVariable)
	// It names the socket of a service whose main process we are not, such as Podman's, and is not ours to speak on.
	os.Unsetenv("NOTIFY_SOCKET")
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "ready"), nil
}

// reportReady lets go of the caller's standard streams and then tells the parent to return. The order matters: a caller
// that reads our output to its end would otherwise wait for as long as the mount lives. An error means that the parent
// is gone, so that nobody knows of this mount.
func reportReady(ready *os.File, word byte) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	if _, err := ready.Write([]byte{word}); err != nil {
		return fmt.Errorf("the caller is gone: %w", err)
	}
	return ready.Close()
}
