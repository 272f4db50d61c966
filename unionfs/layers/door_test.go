package layers

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// eachDoor runs a test by openat2 and without it.
func eachDoor(t *testing.T, f func(t *testing.T)) {
	probeOpenat2()
	before := noOpenat2.Load()
	defer noOpenat2.Store(before)
	for name, without := range map[string]bool{"openat2": false, "by components": true} {
		if before && !without {
			continue // forbidden here
		}
		t.Run(name, func(t *testing.T) {
			noOpenat2.Store(without)
			f(t)
		})
	}
}

func openRootOf(t testing.TB, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestOpenBeneath(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "d layer/a/b\nf layer/f 1\nl layer/out /etc\nl layer/up ..\nl layer/a/in b\np layer/fifo\nd outside")
	cases := []struct {
		path string
		want error
	}{
		{"", nil},
		{"a", nil},
		{"a/b", nil},
		{"none", unix.ENOENT},
		{"a/none/b", unix.ENOENT},
		{"f", unix.ENOTDIR},
		{"f/x", unix.ENOTDIR},
		{"fifo", unix.ENOTDIR},
		{"..", unix.EXDEV},
		{"../outside", unix.EXDEV},
		{"a/../../outside", unix.EXDEV},
		{"out", errAny},
		{"out/ssl", errAny},
		{"up", errAny},
		{"up/outside", errAny},
		{"a/in", errAny}, // not even inside the layer
		{strings.Repeat("n", 300), unix.ENAMETOOLONG},
		{strings.Repeat("n", 5000), unix.ENAMETOOLONG},
		{strings.Repeat("n", 5000) + "/b", unix.ENAMETOOLONG},
		{"/" + strings.Repeat("n", 5000), unix.ENAMETOOLONG},
	}
	root := openRootOf(t, filepath.Join(dir, "layer"))
	eachDoor(t, func(t *testing.T) {
		before := openDescriptors(t)
		for _, c := range cases {
			fd, err := OpenBeneath(root, c.path)
			if err == nil {
				unix.Close(fd)
			}
			if err != c.want && !(c.want == errAny && err != nil) {
				t.Errorf("OpenBeneath(%.20q) gave %v, want %v", c.path, err, c.want)
			}
		}
		if after := openDescriptors(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

// errAny stands for any error: a symbolic link is refused as ELOOP or ENOTDIR.
var errAny = errors.New("an error")

// Directories lie deeper than one path can say.
func TestOpenBeneathLongPath(t *testing.T) {
	const depth, name = 60, "directory-with-a-long-name-"
	component := strings.Repeat(name, 5) // 135 bytes: 8,000 in all
	dir := t.TempDir()
	at := openRootOf(t, dir)
	root := at
	for range depth {
		if err := unix.Mkdirat(at, component, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, component, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(next) })
		at = next
	}
	var want unix.Stat_t
	if err := unix.Fstat(at, &want); err != nil {
		t.Fatal(err)
	}
	path := strings.TrimSuffix(strings.Repeat(component+"/", depth), "/")
	eachDoor(t, func(t *testing.T) {
		before := openDescriptors(t)
		fd, err := OpenBeneath(root, path)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Ino != want.Ino {
			t.Errorf("another directory was opened (%v)", err)
		}
		unix.Close(fd)
		if _, err := OpenBeneath(root, path+"/none/none"); err != unix.ENOENT {
			t.Errorf("below it: %v", err)
		}
		if after := openDescriptors(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

// Any length of path is cut where a component ends.
func TestSplitPath(t *testing.T) {
	for _, length := range []int{maxPath - 1, maxPath, maxPath + 1, maxPath + 2, 3 * maxPath} {
		for _, component := range []int{1, 2, 254, 255} {
			path := strings.Repeat(strings.Repeat("x", component)+"/", length/(component+1)+1)[:length]
			path = strings.TrimSuffix(path, "/")
			var steps []string
			for rest := path; rest != ""; {
				step, more, err := splitPath(rest)
				if err != nil || len(step) > maxPath || step == "" {
					t.Fatalf("length %d of %d: step of %d, %v", length, component, len(step), err)
				}
				steps, rest = append(steps, step), more
			}
			if strings.Join(steps, "/") != path {
				t.Errorf("length %d of %d: the steps are another path", length, component)
			}
		}
	}
}

// A component is swapped, again and again, for a symbolic link that leads out: what is opened always lies inside.
func TestOpenBeneathWhileLinksAreSwapped(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "f layer/a/b/inside 1\nf outside/b/secret 1\nl layer/link ../outside")
	root := openRootOf(t, filepath.Join(dir, "layer"))
	eachDoor(t, func(t *testing.T) {
		stop := swapUntil(t, root, "a", "link")
		defer stop()
		opened := 0
		for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
			fd, err := OpenBeneath(root, "a/b")
			if err != nil {
				continue
			}
			opened++
			var st unix.Stat_t
			if unix.Fstatat(fd, "inside", &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				unix.Close(fd)
				t.Fatal("a directory outside the layer was opened")
			}
			unix.Close(fd)
		}
		if opened == 0 {
			t.Skip("never opened: the machine is too busy to show anything")
		}
	})
}

// swapUntil exchanges two names of a directory until the function that it returns is called.
func swapUntil(t testing.TB, dir int, a, b string) (stop func()) {
	t.Helper()
	if err := unix.Renameat2(dir, a, dir, b, unix.RENAME_EXCHANGE); err != nil {
		t.Skipf("names cannot be exchanged here: %v", err)
	}
	end := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		swapped := true
		for {
			select {
			case <-end:
				if swapped {
					unix.Renameat2(dir, a, dir, b, unix.RENAME_EXCHANGE)
				}
				return
			default:
				unix.Renameat2(dir, a, dir, b, unix.RENAME_EXCHANGE)
				swapped = !swapped
				runtime.Gosched()
			}
		}
	})
	return func() { close(end); done.Wait() }
}

// What is not a regular file is never opened for its data, and never waited for.
func TestOpenFileDoesNotBlock(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "f file 1\np fifo\nl link file\nd dir")
	if os.Geteuid() == 0 {
		plant(t, dir, "w device")
	}
	at := Borrow(openRootOf(t, dir))
	before := openDescriptors(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, flags := range []int{unix.O_RDONLY, unix.O_RDONLY | unix.O_NOATIME, unix.O_RDWR} {
			for _, name := range []string{"fifo", "link", "dir", "device", "none"} {
				if fd, err := OpenFile(at, name, flags); err == nil {
					t.Errorf("%s was opened with flags %o", name, flags)
					unix.Close(fd)
				}
			}
			fd, err := OpenFile(at, "file", flags)
			if err != nil {
				t.Errorf("file: %v", err)
				continue
			}
			unix.Close(fd)
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("an open waits")
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestReadlinkOfAnyLength(t *testing.T) {
	dir := t.TempDir()
	at := Borrow(openRootOf(t, dir))
	for _, length := range []int{1, 255, 256, 257, 4095} {
		target := strings.Repeat("t", length)
		if err := unix.Symlinkat(target, at.FD, "link"); err != nil {
			t.Fatal(err)
		}
		got, err := Readlink(at, "link")
		if err != nil || string(got) != target {
			t.Errorf("a target of %d bytes: %d bytes, %v", length, len(got), err)
		}
		unix.Unlinkat(at.FD, "link", 0)
	}
	if _, err := Readlink(at, "none"); err != unix.ENOENT {
		t.Errorf("of nothing: %v", err)
	}
}

func TestStatDoesNotFollow(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "f file 1\nl link file")
	at := Borrow(openRootOf(t, dir))
	var st unix.Statx_t
	if err := Stat(at, "link", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("mode %o, %v", st.Mode, err)
	}
	if err := Stat(at, "", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Errorf("the directory itself: mode %o, %v", st.Mode, err)
	}
}
