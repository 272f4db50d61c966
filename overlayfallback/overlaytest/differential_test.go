package overlaytest

import "testing"

// profiles are the mount options under which random programs run, one after the other.
var profiles = [][]string{
	{"redirect_dir=on", "metacopy=off", "index=off"},
	{"redirect_dir=on", "metacopy=on", "index=on"},
	{"redirect_dir=off", "metacopy=off", "index=on"},
	{"redirect_dir=nofollow", "metacopy=off", "index=off"},
	{"userxattr"},
}

// TestDifferential runs random programs on the kernel and on each route in lock step.
func TestDifferential(t *testing.T) {
	for _, route := range routes("fuse", "fuse,fastpath=passthrough", "fuse,fastpath=off", "fuse,writeback") {
		t.Run(route.Title(), func(t *testing.T) {
			eachSeed(t, func(t *testing.T, seed uint64) {
				s := BaseSet(seed, profiles[seed%uint64(len(profiles))])
				JudgeProgram(t, route, s, DrawProgram(seed, *opCount, s))
			})
		})
	}
}
