package whiteout_test

import (
	"syscall"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

func TestProtection(t *testing.T) {
	for _, want := range []whiteout.Protection{{Append: true}, {Immutable: true}, {Append: true, Immutable: true}} {
		if got, err := whiteout.ParseProtection([]byte(want.String())); err != nil || got != want {
			t.Errorf("%+v is read again as %+v, %v", want, got, err)
		}
	}
	if s := (whiteout.Protection{}).String(); s != "" {
		t.Errorf("nothing to protect is written as %q", s)
	}
	for _, value := range []string{"", "x", "ax", "a\n"} {
		if got, err := whiteout.ParseProtection([]byte(value)); errnoOf(err) != syscall.EINVAL || got != (whiteout.Protection{}) {
			t.Errorf("%q: %+v, %v", value, got, err)
		}
	}
}

func FuzzParseProtection(f *testing.F) {
	f.Add([]byte("ai"))
	f.Fuzz(func(t *testing.T, value []byte) {
		p, err := whiteout.ParseProtection(value)
		if err != nil {
			return
		}
		if again, err := whiteout.ParseProtection([]byte(p.String())); err != nil || again != p {
			t.Errorf("%q is %+v, read again as %+v, %v", value, p, again, err)
		}
	})
}
