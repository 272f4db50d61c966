package overlaytest

import (
	"flag"
	"strings"
	"testing"
)

var killCount = flag.Int("kills", 100, "kills of each route")

// TestCrash kills the server at random moments under a mixed load.
func TestCrash(t *testing.T) {
	for _, route := range routes("fuse", "fuse,fastpath=passthrough") {
		t.Run(route.Title(), func(t *testing.T) {
			for i, options := range [][]string{{"redirect_dir=on", "index=off", "metacopy=off"}, {"redirect_dir=on", "index=on", "metacopy=on"}} {
				t.Run(strings.Join(options, ","), func(t *testing.T) {
					c := Crash{Route: route, Options: options, Seed: *firstSeed + uint64(i)*100}
					c.Run(t, *killCount/2)
				})
			}
		})
	}
}
