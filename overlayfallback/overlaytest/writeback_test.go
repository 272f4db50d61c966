package overlaytest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestTimesWithWriteback holds against forgetting what programs were told of the times of files whose pages were written to the layer
// later. The kernel does not say the time of modification of a file written to within the tick in which it was made.
func TestTimesWithWriteback(t *testing.T) {
	s := Set{Lower: []Layer{{file("low", "old")}}}
	for _, route := range []Route{Kernel, "fuse,writeback", "fuse,writeback,fastpath=off"} {
		t.Run(route.Title(), func(t *testing.T) {
			m := Mount(t, route, mustBuild(t, s, TempDir(t)))
			Bound(t, caseTime, m)
			told := writtenTimes(t, m.Root)
			if err := callForget(nil, Op{}, nil); err != nil {
				t.Fatal(err)
			}
			for name, want := range told {
				if got := modified(t, filepath.Join(m.Root, name)); !got.Equal(want) {
					t.Errorf("%s was modified at %s, and at %s once the kernel had forgotten it", name, want, got)
				}
			}
		})
	}
}

// writtenTimes writes files, in one go and in several, and returns what their times of modification are before their pages are written.
func writtenTimes(t *testing.T, root string) map[string]time.Time {
	told := map[string]time.Time{}
	for i := range 40 {
		name := fmt.Sprint("new", i)
		if i == 0 {
			name = "low"
		}
		f, err := os.OpenFile(filepath.Join(root, name), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		for range 1 + i%3 {
			if _, err := f.WriteString("some data"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(i%2) * 5 * time.Millisecond)
		}
		told[name] = modified(t, f.Name())
		time.Sleep(5 * time.Millisecond) // a tick, after which the pages are written
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return told
}

func modified(t *testing.T, name string) time.Time {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}
