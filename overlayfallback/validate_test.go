package overlayfallback

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// snapshot lists everything below a folder, with what a careless mount could change.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%s %v %d %d %d\n", path, info.Mode(), st.Ino, st.Ctim.Nano(), st.Mtim.Nano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Each of these is refused on every route, with the culprit and what to do, and nothing changed.
func TestBadInput(t *testing.T) {
	needMounts(t)
	for name, c := range map[string]struct {
		spoil func(t *testing.T, s *scene)
		cause error // nil where there is no errno
		words []string
	}{
		"missing lower": {func(t *testing.T, s *scene) { s.config.Lower[1] = s.dir + "/missing" }, unix.ENOENT,
			[]string{"/missing", "layer 2 of 3", "correct the path"}},
		"lower is a file":          {func(t *testing.T, s *scene) { s.config.Lower[1] += "/top" }, unix.ENOTDIR, []string{"/top", "name a folder"}},
		"missing data":             {func(t *testing.T, s *scene) { s.config.Data = []string{s.dir + "/missing"} }, unix.ENOENT, []string{"layer 4 of 4"}},
		"no layers":                {func(t *testing.T, s *scene) { s.config.Lower = nil }, nil, []string{"no lower layer", "lowerdir="}},
		"empty layer":              {func(t *testing.T, s *scene) { s.config.Lower[0] = "" }, nil, []string{"layer 1 is empty"}},
		"same layer twice":         {func(t *testing.T, s *scene) { s.config.Lower[2] = s.config.Lower[0] + "/." }, unix.ELOOP, []string{"layers/0/.", "layer 3 of 3", "once"}},
		"name of 256 bytes":        {func(t *testing.T, s *scene) { s.config.Lower[0] = s.dir + "/" + strings.Repeat("x", 256) }, unix.ENAMETOOLONG, []string{"255 bytes"}},
		"NUL":                      {func(t *testing.T, s *scene) { s.config.Lower[0] = "/a\x00b" }, nil, []string{"NUL"}},
		"upper without work":       {func(t *testing.T, s *scene) { s.config.Work = "" }, nil, []string{"upper", "without workdir", "workdir="}},
		"missing upper":            {func(t *testing.T, s *scene) { s.config.Upper += "x" }, unix.ENOENT, []string{"upper layer"}},
		"missing work":             {func(t *testing.T, s *scene) { s.config.Work += "x" }, unix.ENOENT, []string{"work directory"}},
		"upper is a file":          {func(t *testing.T, s *scene) { s.config.Upper = s.config.Lower[0] + "/top" }, unix.ENOTDIR, []string{"/top"}},
		"work elsewhere":           {func(t *testing.T, s *scene) { s.config.Work = tempOn(t, "/tmp") }, unix.EXDEV, []string{"another mount", "one mount"}},
		"work on another mount":    {func(t *testing.T, s *scene) { s.config.Work = bound(t, s.config.Work) }, unix.EXDEV, []string{"another mount"}},
		"upper is work":            {func(t *testing.T, s *scene) { s.config.Work = s.config.Upper }, nil, []string{"same folder"}},
		"work in upper":            {func(t *testing.T, s *scene) { s.config.Work = s.config.Upper + "/w"; mkdir(t, s.config.Work) }, nil, []string{"lies in the upper"}},
		"upper in work":            {func(t *testing.T, s *scene) { s.config.Upper = s.config.Work + "/u"; mkdir(t, s.config.Upper) }, nil, []string{"lies in the work"}},
		"upper is a lower":         {func(t *testing.T, s *scene) { s.config.Upper = s.config.Lower[1] }, nil, []string{"is the lower layer"}},
		"upper in a lower":         {func(t *testing.T, s *scene) { s.config.Upper = s.config.Lower[1] + "/shared" }, nil, []string{"lies in the lower layer"}},
		"lower in upper":           {func(t *testing.T, s *scene) { s.config.Upper = filepath.Dir(s.config.Lower[1]) }, nil, []string{"lower layer lies in"}},
		"work in a lower":          {func(t *testing.T, s *scene) { s.config.Work = s.config.Lower[1] + "/shared" }, nil, []string{"lies in the lower layer"}},
		"lower in work":            {func(t *testing.T, s *scene) { s.config.Work = filepath.Dir(s.config.Lower[1]) }, nil, []string{"lower layer lies in the work"}},
		"work not empty":           {func(t *testing.T, s *scene) { write(t, s.config.Work, "diary", "") }, unix.ENOTEMPTY, []string{"diary", "empty folder"}},
		"work of a volatile mount": {func(t *testing.T, s *scene) { mkdir(t, s.config.Work+"/work/incompat/volatile") }, nil, []string{"incompat/volatile", "throw"}},
		"no mount point":           {func(t *testing.T, s *scene) { s.config.Target = "" }, nil, []string{"no mount point"}},
		"missing mount point":      {func(t *testing.T, s *scene) { s.config.Target += "x" }, unix.ENOENT, []string{"mount point", "create the folder"}},
		"mount point is a file":    {func(t *testing.T, s *scene) { s.config.Target = s.config.Lower[0] + "/top" }, unix.ENOTDIR, []string{"mount point"}},
		"mount point in a lower":   {func(t *testing.T, s *scene) { s.config.Target = s.config.Lower[0] + "/shared" }, nil, []string{"mount point lies in this layer", "layers/0"}},
		"mount point in upper":     {func(t *testing.T, s *scene) { s.config.Target = s.config.Upper + "/m"; mkdir(t, s.config.Target) }, nil, []string{"mount point lies in this layer"}},
		"volatile without upper":   {func(t *testing.T, s *scene) { s.config.Upper, s.config.Work, s.config.Options.Volatile = "", "", true }, nil, []string{"volatile", "no upper"}},
		"unknown route":            {func(t *testing.T, s *scene) { s.config.Route = "scenic" }, nil, []string{"scenic", "auto, overlay, stacked, fuse"}},
		"contradiction":            {func(t *testing.T, s *scene) { s.config.Options.Metacopy, s.config.Options.RedirectDir = "on", "off" }, nil, []string{"metacopy=on,redirect_dir=off"}},
	} {
		for _, route := range []Route{Overlay, Stacked, FUSE} {
			t.Run(name+"/"+string(route), func(t *testing.T) {
				s := newScene(t, 3).writable(t)
				s.config.Route = route
				c.spoil(t, s)
				refused(t, s, c.cause, c.words...)
			})
		}
	}
}

// refused mounts, and expects an error and no change.
func refused(t *testing.T, s *scene, cause error, words ...string) {
	t.Helper()
	before := snapshot(t, s.dir)
	m, err := Mount(t.Context(), s.config)
	if err == nil {
		unmount(t, m)
		t.Fatal("it was mounted")
	}
	var e *Error
	if !errors.As(err, &e) || e.Hint == "" || (cause != nil && !errors.Is(err, cause)) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%#v: want one line from %v and what to do", err, cause)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v: no word on %q", err, w)
		}
	}
	if after := snapshot(t, s.dir); after != before {
		t.Errorf("the disk was changed from\n%s\nto\n%s", before, after)
	}
}

func tempOn(t *testing.T, dir string) string {
	t.Helper()
	made, err := os.MkdirTemp(dir, "overlayfallback")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(made) })
	return made
}

// bound gives another mount of the same folder.
func bound(t *testing.T, dir string) string {
	t.Helper()
	at := tempOn(t, "/tmp")
	if err := unix.Mount(dir, at, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("cannot bind: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// An upper layer serves one union at a time, whichever route has it and whichever wants it.
func TestUpperInUse(t *testing.T) {
	needMounts(t)
	for _, first := range []Route{Overlay, Stacked, FUSE} {
		for _, second := range []Route{Overlay, Stacked, FUSE} {
			t.Run(string(first)+"/"+string(second), func(t *testing.T) {
				s := newScene(t, 3).writable(t)
				s.config.Route = first
				m := mount(t, s.config)
				other := &scene{s.dir, s.config}
				other.config.Route, other.config.Target = second, filepath.Join(s.dir, "other")
				mkdir(t, other.config.Target)
				if second == FUSE {
					needFUSE(t)
				}
				if m, err := Mount(t.Context(), other.config); !errors.Is(err, unix.EBUSY) {
					t.Errorf("%v; want EBUSY", err)
					if err == nil {
						unmount(t, m)
					}
				}
				unmount(t, m)
				mount(t, other.config)
				other.verify(t)
			})
		}
	}
}

// A second union on the same mount point is a mistake; a union on anything else that is mounted is not.
func TestBusyMountPoint(t *testing.T) {
	needMounts(t)
	s := newScene(t, 2)
	if err := unix.Mount("tmpfs", s.config.Target, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(s.config.Target, unix.MNT_DETACH) })
	mount(t, s.config)
	s.verify(t)
	for _, route := range []Route{Overlay, FUSE} {
		again := s.config
		again.Route = route
		if _, err := Mount(t.Context(), again); !errors.Is(err, unix.EBUSY) {
			t.Errorf("%s: %v; want EBUSY", route, err)
		}
	}
}

// Any name that a folder can have is good for a layer.
func TestStrangeNames(t *testing.T) {
	needMounts(t)
	names := []string{"a,b", "a:b", `a\b`, `a\,b`, "a\nb", "a b", `a"b`, "a=b", "-o", "ü", `end\`, strings.Repeat("x", 255)}
	for _, c := range []struct {
		route  Route
		naming Naming
	}{{Overlay, Absolute}, {Overlay, Relative}, {Overlay, Descriptor}, {Overlay, FSConfig}, {Stacked, ""}, {FUSE, ""}} {
		t.Run(string(c.route)+string(c.naming), func(t *testing.T) {
			s := newScene(t, 0)
			for i, name := range names {
				layer := filepath.Join(s.dir, name)
				write(t, layer, "top", strconv.Itoa(i))
				write(t, layer, "own"+strconv.Itoa(i), strconv.Itoa(i))
				write(t, layer, "shared/from"+strconv.Itoa(i), strconv.Itoa(i))
			}
			s.config.Upper, s.config.Work = filepath.Join(s.dir, "up:,\\per"), filepath.Join(s.dir, "wo,:\nrk")
			s.config.Target = filepath.Join(s.dir, "mer,ged:\n\\")
			for _, d := range []string{s.config.Upper, s.config.Work, s.config.Target} {
				mkdir(t, d)
			}
			var written []string
			for _, name := range names {
				written = append(written, escape(filepath.Join(s.dir, name)))
			}
			if err := s.config.Set("lowerdir=" + strings.Join(written, ":")); err != nil {
				t.Fatal(err)
			}
			s.config.Route, s.config.Naming = c.route, c.naming
			m := mount(t, s.config)
			s.verify(t)
			s.verifyWritable(t)
			if err := Unmount(t.Context(), s.config.Target); err != nil {
				t.Error(err)
			}
			if err := m.Wait(); err != nil {
				t.Error(err)
			}
			s.nothingLeft(t)
		})
	}
}

// longScene has layers whose names take 128 KiB in all, in folders with names of 255 bytes.
func longScene(t *testing.T) *scene {
	t.Helper()
	s := newScene(t, 0)
	deep := filepath.Join(s.dir, strings.Repeat("d", 255), strings.Repeat("e", 255))
	total := 0
	for i := range 260 {
		s.addLayer(t, filepath.Join(deep, strconv.Itoa(i)))
		total += len(s.config.Lower[i])
	}
	if total < 128<<10 {
		t.Fatalf("only %d bytes", total)
	}
	return s
}

func TestLongNames(t *testing.T) {
	needMounts(t)
	s := longScene(t)
	for _, c := range []struct {
		route  Route
		naming Naming
	}{{Overlay, Relative}, {Overlay, Descriptor}, {Overlay, FSConfig}, {Stacked, ""}, {FUSE, ""}} {
		s.config.Route, s.config.Naming = c.route, c.naming
		m := mount(t, s.config)
		s.verify(t)
		unmount(t, m)
	}
}

// Layers are reached through symbolic links and `..` as they stand, with no cleaning: l/ID/../diff is not l/diff.
func TestPathsAreNotCleaned(t *testing.T) {
	needMounts(t)
	for _, c := range []struct {
		route  Route
		naming Naming
	}{{Overlay, Absolute}, {Overlay, Relative}, {Overlay, Descriptor}, {Overlay, FSConfig}, {FUSE, ""}} {
		s := newScene(t, 2)
		links := filepath.Join(s.dir, "l")
		mkdir(t, links)
		for i, layer := range s.config.Lower {
			if err := os.Rename(layer, filepath.Join(s.dir, "layers", "diff"+strconv.Itoa(i))); err != nil {
				t.Fatal(err)
			}
			mkdir(t, filepath.Join(s.dir, "layers", "link"))
			if err := os.Symlink("../layers/link", filepath.Join(links, strconv.Itoa(i))); err != nil {
				t.Fatal(err)
			}
			s.config.Lower[i] = links + "/" + strconv.Itoa(i) + "/../diff" + strconv.Itoa(i)
		}
		s.config.Route, s.config.Naming = c.route, c.naming
		m := mount(t, s.config)
		s.verify(t)
		unmount(t, m)
	}
}

// A read-only view of a writable union names upper and work, and writes to neither.
func TestReadOnlyViewWritesNothing(t *testing.T) {
	needMounts(t)
	for _, route := range []Route{Overlay, Stacked, FUSE} {
		s := newScene(t, 2).writable(t)
		write(t, s.config.Upper, "own1", "upper")
		s.config.Route, s.config.Options.ReadOnly = route, true
		before := snapshot(t, s.dir)
		m := mount(t, s.config)
		if got, err := os.ReadFile(s.config.Target + "/own1"); err != nil || string(got) != "upper" {
			t.Errorf("%s: own1 is %q, %v", route, got, err)
		}
		if err := os.WriteFile(s.config.Target+"/new", nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: writing gave %v", route, err)
		}
		if !m.Plan().ReadOnly {
			t.Errorf("%s: %+v", route, m.Plan())
		}
		unmount(t, m)
		if after := snapshot(t, s.dir); after != before {
			t.Errorf("%s: the disk was changed from\n%s\nto\n%s", route, before, after)
		}
	}
}

func TestUnmountRefuses(t *testing.T) {
	s := newScene(t, 1)
	for path, want := range map[string]error{
		s.dir:              errNotMounted,
		s.dir + "/missing": unix.ENOENT,
		"/proc":            errNotUnion,
	} {
		var e *Error
		if err := Unmount(t.Context(), path); !errors.As(err, &e) || !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", path, err, want)
		}
	}
}
