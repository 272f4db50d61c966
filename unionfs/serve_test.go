package unionfs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
)

// The unions of these tests are served by another process, as they are in life: this test binary, started again. So a union
// that hangs does not hang the test, the server's descriptors and memory can be counted, and with -race its races are found.

// serveEnv carries a job to the test binary when it runs as a server.
const serveEnv = "UNIONFS_TEST_SERVE"

// job is what a server is to mount.
type job struct {
	Options Options
	Target  string
	Files   uint64 // RLIMIT_NOFILE, 0 to leave it
	User    int    // user and group that serves the union, 0 for root
	Park    bool   // no nameless inode is kept open where it can be parked
}

// parkAll is Park of all jobs, for a test that runs others.
var parkAll bool

func TestMain(m *testing.M) {
	text, serving := os.LookupEnv(serveEnv)
	if !serving {
		os.Exit(m.Run())
	}
	if err := serve(text); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve mounts the job and answers a line for each line of standard input, at the end of which it unmounts.
func serve(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	if j.Files != 0 {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: j.Files, Max: j.Files}); err != nil {
			return err
		}
	}
	j.Options.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	dev, err := mountDevice(&j)
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := becomeUser(j.User); err != nil {
		return err
	}
	f, err := New(j.Options)
	if err != nil {
		return err
	}
	if j.Park {
		f.maxPins = 0
	}
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(dev) }()
	select {
	case <-f.Ready():
	case err := <-ended:
		return fmt.Errorf("ended before it was ready: %v", err)
	case <-time.After(20 * time.Second):
		return errors.New("not ready in time")
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(f.command(in.Text()))
	}
	if err := unix.Unmount(j.Target, 0); err != nil && j.User == 0 && err != unix.EINVAL { // EINVAL: somebody else has done it
		return fmt.Errorf("unmount: %w", err)
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return f.Close()
}

// mountDevice mounts a connection that is not served yet.
func mountDevice(j *job) (*os.File, error) {
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions,allow_other", dev.Fd(), j.User, j.User)
	flags := uintptr(0)
	if j.Options.Upper == "" || j.Options.ReadOnly {
		flags = unix.MS_RDONLY
	}
	if err := unix.Mount("test", j.Target, "fuse.unionfs-deep", flags, options); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	return dev, nil
}

// becomeUser gives up root on all threads.
func becomeUser(id int) error {
	if id == 0 {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id))
}

// serverState is what a server says of itself.
type serverState struct {
	Nodes, Descriptors, Cached, Handles int
	CopyUps                             uint64
	HeapMB                              float64
}

// command does what the test has asked for.
func (f *FS) command(line string) string {
	word, arg, _ := strings.Cut(line, " ")
	switch word {
	case "state":
		b, _ := json.Marshal(f.state())
		return string(b)
	case "damage":
		return f.damage(arg)
	}
	return "unknown command"
}

func (f *FS) state() serverState {
	f.helper.settle() // what waits to be closed is not held
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, _ := os.ReadDir("/proc/self/fd")
	f.tree.RLock()
	defer f.tree.RUnlock()
	return serverState{
		Nodes: len(f.nodes), Descriptors: len(fds), Cached: f.stack.Cache.Len(), Handles: len(f.handles.byID),
		CopyUps: f.copyUps.Load(), HeapMB: float64(m.HeapAlloc) / (1 << 20),
	}
}

// damage takes from the node of a name in the root directory what its handlers need, so that they panic.
func (f *FS) damage(name string) string {
	n, err := f.child(f.root, name)
	if err != nil {
		return err.Error()
	}
	f.tree.Lock()
	n.lower = nil
	f.tree.Unlock()
	f.stack.Cache.Drop(dataKey(n, false))
	return "done"
}

// served is a union that another process serves.
type served struct {
	t    testing.TB
	root string
	user int
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	log  *logBuffer
	wait func() error // waits for the process, any number of times
	done bool
}

// logBuffer is what a server has written to standard error.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// mountTime bounds how long a mount of a test lives: then its connection is aborted, and whoever hangs in it goes on.
const mountTime = 60 * time.Second

// needFUSE skips a test that cannot mount.
func needFUSE(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts, which takes root (or unshare -Urm)")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("mounts by FUSE: %v", err)
	}
}

// mount serves a union for the time of the test.
func mount(t testing.TB, o Options) *served {
	t.Helper()
	m, err := tryMount(t, job{Options: o})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tryMount(t testing.TB, j job) (*served, error) {
	t.Helper()
	needFUSE(t)
	if j.Target == "" {
		j.Target = t.TempDir()
	}
	j.Park = parkAll
	if j.Options.Timeout == 0 {
		j.Options.Timeout = Forever
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	m := &served{t: t, root: j.Target, user: j.User, cmd: exec.Command("/proc/self/exe"), log: &logBuffer{}}
	m.cmd.Env = append(os.Environ(), serveEnv+"="+string(text))
	m.cmd.Stderr = m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.out = bufio.NewReader(out)
	runtime.LockOSThread() // Pdeathsig is about the thread that forks
	err = m.cmd.Start()
	runtime.UnlockOSThread()
	if err != nil {
		return nil, err
	}
	m.wait = sync.OnceValue(m.cmd.Wait)
	line, err := m.out.ReadString('\n')
	if line != "ready\n" {
		m.cmd.Process.Kill()
		m.wait()
		unix.Unmount(m.root, unix.MNT_DETACH)
		return nil, fmt.Errorf("%s%v %s", line, err, m.log)
	}
	timer := time.AfterFunc(mountTime, func() {
		t.Errorf("the mount lived longer than %v: aborted", mountTime)
		m.abort()
	})
	t.Cleanup(func() { timer.Stop(); m.unmount() })
	return m, nil
}

// ask has the server do something and returns its answer.
func (m *served) ask(command string) string {
	m.t.Helper()
	fmt.Fprintln(m.in, command)
	line, err := m.out.ReadString('\n')
	if err != nil {
		m.t.Fatalf("the server does not answer: %v\n%s", err, m.log)
	}
	return strings.TrimSpace(line)
}

func (m *served) state() (s serverState) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.ask("state")), &s); err != nil {
		m.t.Fatal(err)
	}
	return s
}

// unmount ends the server and fails the test where it ends badly.
func (m *served) unmount() {
	m.t.Helper()
	if m.done {
		return
	}
	m.done = true
	if m.user != 0 { // who may not unmount by itself
		unix.Unmount(m.root, 0)
	}
	m.in.Close()
	timer := time.AfterFunc(20*time.Second, m.abort)
	said, _ := io.ReadAll(m.out)
	err := m.wait()
	if !timer.Stop() {
		err = fmt.Errorf("unmounting took too long: %w", err)
	}
	if err != nil {
		m.abort()
		m.t.Errorf("server: %v: %s\n%s", err, said, m.log)
	}
}

// abort ends the mount by force.
func (m *served) abort() {
	abortConnection(m.root)
	unix.Unmount(m.root, unix.MNT_DETACH)
	m.cmd.Process.Kill()
}

// kill kills the server, as a crash does, and takes the dead mount away.
func (m *served) kill() {
	m.done = true
	m.cmd.Process.Kill()
	m.wait()
	unix.Unmount(m.root, unix.MNT_DETACH)
}

// abortConnection aborts the FUSE connection of a mount, so that nobody hangs in it any longer.
func abortConnection(at string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[4] != at {
			continue
		}
		_, minor, _ := strings.Cut(fields[2], ":")
		os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0)
	}
}

// p is a path in the union.
func (m *served) p(elem ...string) string {
	return filepath.Join(append([]string{m.root}, elem...)...)
}

// dirs are the directories of a union on a file system of its own or the machine's.
type dirs struct{ lower, upper, work string }

// makeDirs makes directories for a union below base, or in a new directory where that is empty.
func makeDirs(t testing.TB, base string) dirs {
	t.Helper()
	if base == "" {
		base = t.TempDir()
	}
	d := dirs{base + "/lower", base + "/upper", base + "/work"}
	for _, dir := range []string{d.lower, d.upper, d.work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// options are o with the directories as layers, without what a user namespace does not allow.
func (d dirs) options(o Options) Options {
	o.Lower, o.Upper, o.Work = []string{d.lower}, d.upper, d.work
	if inUserNamespace() {
		o.UserXattr, o.Metacopy = true, false
	}
	return o
}

// inUserNamespace reports whether root is not the machine's.
func inUserNamespace() bool { return newOwnerCheck().partial }

// noLeftovers fails the test where something is left in the work directory but what the kernel leaves there as well: the
// whiteout of which all others are links, and the mark of a volatile mount.
func (d dirs) noLeftovers(t testing.TB) {
	t.Helper()
	entries, err := os.ReadDir(d.work + "/work")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type()&os.ModeCharDevice == 0 && e.Name() != "incompat" {
			t.Errorf("%s is left in the work directory", e.Name())
		}
	}
}

// smallDisk mounts a tmpfs of a size for the time of the test.
func smallDisk(t testing.TB, options string) string {
	t.Helper()
	needFUSE(t)
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, options); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// dropCaches makes the kernel forget the names and inodes that nobody uses.
func dropCaches(t testing.TB) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		t.Skipf("caches cannot be dropped: %v", err)
	}
}

// eventually waits until a condition holds.
func eventually(condition func() bool) bool {
	for range 200 {
		if condition() {
			return true
		}
		time.Sleep(25 * time.Millisecond)
	}
	return false
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// eachProfile runs a test in each way of serving.
func eachProfile(t *testing.T, f func(t *testing.T, o Options)) {
	for _, p := range []perf.Profile{perf.Off, perf.Cache, perf.Passthrough} {
		t.Run(string(p), func(t *testing.T) { f(t, Options{Fastpath: p}) })
	}
}

// fingerprint describes a tree: a line a path with mode, size, times, xattrs' names and contents.
func fingerprint(t testing.TB, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		list := make([]byte, 4096)
		n, _ := unix.Llistxattr(path, list)
		fmt.Fprintf(&b, "%s %o %d %d %d %v %v %q", strings.TrimPrefix(path, root), st.Mode, st.Size, st.Nlink, st.Rdev, st.Mtim, st.Ctim, list[:max(n, 0)])
		if e.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", data)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
