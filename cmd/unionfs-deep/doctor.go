package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

func doctorCommand() *command {
	return &command{
		name:    "doctor",
		summary: "show what this kernel lets this user do",
		details: `Each line is the result of a trial that leaves nothing behind, not of a version
number. The exit status is 0 if at least one route works here, else 1.
`,
		setup: func(flags *pflag.FlagSet) runFunc {
			asJSON := flags.Bool("json", false, "print JSON")
			return func(ctx context.Context, e *env, operands []string) error {
				if len(operands) != 0 {
					return usagef("doctor takes no operands")
				}
				found := overlayfallback.Probe(ctx)
				if err := printDiagnosis(e.out, found, *asJSON); err != nil {
					return err
				}
				if !found.Overlay.OK && !fuseWorks(found) {
					return silentError(exitFailed)
				}
				return ctx.Err()
			}
		},
	}
}

// fuseWorks tells whether the fuse route can be taken: by our own mount, or by the setuid helper. The helper too opens the
// device with no more than this user's rights.
func fuseWorks(c overlayfallback.Capabilities) bool {
	return c.Device.OK && (c.FUSEMount.OK || c.Fusermount.OK)
}

func printDiagnosis(w io.Writer, c overlayfallback.Capabilities, asJSON bool) error {
	if asJSON {
		return printJSON(w, c)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if c.UserNamespace {
		fmt.Fprintln(w, "This process is in a user namespace.")
	}
	for _, line := range []struct {
		what string
		overlayfallback.Ability
	}{
		{"kernel overlayfs", c.Overlay},
		{"  the new mount API (fsopen)", c.MountAPI},
		{"  layers one by one, by path", c.LowerPaths},
		{"  layers one by one, by descriptor", c.LowerFDs},
		{"  layers on a mount in no folder", c.Detached},
		{"  data-only layers without metacopy", c.DataOnly},
		{"  a working directory of its own for a thread", c.OwnThread},
		{"  trusted.overlay.* attributes", c.TrustedXattr},
		{"  user.overlay.* attributes (userxattr)", c.UserXattr},
		{"  security labels (context=)", c.Labels},
		{"FUSE: open /dev/fuse", c.Device},
		{"  mount without a helper", c.FUSEMount},
		{"  mount by fusermount3", c.Fusermount},
		{"  passthrough to the layers' files", c.Passthrough},
		{"  safe path resolution (openat2)", c.Openat2},
	} {
		fmt.Fprintf(table, "%s\t%s\t%s\n", line.what, yesNo(line.OK), line.Why)
	}
	return table.Flush()
}

func yesNo(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}
