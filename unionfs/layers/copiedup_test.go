package layers

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCopiedUpKeepsPlaces holds that a directory which is copied up, forgotten and looked up again still merges with all
// that it did.
func TestCopiedUpKeepsPlaces(t *testing.T) {
	l := NewListing[int]()
	e := l.Add(Entry[int]{Name: "d", Place: 3, Type: unix.DT_DIR})
	l.More = map[uint64][]int32{e.Cookie: {5, 7}}
	l.CopiedUp(e, 42)
	l.CopiedUp(e, 42)
	if got := l.More[e.Cookie]; e.Place != InUpper || e.Ino != 42 || !e.Covers || !slices.Equal(got, []int32{3, 5, 7}) {
		t.Errorf("entry %+v, places %v: want the upper over 3, 5, 7", *e, got)
	}
}
