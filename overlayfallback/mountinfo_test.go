package overlayfallback

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMount(t *testing.T) {
	const line = `36 35 0:98 / /mnt\040a\134b rw shared:1 - fuse.unionfs-deep a\011b rw,user_id=1000,group_id=0` + "\n"
	want := MountInfo{36, "0:98", `/mnt a\b`, "rw", FSType, "a\tb", "rw,user_id=1000,group_id=0"}
	if got, ok := parseMount(line); !ok || got != want {
		t.Errorf("%+v; want %+v", got, want)
	}
	for _, line := range []string{"", "36 35 98:0 / /mnt rw", "x 35 98:0 / /mnt rw - ext4 /dev/sda rw", " - a b c"} {
		if got, ok := parseMount(line); ok {
			t.Errorf("%q gave %+v", line, got)
		}
	}
}

// The kernel's line about an overlay names every layer, here in far more than 64 KiB.
func TestMountAtOfALongLine(t *testing.T) {
	needMounts(t)
	s := longScene(t)
	s.config.Route, s.config.Naming = Overlay, FSConfig
	m := mount(t, s.config)
	at, err := MountAt(s.config.Target)
	if err != nil || at != m.entry || at.Type != "overlay" {
		t.Fatalf("%+v, %v", at, err)
	}
	lowest := s.config.Lower[len(s.config.Lower)-1]
	if len(at.SuperOptions) < 128<<10 || !strings.Contains(at.SuperOptions, lowest) {
		t.Errorf("%d bytes of options do not name the lowest layer", len(at.SuperOptions))
	}
}

func TestMountAtOfNoMount(t *testing.T) {
	s := newScene(t, 1)
	for path, want := range map[string]error{s.dir: errNotMounted, s.dir + "/missing": unix.ENOENT} {
		var e *Error
		if m, err := MountAt(path); !errors.As(err, &e) || !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v; want %v", path, m, err, want)
		}
	}
}
