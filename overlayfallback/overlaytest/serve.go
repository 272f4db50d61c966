package overlaytest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// serveEnv carries a [job] to the test binary when it runs as a server.
const serveEnv = "OVERLAYTEST_SERVE"

// job is what a serving process is to mount.
type job struct {
	Route  Route
	Layout Layout
	Target string
}

// Main is to be called from TestMain: it runs the tests, or serves one mount when the test binary was started again for that.
func Main(m *testing.M) {
	text, serving := os.LookupEnv(serveEnv)
	if !serving {
		os.Exit(m.Run())
	}
	if err := serve(text); err != nil {
		fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
	os.Exit(0)
}

// serve mounts the job, says "mounted" on standard output, and serves until standard input ends (then it unmounts) or
// somebody else unmounts.
func serve(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	p, err := mountProduct(ctx, j)
	if err != nil {
		return err
	}
	fmt.Println("mounted")
	asked := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(asked)
	}()
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	select {
	case <-asked:
		ctx, cancel := context.WithTimeout(context.Background(), unmountTime)
		defer cancel()
		return unmountIdle(ctx, p)
	case err := <-ended:
		return err
	}
}

// unmountIdle unmounts, waiting a little where the mount is busy: a process that is just being started holds the test's
// descriptors until it runs its program.
func unmountIdle(ctx context.Context, p *overlayfallback.Mounted) error {
	return whileBusy(func() error { return p.Unmount(ctx) })
}

// server is a process that serves one mount. It ends when its standard input does, so it cannot outlive the test.
type server struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr strings.Builder
	wait   func() error // waits for the process, any number of times
}

// startServer starts a server and waits until its mount answers.
func startServer(r Route, l Layout, target string) (*server, error) {
	text, err := json.Marshal(job{r, l, target})
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{cmd: exec.Command(self)}
	s.cmd.Env = append(os.Environ(), serveEnv+"="+string(text))
	s.cmd.Stderr = &s.stderr
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.stdout = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.wait = sync.OnceValue(s.cmd.Wait)
	return s, s.ready()
}

// ready waits for the server's word that it has mounted.
func (s *server) ready() error {
	timer := time.AfterFunc(startTime, func() { s.cmd.Process.Kill() })
	defer timer.Stop()
	line, err := s.stdout.ReadString('\n')
	if line == "mounted\n" {
		return nil
	}
	s.kill()
	if line == "" {
		return fmt.Errorf("the server said nothing (%v): %s", err, s.stderr.String())
	}
	return errors.New(strings.TrimSpace(line))
}

// stop makes the server unmount and waits for its end.
func (s *server) stop() error {
	s.stdin.Close()
	line, _ := io.ReadAll(s.stdout)
	if err := s.wait(); err != nil {
		return fmt.Errorf("server: %w: %s%s", err, line, tail(s.stderr.String()))
	}
	return nil
}

// kill kills the server and waits for its end.
func (s *server) kill() {
	s.cmd.Process.Kill()
	s.wait()
}

// tail returns the last part of a log, enough to see a panic's cause.
func tail(log string) string {
	if len(log) > 4000 {
		return "…" + log[len(log)-4000:]
	}
	return log
}
