package main

import (
	"strings"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// remount does what the option remount asks for, and tells whether it was given. That takes no daemon: the mount is there, and its
// flags are the kernel's.
func remount(operands, options []string) (asked bool, err error) {
	given := strings.Join(options, ",")
	c := overlayfallback.Config{Lenient: true}
	if err := c.Set(given); err != nil || !c.Remount || len(operands) == 0 {
		return false, nil // what is wrong is said by who mounts
	}
	return true, overlayfallback.Remount(operands[len(operands)-1], given)
}
