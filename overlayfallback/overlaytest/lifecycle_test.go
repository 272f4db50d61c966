package overlaytest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestVolatile compares how a volatile mount marks its work directory, and what may be mounted on it afterwards.
func TestVolatile(t *testing.T) {
	want := volatileLife(t, Kernel)
	for _, route := range routes("overlay", "stacked", "fuse", "fuse,fastpath=off") {
		t.Run(route.Title(), func(t *testing.T) {
			report(t, route, "observations", compareNotes(want, volatileLife(t, route)))
		})
	}
}

// volatileLife mounts volatile, writes, unmounts, and tries to mount the same again.
func volatileLife(t *testing.T, route Route) []note {
	l := mustBuild(t, writeSet("volatile"), TempDir(t))
	r := &Run{T: t, open: map[int]bool{}}
	mark := filepath.Join(l.Work, "work/incompat/volatile")
	there := func(when string) {
		_, err := os.Stat(mark)
		r.Note("mark "+when, err == nil)
	}
	m := Mount(t, route, l)
	r.Root = m.Root
	there("while mounted")
	r.WriteFile("new", "x")
	r.Append("low", "x")
	r.Err("fsync", unix.Fsync(r.Open("low", unix.O_RDWR, 0)))
	r.closeAll()
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	there("after the unmount")
	for _, options := range [][]string{{"volatile"}, nil} {
		l.Options = options
		again, err := TryMount(t, route, l)
		r.Note("mount again with "+strings.Join(options, ","), err == nil)
		if err == nil {
			again.Unmount()
		}
	}
	if err := os.RemoveAll(filepath.Join(l.Work, "work/incompat")); err != nil {
		t.Fatal(err)
	}
	again, err := TryMount(t, route, l)
	r.Note("mount again without the mark", err == nil)
	if err == nil {
		r.Root = again.Root
		r.ReadFile("new")
	}
	return r.notes
}

// TestLongCopyUp kills a writer while its first write copies a large file up, and reads other files meanwhile.
func TestLongCopyUp(t *testing.T) {
	const size = 600 << 20
	for _, route := range append([]Route{Kernel}, routes("fuse", "fuse,fastpath=off")...) {
		t.Run(route.Title(), func(t *testing.T) {
			w := newWorkshopOn(t, route, Set{Lower: []Layer{{{Path: "one", Kind: File, Seed: "1", Size: size}, {Path: "two", Kind: File, Seed: "2", Size: size}, file("small", "s")}, nil}})
			touchFirst := func(name string) *exec.Cmd {
				cmd := exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(w.root, name), "conv=notrunc", "bs=1", "count=1")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				return cmd
			}
			start := time.Now()
			if err := touchFirst("one").Wait(); err != nil {
				t.Fatal(err)
			}
			full := time.Since(start)
			cmd := touchFirst("two")
			time.Sleep(full / 4)
			start = time.Now()
			if data, err := os.ReadFile(filepath.Join(w.root, "small")); err != nil || len(data) != 100 {
				t.Errorf("read beside a copy-up: %v", err)
			}
			if took := time.Since(start); took > full/3+100*time.Millisecond {
				t.Errorf("reading another file took %v beside a copy-up of %v", took, full)
			}
			cmd.Process.Kill()
			start = time.Now()
			cmd.Wait()
			if took := time.Since(start); took > full/3+100*time.Millisecond {
				t.Errorf("a killed writer stayed for %v in a copy-up of %v", took, full)
			}
			if err := w.mounted.Unmount(); err != nil {
				t.Fatal(err)
			}
			if left, _ := os.ReadDir(filepath.Join(w.mounted.Layout.Work, "work")); len(left) > 0 {
				t.Errorf("the copy-up left %s in the work directory", left[0].Name())
			}
			if st, err := os.Stat(filepath.Join(w.mounted.Layout.Upper, "two")); err == nil && st.Size() != size {
				t.Errorf("a part of the file is in the upper: %d bytes", st.Size())
			}
		})
	}
}
