package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// program is the path of the real program, which every test here runs as a user would.
var program string

// patience bounds every wait for the program.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "unionfs-deep-cli-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "unionfs-deep")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	status := m.Run()
	if left := processes(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "processes are left: %v\n", left)
		status = 1
	}
	return status
}

// processes returns the ids of the running processes of the program.
func processes() []int {
	var ids []int
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && exe == program {
			id, _ := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			ids = append(ids, id)
		}
	}
	return ids
}

// result is how a run of the program ended.
type result struct {
	stdout, stderr string
	status         int
}

func run(t *testing.T, args ...string) result {
	t.Helper()
	return runCommand(t, exec.Command(program, args...))
}

// runAs runs the program under another name.
func runAs(t *testing.T, name string, args ...string) result {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Args[0] = name
	return runCommand(t, cmd)
}

func runCommand(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	err := cmd.Run() // returns once the pipes end, so a daemon that keeps them is found out
	if !timer.Stop() {
		t.Fatalf("%v has not ended, or something keeps its output open, after %v; stderr: %s", cmd.Args, patience, &stderr)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func (r result) wantStatus(t *testing.T, status int) result {
	t.Helper()
	if r.status != status {
		t.Fatalf("exit status %d, want %d\nstdout: %s\nstderr: %s", r.status, status, r.stdout, r.stderr)
	}
	return r
}

// wantOneLine checks that a failure was told in one line with all the words in it.
func (r result) wantOneLine(t *testing.T, words ...string) {
	t.Helper()
	if strings.Count(r.stderr, "\n") != 1 || !strings.HasSuffix(r.stderr, "\n") {
		t.Errorf("standard error is not one line:\n%s", r.stderr)
	}
	for _, word := range words {
		if !strings.Contains(r.stderr, word) {
			t.Errorf("standard error has no %q:\n%s", word, r.stderr)
		}
	}
}

// write makes files below dir: the keys are paths, the values contents.
func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// bed is what a test mounts: three layers, an upper and a work directory, and a place to mount.
type bed struct {
	dir, upper, work, target string
	lower                    []string // the topmost first
}

func newBed(t *testing.T) bed {
	t.Helper()
	dir := t.TempDir()
	b := bed{dir: dir, upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work"), target: filepath.Join(dir, "merged")}
	for _, d := range []string{b.upper, b.work, b.target} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, files := range []map[string]string{
		{"top": "0", "both": "0", "dir/0": "0"},
		{"both": "1", "dir/1": "1"},
		{"both": "2", "dir/2": "2", "bottom": "2"},
	} {
		b.lower = append(b.lower, write(t, filepath.Join(dir, fmt.Sprintf("lower%d", i)), files))
	}
	t.Cleanup(func() {
		for detach(b.target) == nil {
		}
		waitForEnd(t)
	})
	return b
}

// detach unmounts what a test may have left, in use or not.
func detach(target string) error {
	err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EPERM) {
		err = exec.Command("fusermount3", "-u", "-z", "--", target).Run()
	}
	return err
}

// deep makes layers that each hold a file of its own, and returns their paths, the topmost first, as a list for --layers-file.
func (b bed) deep(t *testing.T, layers int) string {
	t.Helper()
	var list strings.Builder
	for i := range layers {
		list.WriteString(write(t, filepath.Join(b.dir, "deep", strconv.Itoa(i)), map[string]string{"file" + strconv.Itoa(i): "x"}) + "\n")
	}
	return list.String()
}

func (b bed) lowerdir() string { return "lowerdir=" + strings.Join(b.lower, ":") }
func (b bed) writable() string { return b.lowerdir() + ",upperdir=" + b.upper + ",workdir=" + b.work }

// mount mounts by a route with the given flags and fails the test if that does not work.
func (b bed) mount(t *testing.T, route string, flags ...string) {
	t.Helper()
	run(t, append([]string{"mount", "--route", route}, append(flags, b.target)...)...).wantStatus(t, 0)
}

func (b bed) wantContent(t *testing.T, name, content string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(b.target, name))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != content {
		t.Errorf("%s holds %q, want %q", name, got, content)
	}
}

func (b bed) wantUnmounted(t *testing.T) {
	t.Helper()
	if entry, err := overlayfallback.MountAt(b.target); err == nil {
		t.Errorf("%s is mounted: %+v", b.target, entry)
	}
	entries, err := os.ReadDir(b.target)
	if err != nil || len(entries) > 0 {
		t.Errorf("the mount point is not empty as before: %v %v", entries, err)
	}
}

// waitForEnd waits until no process of the program is left.
func waitForEnd(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for len(processes()) > 0 {
		if time.Now().After(deadline) {
			t.Errorf("processes are left: %v", processes())
			for _, id := range processes() {
				unix.Kill(id, unix.SIGKILL)
			}
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// requireFUSE skips a test where FUSE cannot be mounted.
func requireFUSE(t *testing.T) {
	t.Helper()
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("FUSE cannot be mounted: %v", err)
	}
	dev.Close()
	if _, err := exec.LookPath("fusermount3"); err != nil && os.Geteuid() != 0 {
		t.Skip("FUSE cannot be mounted by this user: fusermount3 is not installed")
	}
}

// requireRoot skips a test of kernel mounts where this user may make none. Root of a user namespace will do.
func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, here or in a user namespace (see TestInUserNamespace): kernel overlayfs mounts")
	}
}

// requireInitialRoot skips a test of other users, or of trusted xattrs, which root of a user namespace does not have.
func requireInitialRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 || inUserNamespace(t) {
		t.Skip("needs root outside of any user namespace: other users, or trusted xattrs")
	}
}

func inUserNamespace(t *testing.T) bool {
	t.Helper()
	return overlayfallback.Probe(t.Context()).UserNamespace
}

// TestInUserNamespace runs all the tests again as root of a user namespace, where kernel overlayfs takes user.overlay.*
// xattrs. For an ordinary user that is the only way to the kernel's mounts.
func TestInUserNamespace(t *testing.T) {
	if inUserNamespace(t) {
		t.Skip("this is in a user namespace already")
	}
	if out, err := exec.Command("unshare", "-Urm", "true").CombinedOutput(); err != nil {
		t.Skipf("user namespaces are not to be had: %v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-Urm", "--kill-child", os.Args[0], "-test.v")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestMountReadWrite/overlay ") {
		t.Errorf("%v\n%s", err, out)
	}
}
