package whiteout_test

import (
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
	"golang.org/x/sys/unix"
)

func TestIsDevice(t *testing.T) {
	for _, test := range []struct {
		mode uint32
		rdev uint64
		want bool
	}{
		{whiteout.DeviceMode, whiteout.DeviceNumber, true},
		{unix.S_IFCHR | 0o666, 0, true},
		{unix.S_IFCHR, unix.Mkdev(0, 1), false},
		{unix.S_IFCHR, unix.Mkdev(1, 3), false},
		{unix.S_IFBLK, 0, false},
		{unix.S_IFREG, 0, false},
	} {
		if got := whiteout.IsDevice(test.mode, test.rdev); got != test.want {
			t.Errorf("mode %#o, rdev %#x: %v", test.mode, test.rdev, got)
		}
	}
}

func TestIsXattrWhiteout(t *testing.T) {
	for _, test := range []struct {
		mode    uint32
		size    int64
		present bool
		want    bool
	}{
		{unix.S_IFREG | 0o644, 0, true, true},
		{unix.S_IFREG, 0, false, false},
		{unix.S_IFREG, 1, true, false},
		{unix.S_IFDIR, 0, true, false},
		{unix.S_IFCHR, 0, true, false},
	} {
		if got := whiteout.IsXattrWhiteout(test.mode, test.size, test.present); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
