package overlaytest

import "testing"

// TestRandomLayers compares random layer sets, mounted read-only and with an upper, between the kernel and each route.
func TestRandomLayers(t *testing.T) {
	for _, route := range routes("overlay", "fuse") {
		t.Run(route.Title(), func(t *testing.T) {
			eachSeed(t, func(t *testing.T, seed uint64) { JudgeSet(t, route, Generate(seed)) })
		})
	}
}
