package whiteout_test

import (
	"math"
	"syscall"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

func TestNlink(t *testing.T) {
	for value, want := range map[string]whiteout.Nlink{
		"U+0": {Upper: true}, "L-3": {Diff: -3}, "U+2147483647": {Upper: true, Diff: math.MaxInt32}, "L-2147483648": {Diff: math.MinInt32},
	} {
		if got, err := whiteout.ParseNlink([]byte(value)); err != nil || got != want || got.String() != value {
			t.Errorf("%q: %+v, %v, written again as %q", value, got, err, got)
		}
	}
	for _, value := range []string{"", "U", "U+", "5", "X+1", "U++1", "U+1x", "U+2147483648", "L+00000000001"} {
		if got, err := whiteout.ParseNlink([]byte(value)); errnoOf(err) != syscall.EINVAL {
			t.Errorf("%q: %+v, %v", value, got, err)
		}
	}
}

func FuzzParseNlink(f *testing.F) {
	f.Add([]byte("U+1"))
	f.Fuzz(func(t *testing.T, value []byte) {
		n, err := whiteout.ParseNlink(value)
		if err != nil {
			return
		}
		if again, err := whiteout.ParseNlink([]byte(n.String())); err != nil || again != n {
			t.Errorf("%q is %+v, read again as %+v, %v", value, n, again, err)
		}
	})
}
