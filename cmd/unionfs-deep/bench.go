package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/unionfs-deep/unionfs-deep/cmd/unionfs-deep/progress"
	"github.com/unionfs-deep/unionfs-deep/perf/bench"
)

// benchFlags are what bench is told beside what to measure.
type benchFlags struct {
	config bench.Config
	json   bool
	list   bool
	save   string
	from   []string
	report string
}

func benchCommand() *command {
	return &command{
		name:    "bench",
		summary: "do the same work on every way of mounting here, and compare",
		details: benchDetails,
		setup: func(flags *pflag.FlagSet) runFunc {
			var f benchFlags
			f.declare(flags)
			return func(ctx context.Context, e *env, operands []string) error {
				if len(operands) > 0 {
					return usagef("bench: %q: everything is given by flags", operands[0])
				}
				return f.run(ctx, e)
			}
		},
	}
}

func (f *benchFlags) declare(flags *pflag.FlagSet) {
	c := &f.config
	flags.StringSliceVar(&c.Only, "only", nil, "do these `WORKS` only, named as --list shows them")
	flags.IntSliceVar(&c.Depths, "depth", nil, "do each work with these `NUMBERS` of layers, not with its usual ones")
	flags.StringSliceVar(&c.Subjects, "subjects", nil, "compare these `SUBJECTS` only, named as --list shows them")
	flags.IntVar(&c.Runs, "runs", bench.DefaultRuns, "do each work so many `TIMES`")
	flags.IntVar(&c.Files, "files", bench.DefaultFiles, "small files in a layer set (`N`)")
	flags.IntVar(&c.DataMiB, "data", bench.DefaultDataMiB, "size of the large file, in `MIB`")
	flags.DurationVar(&c.Limit, "limit", bench.DefaultLimit, "`TIME` for all runs of one subject at one work and depth")
	flags.BoolVar(&c.Writable, "writable", false, "give mounts an upper directory also for works that only read")
	flags.StringVar(&c.Dir, "dir", "", "make the layers in `DIR` and keep them; default: a temporary directory")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	flags.BoolVar(&f.list, "list", false, "list works and subjects, and do nothing")
	flags.StringVar(&f.save, "save", "", "write the JSON to `FILE` also")
	flags.StringSliceVar(&f.from, "from", nil, "measure nothing: show what --save wrote to these `FILES`, together")
	flags.StringVar(&f.report, "report", "", "write results.md and a chart of each figure into `DIR`")
}

const benchDetails = `Every subject gets a fresh mount for each run, and the subjects take turns, so
that all meet the same moods of the machine. Medians are compared; a target that
was missed is marked FAIL. What is not installed, or cannot do a work, is left
out with a message. Nothing is left mounted, also after an interrupt.

The whole takes about an hour. It compares what there is as root; an ordinary
user runs it under unshare -Urm. The file system of --dir counts: works that
write measure it too.

Examples:
  unionfs-deep bench --only walk --depth 400 --runs 3
  unionfs-deep bench --subjects overlayfs,deep-cache,fuse-overlayfs-2 --only read
  unionfs-deep bench --only create --dir /dev/shm/bench
  unionfs-deep bench --save result.json --report results
`

func (f *benchFlags) run(ctx context.Context, e *env) error {
	if f.list {
		return listBench(e)
	}
	report, err := f.results(ctx, e)
	if report == nil {
		return err
	}
	if shown := f.show(report, e); err == nil {
		err = shown
	}
	return err
}

// results measures, or reads what was measured before. An interrupted run gives a report and an error.
func (f *benchFlags) results(ctx context.Context, e *env) (*bench.Report, error) {
	if len(f.from) > 0 {
		return readReports(f.from)
	}
	return f.measure(ctx, e)
}

func readReports(paths []string) (*bench.Report, error) {
	var all *bench.Report
	for _, path := range paths {
		in, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		report, err := bench.ReadJSON(in)
		in.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if all == nil {
			all = report
		} else {
			all.Merge(report)
		}
	}
	return all, nil
}

func (f *benchFlags) measure(ctx context.Context, e *env) (*bench.Report, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("bench: find this program, to run it as a daemon: %w", err)
	}
	f.config.Binary, f.config.Command = binary, append([]string{"unionfs-deep"}, os.Args[1:]...)
	bar := progress.New(os.Stderr, "", 1)
	f.config.Progress = func(done, total int, what string) {
		bar = progress.New(os.Stderr, what, total)
		bar.Add(done)
	}
	f.config.Message = func(text string) {
		bar.End()
		fmt.Fprintln(e.err, text)
	}
	began := time.Now()
	report, err := bench.Run(ctx, f.config)
	bar.End()
	e.log.Info("bench ended", "took", time.Since(began))
	return report, err
}

func (f *benchFlags) show(report *bench.Report, e *env) error {
	if f.save != "" {
		if err := saveReport(report, f.save); err != nil {
			return err
		}
	}
	if f.report != "" {
		if err := report.WriteDocument(f.report); err != nil {
			return err
		}
	}
	if f.json {
		return report.WriteJSON(e.out)
	}
	return report.WriteTable(e.out)
}

func saveReport(report *bench.Report, path string) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	return report.WriteJSON(out)
}

// listBench shows the names that --only and --subjects know.
func listBench(e *env) error {
	fmt.Fprintln(e.out, "Works, and the figures that each yields:")
	for _, w := range bench.Works() {
		note := ""
		if w.Needs().Named {
			note = " (only when named)"
		}
		fmt.Fprintf(e.out, "  %s%s, at %d layers\n", w.Name(), note, w.Depths())
		for _, figure := range w.Figures() {
			fmt.Fprintf(e.out, "    %-18s %s\n", figure.Name, figure.Title)
		}
	}
	fmt.Fprintln(e.out, "Subjects:")
	for _, s := range bench.Subjects("", false) {
		fmt.Fprintf(e.out, "  %s\n", s.Name())
	}
	return nil
}
