package unionfs

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
)

// A panic in a handler is the caller's EIO and a line in the log. The mount goes on.
func TestPanicInHandler(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	write(t, d.lower+"/good", "good")
	write(t, d.lower+"/bad", "bad")
	m := mount(t, d.options(Options{Fastpath: "off"}))
	if answer := m.ask("damage bad"); answer != "done" {
		t.Fatal(answer)
	}
	for range 3 {
		if _, err := os.ReadFile(m.p("bad")); !errors.Is(err, unix.EIO) {
			t.Errorf("of a file whose handler panics: %v", err)
		}
		if err := os.Chmod(m.p("bad"), 0o600); !errors.Is(err, unix.EIO) {
			t.Errorf("chmod: %v", err)
		}
	}
	if got := read(t, m.p("good")); got != "good" {
		t.Errorf("of another: %q", got)
	}
	write(t, m.p("new"), "new")
	if !eventually(func() bool {
		return strings.Contains(m.log.String(), "panic") && strings.Contains(m.log.String(), "goroutine")
	}) {
		t.Errorf("the log does not tell of the panic:\n%s", m.log)
	}
	m.unmount()
	d.noLeftovers(t)
}

// A lower directory becomes something else under the union: that is an errno, and nothing outside is ever shown.
func TestLayerChangesUnderUs(t *testing.T) {
	needFUSE(t)
	for _, profile := range []string{"off", "cache"} {
		t.Run(profile, func(t *testing.T) {
			base := t.TempDir()
			d := makeDirs(t, base)
			write(t, base+"/outside/secret", "secret")
			write(t, base+"/outside/f", "secret")
			for _, name := range []string{"link", "file", "gone", "fifo"} {
				write(t, d.lower+"/"+name+"/f", "inside")
				write(t, d.lower+"/"+name+"/sub/f", "inside")
			}
			m := mount(t, Options{Lower: []string{d.lower}, Fastpath: perf.Profile(profile)})
			for _, name := range []string{"link", "file", "gone", "fifo"} {
				if _, err := os.Stat(m.p(name)); err != nil { // the kernel now knows the directory, and no more
					t.Fatal(err)
				}
				os.RemoveAll(d.lower + "/" + name)
			}
			os.Symlink("../outside", d.lower+"/link")
			write(t, d.lower+"/file", "now a file")
			unix.Mkfifo(d.lower+"/fifo", 0o644)
			for _, name := range []string{"link", "file", "gone", "fifo"} {
				for _, path := range []string{name + "/f", name + "/secret", name + "/sub/f"} {
					if b, err := os.ReadFile(m.p(path)); err == nil {
						t.Errorf("%s was read: %q", path, b)
					}
				}
				if entries, err := os.ReadDir(m.p(name)); err == nil && len(entries) > 0 {
					t.Errorf("%s lists %v", name, entries)
				}
			}
			write(t, d.lower+"/later", "x")
			if _, err := os.Stat(m.root); err != nil {
				t.Errorf("the mount does not go on: %v", err)
			}
		})
	}
}

// A file of a layer becomes a symbolic link or a FIFO between the look-up and the open.
func TestFileChangesUnderUs(t *testing.T) {
	needFUSE(t)
	base := t.TempDir()
	d := makeDirs(t, base)
	write(t, base+"/secret", "secret")
	changes := map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink("../secret", path) },
		"fifo":   func(path string) error { return unix.Mkfifo(path, 0o644) },
		"dir":    func(path string) error { return os.Mkdir(path, 0o755) },
		"device": func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
		"gone":   func(path string) error { return nil },
	}
	if inUserNamespace() {
		delete(changes, "device")
	}
	for name := range changes {
		write(t, d.lower+"/"+name, "inside")
	}
	m := mount(t, d.options(Options{Fastpath: "cache"}))
	for name, change := range changes {
		if _, err := os.Stat(m.p(name)); err != nil {
			t.Fatal(err)
		}
		os.Remove(d.lower + "/" + name)
		if err := change(d.lower + "/" + name); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			b, err := os.ReadFile(m.p(name))
			if err == nil {
				t.Errorf("%s was read: %q", name, b)
			}
			done <- os.WriteFile(m.p(name), []byte("changed"), 0o644)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: an open waits", name)
		}
	}
	if got := read(t, base+"/secret"); got != "secret" {
		t.Errorf("a file outside was written: %q", got)
	}
	write(t, m.p("new"), "new")
	m.unmount()
	d.noLeftovers(t)
}

// FIFOs, sockets and devices of a layer are the kernel's to open; the server only shows and copies them.
func TestSpecialFilesDoNotBlock(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	unix.Mkfifo(d.lower+"/fifo", 0o644)
	unix.Mknod(d.lower+"/socket", unix.S_IFSOCK|0o644, 0)
	special := []string{"fifo", "socket"}
	if unix.Mknod(d.lower+"/null", unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))) == nil {
		special = append(special, "null")
	}
	m := mount(t, d.options(Options{}))
	for _, name := range special {
		if err := os.Chmod(m.p(name), 0o600); err != nil {
			t.Errorf("chmod %s: %v", name, err)
		}
		var lower, upper unix.Stat_t
		unix.Lstat(d.lower+"/"+name, &lower)
		if err := unix.Lstat(d.upper+"/"+name, &upper); err != nil || upper.Mode != lower.Mode&^0o777|0o600 || upper.Rdev != lower.Rdev {
			t.Errorf("%s was copied up as %o %d (%v)", name, upper.Mode, upper.Rdev, err)
		}
	}
	go os.WriteFile(m.p("fifo"), []byte("through the union"), 0)
	if got := read(t, m.p("fifo")); got != "through the union" {
		t.Errorf("the FIFO gave %q", got)
	}
}

// A read-only view leaves its upper and work directories as they are, to the byte and the time.
func TestReadOnlyWritesNothing(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	write(t, d.lower+"/d/f", "f")
	write(t, d.upper+"/d/g", "g")
	old := time.Unix(1_000_000_000, 0)
	for _, path := range []string{d.upper + "/d/g", d.upper + "/d", d.upper, d.work} {
		os.Chtimes(path, old, old)
	}
	before := fingerprint(t, d.upper) + fingerprint(t, d.work)
	o := d.options(Options{})
	o.ReadOnly = true
	m := mount(t, o)
	if read(t, m.p("d/f"))+read(t, m.p("d/g")) != "fg" {
		t.Error("the view is wrong")
	}
	for name, err := range map[string]error{
		"write": os.WriteFile(m.p("d/g"), nil, 0o644),
		"mkdir": os.Mkdir(m.p("x"), 0o755),
		"chmod": os.Chmod(m.p("d"), 0o700),
		"xattr": unix.Setxattr(m.p("d"), "user.x", nil, 0),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.unmount()
	if after := fingerprint(t, d.upper) + fingerprint(t, d.work); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}
