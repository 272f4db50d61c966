package unionfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stressEnv tells the test binary to work on a union: SEED:OPERATIONS:ROOT.
const stressEnv = "UNIONFS_TEST_STRESS"

func init() {
	text, working := os.LookupEnv(stressEnv)
	if !working {
		return
	}
	var seed uint64
	var count int
	var root string
	if _, err := fmt.Sscanf(strings.ReplaceAll(text, ":", " "), "%d %d %s", &seed, &count, &root); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := stress(root, seed, count); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// stress works at random on names that all workers share, and by plan on a directory of its own. Of the former any outcome is
// right that the file system allows, but no other; the latter must end as planned.
func stress(root string, seed uint64, count int) error {
	random := rand.New(rand.NewPCG(seed, 3))
	own := filepath.Join(root, fmt.Sprint("own", seed))
	plan := map[string]string{} // what own is to hold
	if err := os.Mkdir(own, 0o755); err != nil {
		return err
	}
	for i := range count {
		if err := sharedStep(root, random); err != nil {
			return fmt.Errorf("worker %d, step %d: %w", seed, i, err)
		}
		if err := ownStep(own, random, plan); err != nil {
			return fmt.Errorf("worker %d, step %d: %w", seed, i, err)
		}
	}
	return comparePlan(own, plan)
}

// allowed are the errors that others' work on shared names explains.
var allowed = []error{unix.ENOENT, unix.EEXIST, unix.ENOTEMPTY, unix.EISDIR, unix.ENOTDIR, unix.EXDEV, unix.ELOOP, unix.EINVAL, unix.EBUSY}

func sharedStep(root string, random *rand.Rand) error {
	name := func() string {
		return filepath.Join(root, "shared", string(rune('a'+random.IntN(4))), string(rune('a'+random.IntN(4))))
	}
	var err error
	switch random.IntN(10) {
	case 0:
		err = os.WriteFile(name(), []byte("content"), 0o644)
	case 1:
		err = os.Remove(name())
	case 2:
		err = os.Rename(name(), name())
	case 3:
		err = os.Mkdir(name(), 0o755)
	case 4:
		if err = os.Link(name(), name()); errors.Is(err, unix.EPERM) {
			err = nil // of a directory
		}
	case 5:
		err = os.Rename(filepath.Dir(name()), filepath.Dir(name()))
	case 6:
		err = unix.Renameat2(unix.AT_FDCWD, name(), unix.AT_FDCWD, name(), unix.RENAME_EXCHANGE)
	case 7:
		var entries []os.DirEntry
		if entries, err = os.ReadDir(filepath.Dir(name())); err == nil {
			err = twice(entries)
		}
	case 8:
		err = os.Chmod(name(), 0o600)
	case 9:
		err = readShared(name())
	}
	for _, ok := range allowed {
		if errors.Is(err, ok) {
			return nil
		}
	}
	return err
}

// twice fails where a listing has a name more than once.
func twice(entries []os.DirEntry) error {
	for i := 1; i < len(entries); i++ {
		if entries[i].Name() == entries[i-1].Name() {
			return fmt.Errorf("%s is listed twice", entries[i].Name())
		}
	}
	return nil
}

// readShared reads a file that others write: it holds what they write, or a part while that is written. One that is cut off and
// written again meanwhile may show zeros, from the page that was read in between.
func readShared(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if s := string(b); s != "lower content" && !strings.HasPrefix("content", s) && strings.Trim(s, "\x00") != "" {
		return fmt.Errorf("%s holds %q", path, s)
	}
	return nil
}

// ownStep does one thing in a directory that nobody else uses. It must succeed.
func ownStep(own string, random *rand.Rand, plan map[string]string) error {
	name := fmt.Sprint("f", random.IntN(15))
	path := filepath.Join(own, name)
	old, exists := plan[name]
	switch random.IntN(6) {
	case 0, 1:
		plan[name] = fmt.Sprint("content ", random.IntN(1e6))
		return os.WriteFile(path, []byte(plan[name]), 0o644)
	case 2:
		if !exists {
			return nil
		}
		delete(plan, name)
		return os.Remove(path)
	case 3:
		if !exists {
			return nil
		}
		delete(plan, name)
		to := fmt.Sprint("f", random.IntN(15))
		plan[to] = old
		return os.Rename(path, filepath.Join(own, to))
	case 4:
		if !exists {
			return nil
		}
		plan[name] = old + "+"
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("+")
		return errors.Join(err, f.Close())
	}
	b, err := os.ReadFile(path)
	if exists != (err == nil) || string(b) != old {
		return fmt.Errorf("%s holds %q (%v), not %q", name, b, err, old)
	}
	return nil
}

func comparePlan(own string, plan map[string]string) error {
	entries, err := os.ReadDir(own)
	if err != nil || len(entries) != len(plan) {
		return fmt.Errorf("%d names instead of %d: %w", len(entries), len(plan), err)
	}
	for name, want := range plan {
		if b, err := os.ReadFile(filepath.Join(own, name)); err != nil || string(b) != want {
			return fmt.Errorf("%s holds %q (%v), not %q", name, b, err, want)
		}
	}
	return nil
}

// Processes work on the same directories at once. None sees an error that is not the others' doing, all ends as each has
// planned it, and the union shows what its layers hold: the same as when they are mounted again, and by the kernel.
func TestStress(t *testing.T) {
	eachProfile(t, func(t *testing.T, o Options) {
		for _, redirect := range []string{RedirectOff, RedirectOn} {
			if redirect == RedirectOn && inUserNamespace() {
				continue
			}
			o.RedirectDir = redirect
			o.Index = redirect == RedirectOn
			stressed(t, o)
		}
	})
}

func stressed(t *testing.T, o Options) {
	needFUSE(t)
	workers, count := 4, 150
	if testing.Short() {
		count = 50
	}
	d := makeDirs(t, "")
	for _, dir := range []string{"a", "b", "c"} {
		for _, name := range []string{"a", "c"} {
			write(t, d.lower+"/shared/"+dir+"/"+name, "lower content")
		}
		os.Mkdir(d.lower+"/shared/"+dir+"/d", 0o755)
	}
	m := mount(t, d.options(o))
	before := m.state()
	var running []*exec.Cmd
	for w := range workers {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d:%d:%s", stressEnv, w, count, m.root))
		cmd.Stdout = m.log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for _, cmd := range running {
		timer := time.AfterFunc(30*time.Second, m.abort)
		if err := cmd.Wait(); err != nil {
			t.Errorf("redirect_dir=%s: %v\n%s", o.RedirectDir, err, m.log)
		}
		timer.Stop()
	}
	live := contents(t, m.root)
	dropCaches(t)
	if after := m.state(); after.Descriptors > before.Descriptors+600 {
		t.Errorf("%d descriptors before, %d after", before.Descriptors, after.Descriptors)
	}
	m.unmount()
	d.noLeftovers(t)
	again := mount(t, d.options(o))
	sameContents(t, "mounted again", live, contents(t, again.root))
	again.unmount()
	onOff := map[bool]string{true: "on", false: "off"}
	at := t.TempDir()
	options := "lowerdir=" + d.lower + ",upperdir=" + d.upper + ",workdir=" + d.work + ",index=" + onOff[o.Index]
	if inUserNamespace() {
		options += ",userxattr"
	} else {
		options += ",redirect_dir=" + o.RedirectDir
	}
	if err := unix.Mount("overlay", at, "overlay", 0, options); err != nil {
		t.Fatalf("the kernel does not mount it: %v", err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	sameContents(t, "mounted by the kernel", live, contents(t, at))
}

// contents describes what a tree holds: a line a path.
func contents(t testing.TB, root string) (lines []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprint(strings.TrimPrefix(path, root), " ", info.Mode())
		if e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", b)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return lines
}

func sameContents(t testing.TB, how string, want, got []string) {
	t.Helper()
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%s: missing %s", how, line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("%s: too much %s", how, line)
		}
	}
}
