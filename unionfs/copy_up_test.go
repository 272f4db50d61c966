package unionfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
)

// dense makes a file of a size with data throughout, in bytes.
func dense(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for off := int64(0); off < size; off += int64(len(block)) {
		if _, err := f.Write(block[:min(int64(len(block)), size-off)]); err != nil {
			t.Fatal(err)
		}
	}
}

// writerEnv names a file to which the test binary appends a byte, as a process that can be killed.
const writerEnv = "UNIONFS_TEST_WRITE"

func init() {
	path, writing := os.LookupEnv(writerEnv)
	if !writing {
		return
	}
	runtime.LockOSThread()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.Write([]byte("!"))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// startWriter writes to a file from a process of its own.
func startWriter(t testing.TB, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), writerEnv+"="+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// A writer who is killed while its write copies a large file up is gone soon, and nothing is left of the copy. Meanwhile
// nobody else waits.
func TestCopyUpIsInterruptible(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a file of 1 GiB")
	}
	needFUSE(t)
	const size = 1 << 30
	d := makeDirs(t, "")
	dense(t, d.lower+"/big", size)
	write(t, d.lower+"/small", "small")
	write(t, d.lower+"/dir/other", "other")
	for _, profile := range []string{"off", "cache"} {
		t.Run(profile, func(t *testing.T) {
			d := dirs{d.lower, t.TempDir(), t.TempDir()}
			m := mount(t, d.options(Options{Fastpath: perf.Profile(profile)}))
			writer := startWriter(t, m.p("big"))
			exited := make(chan struct{})
			go func() { writer.Wait(); close(exited) }()
			if !eventually(func() bool { return m.copying(d) > 8<<20 }) {
				t.Fatal("the copy-up does not begin")
			}
			for _, step := range []func() error{
				func() error { _, err := os.ReadFile(m.p("small")); return err },
				func() error { _, err := os.ReadDir(m.p("dir")); return err },
				func() error { return os.WriteFile(m.p("small"), []byte("changed"), 0o644) },
				func() error { return os.Rename(m.p("small"), m.p("dir/small")) },
				func() error { return readSome(m.p("big")) },
			} {
				start := time.Now()
				if err := step(); err != nil {
					t.Error(err)
				}
				if d := time.Since(start); d > 2*time.Second {
					t.Errorf("a request waited for %v", d)
				}
			}
			select {
			case <-exited:
				t.Skip("the copy-up was done too soon to be interrupted")
			default:
			}
			start := time.Now()
			writer.Process.Signal(syscall.SIGKILL)
			select {
			case <-exited:
			case <-time.After(15 * time.Second):
				t.Fatal("the killed writer is still there")
			}
			t.Logf("gone %v after the kill", time.Since(start).Round(time.Millisecond))
			if !eventually(func() bool { return m.copying(d) == 0 }) {
				t.Error("the copy is left")
			}
			if _, err := os.Lstat(d.upper + "/big"); !errors.Is(err, unix.ENOENT) {
				t.Errorf("the file is in the upper layer: %v", err)
			}
			// It is as it was, and can still be copied up.
			if err := os.Chmod(m.p("big"), 0o600); err != nil {
				t.Error(err)
			}
			var st unix.Stat_t
			if err := unix.Stat(d.upper+"/big", &st); err != nil || st.Size != size {
				t.Errorf("copied up with %d bytes (%v)", st.Size, err)
			}
			m.unmount()
			d.noLeftovers(t)
		})
	}
}

// readSome reads from the middle of a file.
func readSome(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 16)
	if _, err = f.ReadAt(b, 512<<20); err == nil && string(b) != "0123456789abcdef" {
		err = fmt.Errorf("read %q", b)
	}
	return err
}

// copying is how many bytes the server has of copies that are being built, and one more for each of them.
func (m *served) copying(d dirs) (size int64) {
	table := fmt.Sprintf("/proc/%d/fd/", m.cmd.Process.Pid)
	fds, _ := os.ReadDir(table)
	for _, fd := range fds {
		to, _ := os.Readlink(table + fd.Name())
		if info, err := os.Stat(table + fd.Name()); err == nil && strings.HasPrefix(to, d.work+"/work/#") {
			size += info.Size() + 1
		}
	}
	return size
}

// Many write to one lower file at once: it is copied up once and all writes are in it. Readers always see whole content.
func TestCopyUpRaces(t *testing.T) {
	eachProfile(t, func(t *testing.T, o Options) {
		needFUSE(t)
		for _, metacopy := range []bool{false, true} {
			o.Metacopy = metacopy
			d := makeDirs(t, "")
			const files, writers = 10, 6
			content := strings.Repeat("lower content\n", 5000)
			for i := range files {
				write(t, fmt.Sprintf("%s/d/f%d", d.lower, i), content)
			}
			m := mount(t, d.options(o))
			for i := range files {
				raceOnFile(t, m.p("d", fmt.Sprint("f", i)), len(content), writers, o.Fastpath != perf.Off)
			}
			if got := m.state().CopyUps; got > 2*files+1 {
				t.Errorf("%d copy-ups for %d files", got, files)
			}
			m.unmount()
			for i := range files {
				got := read(t, fmt.Sprintf("%s/d/f%d", d.upper, i))
				for w := range writers {
					if got[w] != byte('A'+w) {
						t.Errorf("f%d: the write of %d is lost", i, w)
					}
				}
				if got[writers:] != content[writers:] {
					t.Errorf("f%d: the rest is not the lower content", i)
				}
			}
			d.noLeftovers(t)
		}
	})
}

// raceOnFile has goroutines write a byte each to a file while others read it and change its mode. Each is to see its own write,
// where the kernel keeps a file's pages: where it drops them at each open, it may drop one that is being written.
func raceOnFile(t *testing.T, path string, size, writers int, keeps bool) {
	var done sync.WaitGroup
	for w := range writers {
		done.Go(func() {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte{byte('A' + w)}, int64(w)); err != nil {
				t.Error(err)
			}
			b := make([]byte, size)
			if n, err := f.ReadAt(b, 0); n != size || keeps && b[w] != byte('A'+w) {
				t.Errorf("%s: read %d bytes after the write of %d, %q, %v", path, n, w, b[:writers], err)
			}
		})
	}
	done.Go(func() {
		if err := os.Chmod(path, 0o664); err != nil {
			t.Error(err)
		}
	})
	done.Go(func() {
		for range 5 {
			b, err := os.ReadFile(path)
			if err != nil || len(b) != size || !bytes.HasSuffix(b, []byte("lower content\n")) {
				t.Errorf("a reader got %d bytes, %v", len(b), err)
			}
		}
	})
	done.Wait()
}

// A file is copied up while its name is moved and removed: the write goes to the file that was opened.
func TestCopyUpRacesRenameAndUnlink(t *testing.T) {
	eachProfile(t, func(t *testing.T, o Options) {
		needFUSE(t)
		d := makeDirs(t, "")
		const files = 30
		for i := range files {
			write(t, fmt.Sprintf("%s/d/f%d", d.lower, i), strings.Repeat("x", 100_000))
		}
		m := mount(t, d.options(o))
		for i := range files {
			raceWithName(t, m, fmt.Sprint("f", i), i%3)
		}
		m.unmount()
		d.noLeftovers(t)
	})
}

// raceWithName writes to an open file while its name is renamed (0), replaced (1) or removed (2).
func raceWithName(t *testing.T, m *served, name string, how int) {
	t.Helper()
	f, err := os.OpenFile(m.p("d", name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var done sync.WaitGroup
	done.Go(func() {
		if _, err := f.WriteAt([]byte("written"), 10); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	done.Go(func() {
		var err error
		switch how {
		case 0:
			err = os.Rename(m.p("d", name), m.p(name))
		case 1:
			err = os.WriteFile(m.p("new"), []byte("other"), 0o644)
			if err == nil {
				err = os.Rename(m.p("new"), m.p("d", name))
			}
		case 2:
			err = os.Remove(m.p("d", name))
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	done.Wait()
	b := make([]byte, 7)
	if _, err := f.ReadAt(b, 10); err != nil || string(b) != "written" {
		t.Errorf("%s: the open file has %q, %v", name, b, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Size != 100_000 || st.Nlink != uint64(1-min(how, 1)) {
		t.Errorf("%s, case %d: size %d, %d links (%v)", name, how, st.Size, st.Nlink, err)
	}
}

// A file that was copied up with its metadata alone keeps its data for readers who have it open, and for those who come
// while the data follows.
func TestMetacopyCompletedUnderReaders(t *testing.T) {
	eachProfile(t, func(t *testing.T, o Options) {
		needFUSE(t)
		d := makeDirs(t, "")
		content := strings.Repeat("0123456789", 50_000)
		write(t, d.lower+"/f", content)
		o.Metacopy = true
		m := mount(t, d.options(o))
		reader, err := os.Open(m.p("f"))
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		if err := os.Chmod(m.p("f"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := read(t, m.p("f")); got != content {
			t.Error("the content is wrong after the chmod")
		}
		f, err := os.OpenFile(m.p("f"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("X"), 5); err != nil {
			t.Fatal(err)
		}
		want := content[:5] + "X" + content[6:]
		b := make([]byte, len(content))
		if _, err := reader.ReadAt(b, 0); err != nil || string(b) != want {
			t.Errorf("the first reader does not see the write: %v", err)
		}
		if got := read(t, m.p("f")); got != want {
			t.Error("the content is wrong after the write")
		}
		reader.Close()
		f.Close()
		m.unmount()
		if got := read(t, d.upper+"/f"); got != want {
			t.Error("the upper file is wrong")
		}
	})
}

// The copy of a file has no name before it is whole, so that a crash leaves nothing of it.
func TestCopyUpHasNoName(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	dense(t, d.lower+"/big", 64<<20)
	m := mount(t, d.options(Options{}))
	done := make(chan error, 1)
	go func() { done <- os.Chmod(m.p("big"), 0o600) }()
	for looks := 0; ; looks++ {
		select {
		case err := <-done:
			if err != nil || looks < 2 {
				t.Errorf("%d looks, %v", looks, err)
			}
			return
		default:
			d.noLeftovers(t)
		}
	}
}

// named is a file system that has no files without a name.
type named struct{ *fs.LoopbackNode }

func (named) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.ENOSYS
}

func (named) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return named{child.(*fs.LoopbackNode)}
}

// On such an upper layer a copy is built under a name of the work directory.
func TestCopyUpByName(t *testing.T) {
	needFUSE(t)
	root, err := fs.NewLoopbackRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	server, err := fs.Mount(at, named{root.(*fs.LoopbackNode)}, &fs.Options{MountOptions: fuse.MountOptions{AllowOther: true, DirectMount: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	if _, err := unix.Open(at, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600); err != unix.EOPNOTSUPP {
		t.Fatalf("a file without a name: %v", err)
	}
	d := makeDirs(t, at)
	write(t, d.lower+"/f", "lower")
	m := mount(t, d.options(Options{}))
	if err := os.Chmod(m.p("f"), 0o600); err != nil {
		t.Error(err)
	}
	d.noLeftovers(t)
	m.unmount()
	st, err := os.Stat(d.upper + "/f")
	if err != nil || st.Mode() != 0o600 || read(t, d.upper+"/f") != "lower" {
		t.Errorf("%v, %v", st, err)
	}
}
