package unionfs

import (
	"errors"
	"io"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// rereads returns what an open file holds from its beginning.
func rereads(t testing.TB, f *os.File) string {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// A file has two names in the upper layer, of which the union knows one. That goes, while the file is open, and the other is
// looked up: it is the same file.
func TestHardLinkWithNamesNotKnown(t *testing.T) {
	eachProfile(t, func(t *testing.T, o Options) {
		needFUSE(t)
		d := makeDirs(t, "")
		write(t, d.upper+"/a", "old")
		if err := os.Link(d.upper+"/a", d.upper+"/b"); err != nil {
			t.Fatal(err)
		}
		m := mount(t, d.options(o))
		a, err := os.OpenFile(m.p("a"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if err := os.Remove(m.p("a")); err != nil {
			t.Fatal(err)
		}
		b, err := os.OpenFile(m.p("b"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if got := rereads(t, b); got != "old" {
			t.Errorf("b has %q", got)
		}
		if _, err := a.WriteAt([]byte("new"), 0); err != nil {
			t.Fatal(err)
		}
		if got := rereads(t, b); got != "new" {
			t.Errorf("a write through the old name shows as %q", got)
		}
		if _, err := b.WriteAt([]byte("NEWER"), 0); err != nil {
			t.Fatal(err)
		}
		if got := rereads(t, a); got != "NEWER" {
			t.Errorf("a write through the other name shows as %q", got)
		}
		var sa, sb unix.Stat_t
		unix.Fstat(int(a.Fd()), &sa)
		unix.Fstat(int(b.Fd()), &sb)
		if sa.Ino != sb.Ino || sa.Nlink != 1 || sb.Nlink != 1 {
			t.Errorf("inodes %d and %d, %d and %d links", sa.Ino, sb.Ino, sa.Nlink, sb.Nlink)
		}
		// It still has a name, so that it may get another.
		if err := unix.Linkat(unix.AT_FDCWD, fdPath(a), unix.AT_FDCWD, m.p("c"), unix.AT_SYMLINK_FOLLOW); err != nil {
			t.Errorf("link: %v", err)
		} else if got := read(t, m.p("c")); got != "NEWER" {
			t.Errorf("c has %q", got)
		}
	})
}

// Names come and go while the file is open: each opener always has the one content.
func TestLinksAndOpenFiles(t *testing.T) {
	eachProfile(t, func(t *testing.T, o Options) {
		needFUSE(t)
		d := makeDirs(t, "")
		write(t, d.lower+"/d/f", "lower")
		m := mount(t, d.options(o))
		f, err := os.OpenFile(m.p("d/f"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for i, step := range []func() error{
			func() error { return os.Link(m.p("d/f"), m.p("g")) },
			func() error { return os.Remove(m.p("d/f")) },
			func() error { return os.Rename(m.p("g"), m.p("d/h")) },
			func() error { return os.Link(m.p("d/h"), m.p("d/f")) },
			func() error { return os.Remove(m.p("d/h")) },
			func() error { return os.Rename(m.p("d"), m.p("e")) },
			func() error { return os.Remove(m.p("e/f")) },
		} {
			if err := step(); err != nil && !errors.Is(err, unix.EXDEV) {
				t.Fatalf("step %d: %v", i, err)
			} else if err != nil { // a lower directory is not renamed
				if err := os.Remove(m.p("d/f")); err != nil {
					t.Fatal(err)
				}
				break
			}
			text := string(rune('0'+i)) + "-written"
			if _, err := f.WriteAt([]byte(text), 0); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			if got := rereads(t, f); got != text {
				t.Errorf("step %d: %q", i, got)
			}
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 0 {
			t.Errorf("%d links in the end, %v", st.Nlink, err)
		}
	})
}

// A file that is removed while it is open keeps its one content for all who have it open, wherever it came from.
func TestUnlinkedFilesKeepTheirContent(t *testing.T) {
	eachProfile(t, func(t *testing.T, o Options) {
		needFUSE(t)
		d := makeDirs(t, "")
		for _, name := range []string{"read", "written", "truncated"} {
			write(t, d.lower+"/"+name, "lower content")
			write(t, d.upper+"/upper-"+name, "upper content")
		}
		m := mount(t, d.options(o))
		for _, prefix := range []string{"", "upper-"} {
			for _, name := range []string{"read", "written", "truncated"} {
				unlinkedFile(t, m, prefix+name, name)
			}
		}
		m.unmount()
		d.noLeftovers(t)
	})
}

func unlinkedFile(t *testing.T, m *served, name, do string) {
	t.Helper()
	flags := map[bool]int{true: os.O_RDONLY, false: os.O_RDWR}[do == "read"]
	var open [2]*os.File
	for i := range open {
		var err error
		if open[i], err = os.OpenFile(m.p(name), flags, 0); err != nil {
			t.Fatal(err)
		}
		defer open[i].Close()
	}
	if err := os.Remove(m.p(name)); err != nil {
		t.Fatal(err)
	}
	write(t, m.p(name), "another file")
	want := rereads(t, open[1])
	switch do {
	case "written":
		if _, err := open[0].WriteAt([]byte("X"), 3); err != nil {
			t.Fatal(err)
		}
		want = want[:3] + "X" + want[4:]
	case "truncated":
		if err := open[0].Truncate(4); err != nil {
			t.Fatal(err)
		}
		want = want[:4]
	}
	dropCaches(t)
	for i, f := range open {
		if got := rereads(t, f); got != want || want == "another file" {
			t.Errorf("%s: opener %d reads %q, want %q", name, i, got, want)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 0 || st.Size != int64(len(want)) {
			t.Errorf("%s: %d links, %d bytes, %v", name, st.Nlink, st.Size, err)
		}
	}
	if err := open[0].Chmod(0o640); err != nil {
		t.Errorf("%s: chmod: %v", name, err)
	}
	if err := unix.Fsetxattr(int(open[0].Fd()), "user.x", []byte("1"), 0); err != nil {
		t.Errorf("%s: setxattr: %v", name, err)
	}
	b := make([]byte, 8)
	if n, err := unix.Fgetxattr(int(open[1].Fd()), "user.x", b); err != nil || n != 1 {
		t.Errorf("%s: getxattr: %d, %v", name, n, err)
	}
	if got := read(t, m.p(name)); got != "another file" {
		t.Errorf("%s: the new file has %q", name, got)
	}
}

// All this holds as well of files that are kept by a name in the work directory instead of a descriptor.
func TestParkedFiles(t *testing.T) {
	parkAll = true
	defer func() { parkAll = false }()
	for name, test := range map[string]func(*testing.T){
		"content": TestUnlinkedFilesKeepTheirContent,
		"links":   TestLinksAndOpenFiles,
		"unknown": TestHardLinkWithNamesNotKnown,
		"others":  TestUnlinkedOthers,
	} {
		t.Run(name, test)
	}
}

// Directories and special files live on as well while they are open.
func TestUnlinkedOthers(t *testing.T) {
	eachProfile(t, func(t *testing.T, o Options) {
		needFUSE(t)
		d := makeDirs(t, "")
		for _, layer := range []string{d.lower + "/lower-", d.upper + "/upper-"} {
			os.Mkdir(layer+"dir", 0o755)
			unix.Mkfifo(layer+"fifo", 0o644)
			os.Symlink("target", layer+"link")
		}
		m := mount(t, d.options(o))
		for _, name := range []string{"lower-dir", "upper-dir", "lower-fifo", "upper-fifo", "lower-link", "upper-link"} {
			unlinkedOther(t, m, name)
		}
		m.unmount()
		d.noLeftovers(t)
	})
}

func unlinkedOther(t *testing.T, m *served, name string) {
	t.Helper()
	fd, err := unix.Open(m.p(name), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var before, after unix.Stat_t
	if err := unix.Fstat(fd, &before); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(m.p(name)); err != nil {
		t.Fatal(err)
	}
	if before.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), 0o700); err != nil {
			t.Errorf("%s: chmod: %v", name, err)
		}
		before.Mode = before.Mode&^0o777 | 0o700
	} else {
		b := make([]byte, 16)
		if n, err := unix.Readlinkat(fd, "", b); err != nil || string(b[:n]) != "target" {
			t.Errorf("%s: leads to %q, %v", name, b[:max(n, 0)], err)
		}
	}
	dropCaches(t)
	if err := unix.Fstat(fd, &after); err != nil || after.Mode != before.Mode || after.Ino != before.Ino {
		t.Errorf("%s: mode %o, inode %d, was %o and %d: %v", name, after.Mode, after.Ino, before.Mode, before.Ino, err)
	}
	if _, err := unix.Flistxattr(fd, nil); err != nil && err != unix.EBADF {
		t.Errorf("%s: listxattr: %v", name, err)
	}
	if _, err := unix.Listxattr("/proc/self/fd/"+strconv.Itoa(fd), nil); err != nil {
		t.Errorf("%s: listxattr by /proc: %v", name, err)
	}
}

// One name of a lower hard link goes, before the union has seen the others: with index=on they are a copy then, and count
// what is left.
func TestIndexedLinksNotSeenBefore(t *testing.T) {
	needFUSE(t)
	for _, how := range []string{"rename", "remove", "write"} {
		d := makeDirs(t, "")
		write(t, d.lower+"/h1", "linked")
		write(t, d.lower+"/other", "other")
		for _, name := range []string{"h2", "h3"} {
			if err := os.Link(d.lower+"/h1", d.lower+"/"+name); err != nil {
				t.Fatal(err)
			}
		}
		m := mount(t, d.options(Options{Index: true, Fastpath: "cache"}))
		want := uint64(2)
		var err error
		switch how {
		case "rename":
			err = os.Rename(m.p("other"), m.p("h1"))
		case "remove":
			err = os.Remove(m.p("h1"))
		case "write":
			want = 3
			err = appendTo(m.p("h1"))
		}
		if err != nil {
			t.Fatal(err)
		}
		dropCaches(t)
		eventually(func() bool { return m.state().Nodes < 3 })
		var st unix.Stat_t
		if err := unix.Stat(m.p("h2"), &st); err != nil || uint64(st.Nlink) != want {
			t.Errorf("%s: %d links, want %d (%v)", how, st.Nlink, want, err)
		}
		if how == "write" {
			if got := read(t, m.p("h3")); got != "linked!" {
				t.Errorf("another name has %q", got)
			}
		}
		m.unmount()
		d.noLeftovers(t)
	}
}
