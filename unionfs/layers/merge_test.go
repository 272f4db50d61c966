package layers

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// describe is an entry in a line: name, type, place, further places, and whether it covers something.
func describe(l *Listing[struct{}]) []string {
	types := map[uint8]string{unix.DT_DIR: "dir", unix.DT_REG: "file", unix.DT_LNK: "link", unix.DT_FIFO: "fifo"}
	var all []string
	l.All(func(e *Entry[struct{}]) bool {
		s := fmt.Sprint(e.Name, " ", types[e.Type], " ", e.Place)
		if more := l.More[e.Cookie]; len(more) > 0 {
			s += fmt.Sprint(" ", more)
		}
		if e.Place == InUpper && e.Covers {
			s += " covers"
		}
		all = append(all, s)
		return true
	})
	slices.Sort(all)
	return all
}

func TestMerge(t *testing.T) {
	needRoot(t)
	cases := []struct {
		name   string
		layers []string // the first is the upper layer
		aufs   bool
		want   []string
	}{
		{"one layer", []string{"", "f a 1\nd b\nl c a\np d"}, false,
			[]string{"a file 0", "b dir 0", "c link 0", "d fifo 0"}},
		{"the topmost counts", []string{"f a 1", "d a\nf b 1", "l b x"}, false,
			[]string{"a file -1 covers", "b file 0"}},
		{"directories merge", []string{"d d", "d d", "f x 1", "d d"}, false,
			[]string{"d dir -1 [0 2] covers", "x file 1"}},
		{"a file ends a directory", []string{"", "d d", "f d 1", "d d"}, false,
			[]string{"d dir 0"}},
		{"whiteouts", []string{"w a", "f a 1\nw b\nf c 1", "f b 1\nf d 1"}, false,
			[]string{"c file 0", "d file 1"}},
		{"a whiteout ends a directory", []string{"", "d d", "w d", "d d"}, false,
			[]string{"d dir 0"}},
		{"made again over a whiteout", []string{"d d", "w d", "d d"}, false,
			[]string{"d dir -1"}},
		{"xattr whiteouts", []string{"", "x a\nf b 1", "f a 1\nf b 1"}, false,
			[]string{"b file 0"}},
		{"AUFS names count for nothing", []string{"", "f .wh.a 1", "f a 1"}, false,
			[]string{".wh.a file 0", "a file 1"}},
		{"AUFS whiteout", []string{"", "f .wh.a 1\nf b 1", "f a 1\nf b 1"}, true,
			[]string{"b file 0"}},
		{"AUFS whiteout of a name of its own layer", []string{"", "f .wh.a 1\nf a 1", "f a 1"}, true,
			[]string{"a file 0"}},
		{"AUFS whiteout ends a directory", []string{"", "d d\nf .wh.d 1", "d d"}, true,
			[]string{"d dir 0"}},
		{"AUFS whiteout below an upper file", []string{"f a 1", "f .wh.a 1", "f a 1"}, true,
			[]string{"a file -1"}},
		{"AUFS's opaque root", []string{"", "f .wh..wh..opq 1\nf b 1", "f a 1"}, true,
			[]string{"b file 0"}},
		{"AUFS's own names", []string{"", "d .wh..wh.plnk\nf .wh. 1\nf .wh.. 1\nf .wh... 1", "f a 1"}, true,
			[]string{"a file 1"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dirs := plantLayers(t, c.layers...)
			s := openStack(t, Config{Upper: dirs[0], Lower: dirs[1:], AUFS: c.aufs})
			l, err := Merge[struct{}](s, Borrow(openRootOf(t, dirs[0])), s.Roots())
			if err != nil {
				t.Fatal(err)
			}
			if got := describe(l); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// Opaque directories cut a merge off, in either form.
func TestLookupOpaque(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		marked string
		aufs   bool
		want   int
	}{
		{"d d", true, 2},
		{"d d\no d", true, 1},
		{"f d/.wh..wh..opq 1", true, 1},
		{"f d/.wh..wh..opq 1", false, 2},
		{"d d/.wh..wh..opq", true, 1},
	} {
		s := openStack(t, Config{Lower: plantLayers(t, c.marked, "f d/a 1"), AUFS: c.aufs})
		found, err := s.Lookup(&Dir{Places: s.Roots()}, "d", Candidates{Places: []int32{0, 1}})
		if err != nil || len(found.Places) != c.want {
			t.Errorf("%q, AUFS %v: %d places, %v; want %d", c.marked, c.aufs, len(found.Places), err, c.want)
		}
	}
}

// An opaque root directory hides all layers below, for names, for merged directories and for redirects to a path in the union.
func TestOpaqueRoot(t *testing.T) {
	for _, c := range []struct {
		layers []string // upper, then lower, topmost first
		aufs   bool
		want   int // lower layers that are left
	}{
		{[]string{"", "f a 1", "f b 1"}, true, 2},
		{[]string{"", "f .wh..wh..opq 1\nf a 1", "f b 1"}, true, 1},
		{[]string{"", "f .wh..wh..opq 1\nf a 1", "f b 1"}, false, 2},
		{[]string{"", "f a 1", "f .wh..wh..opq 1\nf b 1"}, true, 2},
		{[]string{"", "d .wh..wh..opq", "f b 1"}, true, 1},
		{[]string{"f .wh..wh..opq 1", "f a 1", "f b 1"}, true, 0},
	} {
		dirs := plantLayers(t, append(c.layers, "f data 1")...)
		s := openStack(t, Config{Upper: dirs[0], Lower: dirs[1:3], Data: dirs[3:], AUFS: c.aufs})
		if len(s.Lower) != c.want || len(s.Roots()) != c.want {
			t.Errorf("%q, AUFS %v: %d lower layers, want %d", c.layers, c.aufs, len(s.Lower), c.want)
		}
		if n := s.Data[0].Index; n != c.want+1 {
			t.Errorf("%q, AUFS %v: the data-only layer is number %d", c.layers, c.aufs, n)
		}
	}
}

// A directory that is read leaves its layer as it was.
func TestMergeLeavesAccessTimes(t *testing.T) {
	dirs := plantLayers(t, "f d/a 1")
	old := time.Unix(1_000_000_000, 0)
	for _, path := range []string{dirs[0] + "/d", dirs[0]} {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	walkStack(openStack(t, Config{Lower: dirs}))
	for _, path := range []string{dirs[0] + "/d", dirs[0]} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Atim.Sec != old.Unix() {
			t.Errorf("%s was last read at %v (%v)", path, time.Unix(st.Atim.Unix()), err)
		}
	}
}

// Names of a directory that another process changes while it is read are found or not, and nothing else happens.
func TestMergeWhileNamesChange(t *testing.T) {
	needRoot(t)
	dirs := plantLayers(t, "", "f z 1")
	root := openRootOf(t, dirs[0])
	for i := range 200 {
		plant(t, dirs[0], fmt.Sprintf("f f%d 1\nw w%d", i, i))
	}
	stop := swapUntil(t, root, "f7", "w8")
	defer stop()
	s := openStack(t, Config{Lower: dirs})
	for range 50 {
		l, err := Merge[struct{}](s, nil, s.Roots())
		if err != nil {
			t.Fatal(err)
		}
		if l.Find("z") == nil || l.Find("f9") == nil || l.Find("w9") != nil {
			t.Fatal("names that do not change are wrong")
		}
	}
}

func TestNamesOfEachLength(t *testing.T) {
	dirs := plantLayers(t, "")
	for n := 1; n <= 255; n++ {
		plant(t, dirs[0], "f "+strings.Repeat("n", n))
	}
	s := openStack(t, Config{Lower: dirs})
	l, err := Merge[struct{}](s, nil, s.Roots())
	if err != nil || l.Len() != 255 {
		t.Fatalf("%d names, %v", l.Len(), err)
	}
	for n := 1; n <= 255; n++ {
		if l.Find(strings.Repeat("n", n)) == nil {
			t.Errorf("the name of %d bytes is missing", n)
		}
	}
}

// FuzzDirents feeds the parser of getdents64's answers. The kernel lets no name with a slash through (verify_dirent_name).
func FuzzDirents(f *testing.F) {
	f.Add(dirent("name", unix.DT_REG, 24))
	f.Add(append(dirent(".", unix.DT_DIR, 24), dirent("a/b", unix.DT_DIR, 24)...))
	f.Add(dirent("", unix.DT_REG, 24))
	f.Add(dirent("short", unix.DT_REG, 3))
	f.Add(dirent("beyond", unix.DT_REG, 4000))
	f.Add(dirent("unknown", 77, 32))
	f.Fuzz(func(t *testing.T, buf []byte) {
		m := merger[int]{s: &Stack{}, out: NewListing[int]()}
		in := instance[int]{m: &m, dir: Borrow(-1), whiteouts: whiteoutsNone}
		_, _ = in.addAll(buf)
		in.finish()
		m.dropWhiteouts()
		m.out.All(func(e *Entry[int]) bool {
			if e.Name == "." || e.Name == ".." || strings.Contains(e.Name, "\x00") {
				t.Errorf("name %q was taken", e.Name)
			}
			return true
		})
	})
}

// dirent is one record as getdents64 gives it, of the given length.
func dirent(name string, typ uint8, reclen uint16) []byte {
	b := make([]byte, 19, 19+len(name)+1)
	b[16], b[17], b[18] = byte(reclen), byte(reclen>>8), typ
	b = append(append(b, name...), 0)
	for len(b) < int(reclen) && len(b) < 64 {
		b = append(b, 0)
	}
	return b
}

// FuzzRedirect looks a file up that a redirect with any value sends elsewhere: nothing outside the layers is ever found.
func FuzzRedirect(f *testing.F) {
	needRoot(f)
	for _, seed := range []string{"/d/g", "g", "../out", "/../out", "/d/../g", "/", "//", "", "/d//g", "\x00", "/d/g\x00x", "a/b",
		strings.Repeat("n", 300), "/" + strings.Repeat("n", 5000) + "/g", "/d/" + strings.Repeat("e/", 3000) + "g"} {
		f.Add([]byte(seed))
	}
	root := f.TempDir()
	plant(f, root, "m top/f 1\nd top/dir\nf low/d/g inside\nf low/g inside\nf data/d/g inside\nf out outside")
	s := openStack(f, Config{Lower: []string{root + "/top", root + "/low"}, Data: []string{root + "/data"}, Redirect: true, Metacopy: true})
	dir := Dir{Places: s.Roots()}
	f.Fuzz(func(t *testing.T, value []byte) {
		if unix.Lsetxattr(root+"/top/f", namespace.Redirect(), value, 0) != nil || unix.Lsetxattr(root+"/top/dir", namespace.Redirect(), value, 0) != nil {
			t.Skip("not a value that the file system takes")
		}
		if found, err := s.Lookup(&dir, "f", Candidates{Places: []int32{0, 1}}); err == nil {
			if got := readFound(s, &dir, "f", found); strings.Contains(got, "outside") {
				t.Errorf("%q led out", value)
			}
		}
		if found, err := s.Lookup(&dir, "dir", Candidates{Places: []int32{0, 1}}); err == nil {
			u := union{}
			walkDir(s, u, "", &Dir{Places: found.Places, Origin: found.Origin})
			if _, ok := u["out"]; ok {
				t.Errorf("%q led out", value)
			}
		}
	})
}

func BenchmarkMerge(b *testing.B) {
	for _, size := range []struct{ layers, names int }{{1, 100}, {1, 10_000}, {10, 100}, {400, 5}} {
		b.Run(fmt.Sprintf("%d layers of %d names", size.layers, size.names), func(b *testing.B) {
			var trees []string
			for i := range size.layers {
				var tree strings.Builder
				for j := range size.names {
					fmt.Fprintf(&tree, "f %d-%d 1\n", i, j)
				}
				trees = append(trees, tree.String())
			}
			s := openStack(b, Config{Lower: plantLayers(b, trees...), Descriptors: 1000})
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := Merge[*int](s, nil, s.Roots()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	s := openStack(b, Config{Lower: plantLayers(b, "d d", "f d/f 1")})
	dir := Dir{Places: s.Roots()}
	b.ReportAllocs()
	for range b.N {
		if _, err := s.Lookup(&dir, "d", Candidates{Places: []int32{0, 1}}); err != nil {
			b.Fatal(err)
		}
	}
}
