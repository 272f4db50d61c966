package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// daemonOf returns the id of the one process of the program that runs.
func daemonOf(t *testing.T) int {
	t.Helper()
	ids := processes()
	if len(ids) != 1 {
		t.Fatalf("processes %v, want one daemon", ids)
	}
	return ids[0]
}

// foreground mounts in the foreground and returns, once the mount answers, the running command and the socket on which it
// tells systemd how it fares. The mount is listed a moment earlier, when a signal would still make the mounting fail.
func foreground(t *testing.T, b bed, args ...string) (*exec.Cmd, *net.UnixConn) {
	t.Helper()
	address := filepath.Join(b.dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	socket.SetReadDeadline(time.Now().Add(patience))
	cmd := exec.Command(program, append(args, b.target)...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if got := told(t, socket); got != "READY=1" {
		cmd.Process.Kill()
		t.Fatalf("%v: systemd was told %q", cmd.Args, got)
	}
	return cmd, socket
}

// told returns the next message to systemd.
func told(t *testing.T, socket *net.UnixConn) string {
	t.Helper()
	message := make([]byte, 100)
	n, err := socket.Read(message)
	if err != nil {
		t.Error(err)
	}
	return string(message[:n])
}

func TestDaemonStandsOnItsOwn(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	b.mount(t, "fuse", "-o", b.lowerdir())
	pid := daemonOf(t)
	session, err := unix.Getsid(pid)
	if err != nil || session != pid {
		t.Errorf("session %d, %v; want its own", session, err)
	}
	for fd := range 3 {
		link := filepath.Join("/proc", itoa(pid), "fd", itoa(fd))
		if to, err := os.Readlink(link); err != nil || to != os.DevNull {
			t.Errorf("descriptor %d is %s, %v; want %s", fd, to, err, os.DevNull)
		}
	}
	environment, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "status"))
	if err != nil || !strings.Contains(string(environment), "Umask:\t0000\n") {
		t.Errorf("the daemon has a umask: %v", err)
	}
}

func TestDaemonEndsOnSignals(t *testing.T) {
	requireFUSE(t)
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			b := newBed(t)
			b.mount(t, "fuse", "-o", b.writable())
			if err := os.WriteFile(filepath.Join(b.target, "new"), []byte("new"), 0o600); err != nil {
				t.Fatal(err)
			}
			unix.Kill(daemonOf(t), signal)
			waitForEnd(t)
			b.wantUnmounted(t)
			if got, err := os.ReadFile(filepath.Join(b.upper, "new")); string(got) != "new" {
				t.Errorf("the upper directory holds %q, %v", got, err)
			}
		})
	}
}

func TestDaemonInUseServesOpenFilesAfterASignal(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	b.mount(t, "fuse", "-o", b.lowerdir())
	file, err := os.Open(filepath.Join(b.target, "top"))
	if err != nil {
		t.Fatal(err)
	}
	unix.Kill(daemonOf(t), unix.SIGTERM)
	deadline := time.Now().Add(patience)
	for err := error(nil); err == nil; _, err = overlayfallback.MountAt(b.target) {
		if time.Now().After(deadline) {
			t.Fatal("still mounted")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if content, err := io.ReadAll(file); string(content) != "0" {
		t.Errorf("the open file holds %q, %v", content, err)
	}
	file.Close()
	waitForEnd(t)
}

func TestDaemonLogsCountersOnSIGUSR1(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	log := filepath.Join(b.dir, "log")
	b.mount(t, "fuse", "--log-file", log, "--log-format", "json", "-o", b.lowerdir()+",fastpath=off")
	b.wantContent(t, "top", "0")
	unix.Kill(daemonOf(t), unix.SIGUSR1)
	deadline := time.Now().Add(patience)
	for {
		content, _ := os.ReadFile(log)
		if strings.Contains(string(content), "LOOKUP") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log has no counters: %s", content)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestNobodyWaitsNoMountStays kills the command while its daemon is about to mount.
func TestNobodyWaitsNoMountStays(t *testing.T) {
	requireFUSE(t)
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			b := newBed(t)
			cmd := exec.Command(program, "mount", "--route", "fuse", "--layers-file", "-", b.target)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			waitForProcesses(t, 2) // the daemon waits for its layers
			cmd.Process.Signal(signal)
			if signal == unix.SIGKILL {
				cmd.Process.Wait()
				io.WriteString(stdin, strings.Join(b.lower, "\n"))
			}
			stdin.Close()
			cmd.Wait()
			waitForEnd(t)
			b.wantUnmounted(t)
		})
	}
}

func waitForProcesses(t *testing.T, n int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for len(processes()) < n {
		if time.Now().After(deadline) {
			t.Fatalf("processes %v, want %d", processes(), n)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestForegroundEndsWithTheMount(t *testing.T) {
	forEachRoute(t, func(t *testing.T, route string) {
		b := newBed(t)
		cmd, _ := foreground(t, b, "mount", "--foreground", "--route", route, "-o", b.lowerdir())
		b.wantContent(t, "top", "0")
		run(t, "umount", b.target).wantStatus(t, 0)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestForegroundOfTheDropInForm(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	cmd, _ := foreground(t, b, "-f", "-o", b.lowerdir())
	cmd.Process.Signal(unix.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	b.wantUnmounted(t)
}

func TestForegroundTellsSystemd(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	cmd, socket := foreground(t, b, "mount", "-f", "--route", "fuse", "-o", b.lowerdir())
	cmd.Process.Signal(unix.SIGTERM)
	if got := told(t, socket); got != "STOPPING=1" {
		t.Errorf("systemd was told %q at the end", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// freeAddress is one on which nobody listens for the moment.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func TestMetrics(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	address := freeAddress(t)
	b.mount(t, "fuse", "--metrics", address, "-o", b.lowerdir()+",fastpath=off")
	b.wantContent(t, "top", "0")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	found := false
	lines := bufio.NewScanner(reply.Body)
	for lines.Scan() {
		found = found || strings.HasPrefix(lines.Text(), `unionfs_requests_total{kind="LOOKUP"}`)
	}
	if !found {
		t.Error("the metrics do not count LOOKUP requests")
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestSideDoorsOfSuccessor mounts one union after another, which gets its device number, while the daemon of the first has not synced
// everything yet: inspect and the metrics are the second one's.
func TestSideDoorsOfSuccessor(t *testing.T) {
	requireFUSE(t)
	requireRoot(t)
	address := freeAddress(t)
	first, second := newBed(t), newBed(t)
	first.mount(t, "fuse", "--metrics", address, "-o", first.writable())
	slowSync(t, processes()[0])
	before, err := overlayfallback.MountAt(first.target)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(first.target, 0); err != nil {
		t.Fatal(err)
	}
	second.mount(t, "fuse", "--metrics", address, "-o", second.writable())
	if after, err := overlayfallback.MountAt(second.target); err != nil || after.Device != before.Device {
		// Tests of other packages mount at the same time. The address of the metrics is the same in any case.
		t.Logf("the second union has the device number %s and not %s: %v", after.Device, before.Device, err)
	}
	if len(processes()) != 2 {
		t.Errorf("processes %v, want both daemons", processes())
	}
	if found := inspectJSON(t, second.target); found.MountPoint != second.target {
		t.Errorf("inspect says %q of %q", found.MountPoint, second.target)
	}
}

// slowSync has each syncfs(2) of a process take 3 seconds longer.
func slowSync(t *testing.T, pid int) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace, which makes syncs slow, is not installed")
	}
	cmd := exec.Command(strace, "-f", "-o", os.DevNull, "-e", "trace=syncfs", "-e", "inject=syncfs:delay_enter=3000000", "-p", strconv.Itoa(pid))
	told, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It ends with the process. After a failure that goes on, being mounted still, and is let go of.
	t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		cmd.Wait()
	})
	lines := bufio.NewScanner(told)
	if !lines.Scan() || !strings.Contains(lines.Text(), "attached") {
		t.Fatalf("strace says %q: %v", lines.Text(), lines.Err())
	}
	go func() {
		for lines.Scan() {
		}
	}()
}
