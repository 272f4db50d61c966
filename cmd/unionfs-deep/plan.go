package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

func planCommand() *command {
	return &command{
		name:     "plan",
		operands: "MOUNTPOINT",
		summary:  "show by which route mount would mount, and why not by the others",
		details: `Takes the same flags as mount, checks the same things and mounts nothing.

Examples:
  unionfs-deep plan -o lowerdir=/layers/2:/layers/1 /merged
  unionfs-deep plan --layers-file layers.txt --json /merged | jq -r .route
`,
		setup: func(flags *pflag.FlagSet) runFunc {
			var u unionFlags
			u.declare(flags)
			asJSON := flags.Bool("json", false, "print JSON")
			return func(ctx context.Context, e *env, operands []string) error {
				cfg, err := u.config(e, operands)
				if err != nil {
					return err
				}
				plan, err := overlayfallback.NewPlan(ctx, cfg)
				if err != nil {
					return err
				}
				if *asJSON {
					return printJSON(e.out, plan)
				}
				return printPlan(e.out, plan)
			}
		},
	}
}

func printPlan(w io.Writer, plan *overlayfallback.Plan) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "route:\t%s\t%s\n", plan.Route, plan.Reason)
	for _, passed := range plan.Passed {
		fmt.Fprintf(table, "not:\t%s\t%s\n", passed.Route, passed.Reason)
	}
	fmt.Fprintf(table, "layers:\t%d\n", plan.Layers)
	if plan.Naming != "" {
		fmt.Fprintf(table, "named:\t%s\t%d bytes of options\n", plan.Naming, plan.OptionBytes)
	}
	if plan.Folded > 0 {
		fmt.Fprintf(table, "folded:\t%d\tthe lowest layers, in an inner mount\n", plan.Folded)
	}
	fmt.Fprintf(table, "writable:\t%s\n", yesNo(!plan.ReadOnly))
	for _, warning := range plan.Warnings {
		fmt.Fprintf(table, "warning:\t%s\n", warning)
	}
	return table.Flush()
}
