package whiteout_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

func TestAUFS(t *testing.T) {
	for name, want := range map[string]struct {
		target string
		kind   whiteout.AUFSKind
	}{
		"file":            {"", whiteout.AUFSNone},
		".wh":             {"", whiteout.AUFSNone},
		".WH.file":        {"", whiteout.AUFSNone},
		"file.wh.":        {"", whiteout.AUFSNone},
		".wh.file":        {"file", whiteout.AUFSWhiteout},
		".wh..hidden":     {".hidden", whiteout.AUFSWhiteout},
		".wh....":         {"...", whiteout.AUFSWhiteout},
		".wh..wh":         {".wh", whiteout.AUFSWhiteout},
		".wh..wh..opq":    {"", whiteout.AUFSDirOpaque},
		".wh..wh.plnk":    {"", whiteout.AUFSReserved},
		".wh..wh..opq.wh": {"", whiteout.AUFSReserved},
		".wh.":            {"", whiteout.AUFSReserved},
		".wh..":           {"", whiteout.AUFSReserved},
		".wh...":          {"", whiteout.AUFSReserved},
	} {
		if target, kind := whiteout.ParseAUFS(name); target != want.target || kind != want.kind {
			t.Errorf("%q: %q, %d; want %q, %d", name, target, kind, want.target, want.kind)
		}
	}
	for target, want := range map[string]syscall.Errno{
		"file": 0, strings.Repeat("n", 251): 0, strings.Repeat("n", 252): syscall.ENAMETOOLONG,
		"": syscall.EINVAL, ".": syscall.EINVAL, "..": syscall.EINVAL, "a/b": syscall.EINVAL, ".wh.x": syscall.EINVAL, "a\x00": syscall.EINVAL,
	} {
		if name, err := whiteout.AUFSWhiteoutName(target); errnoOf(err) != want {
			t.Errorf("%.40q: %.40q, %v; want %v", target, name, err, want)
		}
	}
}

func FuzzParseAUFS(f *testing.F) {
	f.Add(".wh.file")
	f.Fuzz(func(t *testing.T, name string) {
		target, kind := whiteout.ParseAUFS(name)
		if kind != whiteout.AUFSWhiteout {
			if target != "" {
				t.Errorf("%q: kind %d with the target %q", name, kind, target)
			}
			return
		}
		if target == "" || target == "." || target == ".." {
			t.Errorf("%q hides %q", name, target)
		}
		if again, err := whiteout.AUFSWhiteoutName(target); err == nil && again != name {
			t.Errorf("%q is written again as %q", name, again)
		}
	})
}
