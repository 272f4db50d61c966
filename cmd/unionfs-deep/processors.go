package main

import (
	"os"
	"runtime"
)

// giveLoopsProcessors lets more goroutines run at once than there are processors, unless the user has said how many may. A loop that
// has a request must not wait until another goroutine, which merges directories or collects garbage, gives its place up: which of
// them runs is better known to the kernel.
func giveLoopsProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	}
}
