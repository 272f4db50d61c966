package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

func mountCommand() *command {
	return &command{
		name:     "mount",
		operands: "MOUNTPOINT",
		summary:  "mount a union of layers",
		details:  mountDetails,
		setup: func(flags *pflag.FlagSet) runFunc {
			var u unionFlags
			var s serving
			u.declare(flags)
			flags.BoolVarP(&s.foreground, "foreground", "f", false, "stay in the foreground until the union is unmounted")
			flags.StringVar(&s.metrics, "metrics", "",
				"serve counters on http://`ADDR`/metrics in the Prometheus text format (fuse only)")
			flags.StringVar(&s.logFile, "log-file", "", "a daemon logs to `FILE` and not to syslog")
			return func(ctx context.Context, e *env, operands []string) error {
				if asked, err := remount(operands, u.options); asked {
					return err
				}
				return s.run(ctx, e, func() (overlayfallback.Config, error) { return u.config(e, operands) })
			}
		},
	}
}

const mountDetails = `The command returns once the union answers. By the routes overlay and stacked
nothing stays behind in memory; by the route fuse a daemon of this user serves
the union until it is unmounted. On failure there is one line on standard error,
no mount and no process.

With -o remount the flags of a mounted union are changed, such as ro, rw or noexec.

A daemon ends on SIGTERM or SIGINT: it unmounts, waits 5 seconds for files that are
still open, and writes everything. On SIGUSR1 it logs its counters.

Options:
` + optionsHelp + `
Examples:
  unionfs-deep mount -o lowerdir=/layers/1,upperdir=/up,workdir=/work /merged
  ls -d /layers/* | sort -rV | unionfs-deep mount --layers-file - /merged
  unionfs-deep mount --route fuse -o lowerdir=/a:/b,fastpath=off /merged
`
