package whiteout_test

import (
	"bytes"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

func TestOpaque(t *testing.T) {
	for value, want := range map[string]whiteout.Opaqueness{
		"y": whiteout.Opaque, "x": whiteout.XattrWhiteouts, "": whiteout.NotOpaque, "n": whiteout.NotOpaque, "yy": whiteout.NotOpaque, "y\x00": whiteout.NotOpaque,
	} {
		if got := whiteout.ParseOpaque([]byte(value)); got != want {
			t.Errorf("opaque %q: %q, want %q", value, got, want)
		}
		if got := whiteout.ParseImpure([]byte(value)); got != (value == whiteout.ImpureValue) {
			t.Errorf("impure %q: %v", value, got)
		}
	}
	if whiteout.ParseOpaque(nil) != whiteout.NotOpaque || whiteout.NotOpaque.Bytes() != nil {
		t.Error("no xattr and NotOpaque do not stand for each other")
	}
}

func FuzzParseOpaque(f *testing.F) {
	f.Add([]byte("y"))
	f.Fuzz(func(t *testing.T, value []byte) {
		o := whiteout.ParseOpaque(value)
		if o != whiteout.NotOpaque && !bytes.Equal(o.Bytes(), value) {
			t.Errorf("%q is written again as %q", value, o.Bytes())
		}
		if whiteout.ParseOpaque(o.Bytes()) != o {
			t.Errorf("%q is read again as %q", o, whiteout.ParseOpaque(o.Bytes()))
		}
		if whiteout.ParseImpure(value) && string(value) != whiteout.ImpureValue {
			t.Errorf("%q is read as impure", value)
		}
	})
}
