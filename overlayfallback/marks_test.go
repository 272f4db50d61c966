package overlayfallback

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// contents lists a tree: names, types and contents.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&b, "%s %v", name, d.Type())
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			fmt.Fprintf(&b, " %q %v", content, err)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func mark(t *testing.T, path, name, value string) {
	t.Helper()
	if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
		t.Skipf("%s cannot be set: %v", name, err)
	}
}

func whiteOut(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mknod(path, unix.S_IFCHR, 0); err != nil {
		t.Skipf("no whiteout can be made: %v", err)
	}
}

// markedScene has every mark of overlayfs both in the layers that are folded and above them, and data-only layers for files of
// both. Of its 6 layers the lowest 3 are to be folded.
func markedScene(t *testing.T) *scene {
	t.Helper()
	s := newScene(t, 6)
	at := func(layer int, name string) string { return filepath.Join(s.config.Lower[layer], name) }
	for _, layer := range []int{2, 5} {
		for _, name := range []string{"hidden", "opaque/gone", "moved-from/kept", "replaced", "turned/inside"} {
			write(t, s.config.Lower[layer], fmt.Sprintf("%s.%d", name, layer), name)
		}
	}
	for _, layer := range []int{1, 4} { // each over the layer below it; the first also over the fold
		whiteOut(t, at(layer, fmt.Sprintf("hidden.%d", layer+1)))
		mkdir(t, at(layer, "opaque"))
		mark(t, at(layer, "opaque"), "trusted.overlay.opaque", "y")
		mkdir(t, at(layer, fmt.Sprintf("moved-to.%d", layer)))
		mark(t, at(layer, fmt.Sprintf("moved-to.%d", layer)), "trusted.overlay.redirect", "/moved-from")
		write(t, s.config.Lower[layer], "turned", "a file now")
	}
	whiteOut(t, at(1, "hidden.5"))
	write(t, s.config.Lower[0], "opaque/shown", "shown")
	data := filepath.Join(s.dir, "data")
	write(t, data, "blob", "from the data-only layer")
	s.config.Data = []string{data}
	for _, layer := range []int{0, 5} {
		name := fmt.Sprintf("lazy.%d", layer)
		write(t, s.config.Lower[layer], name, "")
		if err := os.Truncate(at(layer, name), int64(len("from the data-only layer"))); err != nil {
			t.Fatal(err)
		}
		mark(t, at(layer, name), "trusted.overlay.metacopy", "")
		mark(t, at(layer, name), "trusted.overlay.redirect", "/blob")
	}
	return s
}

// Folding the lowest layers, however many, shows the same union as one overlay does.
func TestFoldKeepsMarks(t *testing.T) {
	if caps := needMounts(t); !caps.DataOnly.OK || !caps.TrustedXattr.OK {
		t.Skipf("no data-only layers here: %s %s", caps.DataOnly.Why, caps.TrustedXattr.Why)
	}
	s := markedScene(t)
	s.config.Route, s.config.Options.Metacopy = Overlay, "on" // without it a file of the lowest layer alone has its data elsewhere
	m := mount(t, s.config)
	want := contents(t, s.config.Target)
	unmount(t, m)
	if strings.Count(want, `"from the data-only layer"`) != 2 || strings.Contains(want, "hidden.2") || !strings.Contains(want, "moved-to.4/kept.5") {
		t.Fatalf("the oracle shows\n%s", want)
	}
	for _, n := range []Naming{Relative, Descriptor, FSConfig} {
		c := s.config
		c.Naming = n
		m := mount(t, c)
		if got := contents(t, s.config.Target); got != want {
			t.Errorf("named by %s:\n%s\nwant\n%s", n, got, want)
		}
		unmount(t, m)
	}
	for folded := 1; folded < len(s.config.Lower); folded++ {
		if err := mountStacked(&s.config, &Plan{Route: Stacked, Folded: folded}); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, s.config.Target); got != want {
			t.Errorf("%d layers folded:\n%s\nwant\n%s", folded, got, want)
		}
		if err := Unmount(t.Context(), s.config.Target); err != nil {
			t.Fatal(err)
		}
	}
}

// The union has one device number and lasting inode numbers in two mounts as in one, but for what the package comment says.
func TestStackedInodes(t *testing.T) {
	if needMounts(t).UserNamespace {
		t.Skip("in a user namespace the kernel follows no origin, so inode numbers do not last (ovl_decode_real_fh)")
	}
	s := newScene(t, 6).writable(t)
	s.config.Route, s.config.Options.RedirectDir = Stacked, "nofollow"
	m := mount(t, s.config)
	before := map[string]folderID{}
	names := []string{".", "top", "own5", "shared", "shared/from3"}
	for _, name := range names {
		before[name] = identityOf(t, filepath.Join(s.config.Target, name))
		if dev := before[name].dev; dev != before["."].dev {
			t.Errorf("%s is on device %d, the root folder on %d", name, dev, before["."].dev)
		}
		if err := os.Chmod(filepath.Join(s.config.Target, name), 0o700); err != nil {
			t.Error(err)
		}
	}
	unmount(t, m)
	mount(t, s.config)
	for _, name := range names {
		if after := identityOf(t, filepath.Join(s.config.Target, name)); after.ino != before[name].ino {
			t.Errorf("%s was inode %d and is %d after a copy-up and a remount", name, before[name].ino, after.ino)
		}
	}
}

func identityOf(t *testing.T, path string) folderID {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return folderID{st.Dev, st.Ino}
}
