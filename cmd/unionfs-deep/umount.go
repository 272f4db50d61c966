package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

func umountCommand() *command {
	return &command{
		name:     "umount",
		operands: "MOUNTPOINT",
		summary:  "unmount a union, by whichever route it was mounted",
		details: `The command returns when the union is gone and, by the route fuse, its daemon
has written everything and ended. A union that is in use stays mounted, and the
exit status is 1. umount(8) and fusermount3 -u serve as well.
`,
		setup: func(*pflag.FlagSet) runFunc {
			return func(ctx context.Context, _ *env, operands []string) error {
				if len(operands) != 1 {
					return usagef("umount: name one mount point")
				}
				return overlayfallback.Unmount(ctx, operands[0])
			}
		},
	}
}
