package whiteout_test

import (
	"bytes"
	"strings"
	"syscall"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

func TestParseRedirect(t *testing.T) {
	for _, test := range []struct {
		value string
		want  whiteout.Redirect
		errno syscall.Errno
	}{
		{"name", whiteout.Redirect{Path: "name"}, 0},
		{"/name", whiteout.Redirect{Absolute: true, Path: "name"}, 0},
		{"/a/b/c", whiteout.Redirect{Absolute: true, Path: "a/b/c"}, 0},
		{"/a/..b/...", whiteout.Redirect{Absolute: true, Path: "a/..b/..."}, 0},
		{"a\x00/b", whiteout.Redirect{Path: "a"}, 0},
		{"", whiteout.Redirect{}, syscall.EINVAL},
		{"/", whiteout.Redirect{}, syscall.EINVAL},
		{"//a", whiteout.Redirect{}, syscall.EINVAL},
		{"/a/", whiteout.Redirect{}, syscall.EINVAL},
		{"a/b", whiteout.Redirect{}, syscall.EINVAL},
		{"../b", whiteout.Redirect{}, syscall.EINVAL},
		{"\x00a", whiteout.Redirect{}, syscall.EACCES},
		{"..", whiteout.Redirect{Path: ".."}, syscall.EACCES},
		{"/a/../b", whiteout.Redirect{Absolute: true, Path: "a/../b"}, syscall.EACCES},
		{"/" + strings.Repeat("a", 64<<10), whiteout.Redirect{}, syscall.EINVAL},
	} {
		got, err := whiteout.ParseRedirect([]byte(test.value))
		if got != test.want || errnoOf(err) != test.errno {
			t.Errorf("%.40q: %+v, %v; want %+v, %v", test.value, got, err, test.want, test.errno)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%.40q: the error has %d bytes", test.value, len(err.Error()))
		}
	}
}

func TestNewRedirect(t *testing.T) {
	for path, want := range map[string]syscall.Errno{
		"name": 0, "/a/b": 0, strings.Repeat("n", 255): 0, "/" + strings.Repeat("n", 255): 0,
		strings.Repeat("n", 256): syscall.EXDEV, "/" + strings.Repeat("n", 256): syscall.EXDEV,
		"a/b": syscall.EINVAL, "": syscall.EINVAL, "a\x00": syscall.EINVAL, "/..": syscall.EACCES,
	} {
		r, err := whiteout.NewRedirect(path)
		if errnoOf(err) != want || want == 0 && r.String() != path {
			t.Errorf("%.40q: %q, %v; want %v", path, r, err, want)
		}
	}
}

// FuzzParseRedirect holds that what is accepted stays inside a layer and is written as it was read.
func FuzzParseRedirect(f *testing.F) {
	f.Add([]byte("/a/b"))
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := whiteout.ParseRedirect(value)
		if err != nil {
			return
		}
		text, _, _ := bytes.Cut(value, []byte{0})
		if r.String() != string(text) {
			t.Errorf("%q is written again as %q", value, r)
		}
		for _, element := range strings.Split(r.Path, "/") {
			if element == "" || element == "." || element == ".." {
				t.Errorf("%q has the element %q", value, element)
			}
		}
		if !r.Absolute && strings.Contains(r.Path, "/") {
			t.Errorf("%q leaves its directory", value)
		}
		if again, err := whiteout.ParseRedirect([]byte(r.String())); err != nil || again != r {
			t.Errorf("%+v is read again as %+v, %v", r, again, err)
		}
	})
}
