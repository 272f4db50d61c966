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
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// foreground mounts in the foreground and returns the running command once the mount answers.
func foreground(t *testing.T, b bed, environment []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, append(args, b.target)...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for {
		if _, err := mountAt(b.target); err == nil {
			return cmd
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			t.Fatalf("%v: not mounted after %v", cmd.Args, patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
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
	for err := error(nil); err == nil; _, err = mountAt(b.target) {
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
		cmd := foreground(t, b, nil, "mount", "--foreground", "--route", route, "-o", b.lowerdir())
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
	cmd := foreground(t, b, nil, "-f", "-o", b.lowerdir())
	cmd.Process.Signal(unix.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	b.wantUnmounted(t)
}

func TestForegroundTellsSystemd(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	address := filepath.Join(b.dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	socket.SetReadDeadline(time.Now().Add(patience))
	cmd := foreground(t, b, []string{"NOTIFY_SOCKET=" + address}, "mount", "-f", "--route", "fuse", "-o", b.lowerdir())
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		message := make([]byte, 100)
		n, err := socket.Read(message)
		if err != nil || string(message[:n]) != want {
			t.Errorf("systemd was told %q, %v; want %q", message[:n], err, want)
		}
		cmd.Process.Signal(unix.SIGTERM)
	}
	cmd.Wait()
}

func TestMetrics(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String() // free again in a moment
	listener.Close()
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
