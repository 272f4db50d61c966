package unionfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
)

// A full upper layer is ENOSPC for who writes, at whichever step it fills up, and nothing is half copied up.
func TestFullUpper(t *testing.T) {
	needFUSE(t)
	for _, profile := range []string{"off", "cache"} {
		for _, options := range []string{"size=1m", "nr_inodes=8"} {
			t.Run(profile+" "+options, func(t *testing.T) {
				full(t, Options{Fastpath: perf.Profile(profile)}, options)
			})
		}
	}
}

func full(t *testing.T, o Options, options string) {
	lower := t.TempDir()
	write(t, lower+"/big", strings.Repeat("x", 2<<20))
	write(t, lower+"/d/e/f/small", "small")
	disk := smallDisk(t, options)
	d := dirs{lower, disk + "/upper", disk + "/work"}
	os.Mkdir(d.upper, 0o755)
	os.Mkdir(d.work, 0o755)
	m := mount(t, d.options(o))
	fill(t, m, options)
	for name, op := range map[string]func() error{
		"copy up":        func() error { return appendTo(m.p("big")) },
		"copy up deep":   func() error { return appendTo(m.p("d/e/f/small")) },
		"mkdir":          func() error { return os.Mkdir(m.p("newdir"), 0o755) },
		"rename":         func() error { return os.Rename(m.p("big"), m.p("d/big")) },
		"chmod":          func() error { return os.Chmod(m.p("d/e/f/small"), 0o600) },
		"create a large": func() error { return os.WriteFile(m.p("large"), make([]byte, 2<<20), 0o644) },
	} {
		if err := op(); !errors.Is(err, unix.ENOSPC) && !(options == "size=1m" && err == nil && name != "copy up" && name != "create a large" && name != "rename") {
			t.Errorf("%s: %v, want ENOSPC", name, err)
		}
	}
	if b := read(t, m.p("big")); len(b) != 2<<20 {
		t.Errorf("the lower file now has %d bytes", len(b))
	}
	if got := read(t, m.p("d/e/f/small")); !strings.HasPrefix(got, "small") {
		t.Errorf("the small file now has %q", got)
	}
	if _, err := os.Lstat(d.upper + "/big"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the large file is in the upper layer: %v", err)
	}
	// Room is made: all goes on.
	for _, name := range []string{"large", "filler"} {
		os.Remove(m.p(name))
	}
	entries, _ := filepath.Glob(m.p("filler*"))
	for _, path := range entries {
		if err := os.Remove(path); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if err := appendTo(m.p("d/e/f/small")); options == "size=1m" && err != nil {
		t.Errorf("with room again: %v", err)
	}
	m.unmount()
	d.noLeftovers(t)
}

// fill leaves no room in the upper layer.
func fill(t *testing.T, m *served, options string) {
	t.Helper()
	for i := range 100 {
		size := 128 << 10
		if options != "size=1m" {
			size = 0
		}
		err := os.WriteFile(m.p(fmt.Sprint("filler", i)), make([]byte, size), 0o644)
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the upper layer is not full")
}

func appendTo(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte("!"))
	return errors.Join(err, f.Close())
}

// The upper layer's file system becomes read-only: EROFS, also of files that are open or were read before, and all can still
// be read.
func TestUpperBecomesReadOnly(t *testing.T) {
	needFUSE(t)
	for _, profile := range []string{"off", "cache"} {
		t.Run(profile, func(t *testing.T) {
			lower := t.TempDir()
			write(t, lower+"/lower", "lower")
			disk := smallDisk(t, "")
			d := dirs{lower, disk + "/upper", disk + "/work"}
			os.Mkdir(d.upper, 0o755)
			os.Mkdir(d.work, 0o755)
			write(t, d.upper+"/upper", "upper")
			m := mount(t, d.options(Options{Fastpath: perf.Profile(profile)}))
			if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Skipf("cannot be made read-only: %v", err)
			}
			if read(t, m.p("lower"))+read(t, m.p("upper")) != "lowerupper" {
				t.Error("the files are wrong")
			}
			for name, op := range map[string]func() error{
				"append":          func() error { return appendTo(m.p("upper")) },
				"append to lower": func() error { return appendTo(m.p("lower")) },
				"truncate":        func() error { return os.Truncate(m.p("upper"), 1) },
				"create":          func() error { return os.WriteFile(m.p("new"), nil, 0o644) },
				"remove":          func() error { return os.Remove(m.p("upper")) },
				"remove lower":    func() error { return os.Remove(m.p("lower")) },
				"chmod":           func() error { return os.Chmod(m.p("upper"), 0o600) },
				"mkdir":           func() error { return os.Mkdir(m.p("dir"), 0o755) },
				"rename":          func() error { return os.Rename(m.p("upper"), m.p("moved")) },
			} {
				if err := op(); !errors.Is(err, unix.EROFS) {
					t.Errorf("%s: %v, want EROFS", name, err)
				}
			}
			if err := unix.Mount("", disk, "", unix.MS_REMOUNT, ""); err != nil {
				t.Fatal(err)
			}
			if err := appendTo(m.p("upper")); err != nil {
				t.Errorf("writable again: %v", err)
			}
			if err := appendTo(m.p("lower")); err != nil {
				t.Errorf("writable again: %v", err)
			}
			if got := read(t, m.p("upper")) + read(t, m.p("lower")); got != "upper!lower!" {
				t.Errorf("in the end: %q", got)
			}
			m.unmount()
			d.noLeftovers(t)
		})
	}
}

// The disk below the upper layer fails when the copy is synced: that is the caller's error, and no half copy is published.
func TestDiskErrors(t *testing.T) {
	needFUSE(t)
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip(err)
	}
	// A disk of 256 MiB in a file for which there are 24 MiB of room: what is beyond cannot be written.
	image := smallDisk(t, "size=24m") + "/disk"
	d := makeDirs(t, loopDisk(t, image, 256<<20))
	d.lower = t.TempDir()
	dense(t, d.lower+"/big", 64<<20)
	write(t, d.lower+"/small", "small")
	m := mount(t, d.options(Options{}))
	if err := appendTo(m.p("big")); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the copy-up of a file that the disk cannot hold: %v, want EIO or ENOSPC", err)
	}
	if _, err := os.Lstat(d.upper + "/big"); err == nil {
		t.Error("half a copy is in the upper layer")
	}
	if got := read(t, m.p("small")); got != "small" {
		t.Errorf("another file has %q", got)
	}
	var st unix.Stat_t
	if err := unix.Stat(m.p("big"), &st); err != nil || st.Size != 64<<20 {
		t.Errorf("the file has %d bytes, %v", st.Size, err)
	}
	m.in.Close() // syncing fails as well, and the server says so
	if err := m.wait(); err == nil {
		t.Log("the disk was synced after all")
	}
	m.done = true
	unix.Unmount(m.root, unix.MNT_DETACH)
}
