package whiteout_test

import (
	"bytes"
	"reflect"
	"syscall"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

func TestMetacopy(t *testing.T) {
	digest := bytes.Repeat([]byte{7}, 32)
	for _, test := range []struct {
		value        []byte
		parse, check syscall.Errno
		again        []byte
	}{
		{nil, 0, 0, []byte{}},
		{[]byte{0}, syscall.EIO, 0, nil},
		{[]byte{0, 3, 0}, syscall.EIO, 0, nil},
		{[]byte{0, 4, 0, 0}, 0, 0, []byte{}},
		{[]byte{0, 0, 0, 0}, 0, 0, []byte{}},
		{append([]byte{0, 36, 0, 1}, digest...), 0, 0, append([]byte{0, 36, 0, 1}, digest...)},
		{append([]byte{0, 35, 0, 1}, digest...), 0, syscall.EIO, append([]byte{0, 36, 0, 1}, digest...)},
		{append([]byte{1, 36, 0, 1}, digest...), 0, syscall.EIO, append([]byte{1, 36, 0, 1}, digest...)},
		{append([]byte{0, 4, 0, 1}, make([]byte, 65)...), 0, syscall.EIO, append([]byte{0, 68, 0, 1}, make([]byte, 64)...)},
	} {
		m, err := whiteout.ParseMetacopy(test.value)
		if errnoOf(err) != test.parse {
			t.Errorf("%x: %v, want %v", test.value, err, test.parse)
		}
		if err != nil {
			continue
		}
		if err := m.Check(); errnoOf(err) != test.check {
			t.Errorf("%x: Check: %v, want %v", test.value, err, test.check)
		}
		if got := m.Bytes(); !bytes.Equal(got, test.again) || got == nil {
			t.Errorf("%x is written again as %x, want %x", test.value, got, test.again)
		}
	}
}

func FuzzParseMetacopy(f *testing.F) {
	f.Add([]byte{0, 4, 0, 0})
	f.Fuzz(func(t *testing.T, value []byte) {
		m, err := whiteout.ParseMetacopy(value)
		if accepted := len(value) == 0 || len(value) >= 4; accepted != (err == nil) {
			t.Errorf("%d bytes: %v", len(value), err)
		}
		if err != nil || m.Check() != nil {
			return
		}
		stored := m.Bytes()
		if len(stored) > 0 && !bytes.Equal(stored, value) {
			t.Errorf("%x is written again as %x", value, stored)
		}
		if again, err := whiteout.ParseMetacopy(stored); err != nil || len(stored) > 0 && !reflect.DeepEqual(again, m) {
			t.Errorf("%+v is read again as %+v, %v", m, again, err)
		}
	})
}
