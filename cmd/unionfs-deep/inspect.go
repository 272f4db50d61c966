package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
	"github.com/unionfs-deep/unionfs-deep/perf"
)

// inspection is what inspect shows of a mounted union.
type inspection struct {
	MountPoint string         `json:"mount_point"`
	Source     string         `json:"source"`
	Route      string         `json:"route"`
	Reason     string         `json:"reason,omitempty"`   // why this route; known to a daemon only
	PID        int            `json:"pid,omitempty"`      // of the daemon
	Fastpath   string         `json:"fastpath,omitempty"` // what auto has come to; known to a daemon only
	Upper      string         `json:"upper,omitempty"`
	Work       string         `json:"work,omitempty"`
	Lower      []string       `json:"lower"`
	Data       []string       `json:"data,omitempty"`
	Counters   *perf.Snapshot `json:"counters,omitempty"` // of a daemon
	Supplier   *supplier      `json:"supplier,omitempty"` // of the path that was asked about
	// Problem says why Supplier is missing although a path was asked about.
	Problem string `json:"problem,omitempty"`
}

func inspectCommand() *command {
	return &command{
		name:     "inspect",
		operands: "MOUNTPOINT [PATH]",
		summary:  "show the route, the layers and the counters of a mounted union",
		details:  inspectDetails,
		setup: func(flags *pflag.FlagSet) runFunc {
			asJSON := flags.Bool("json", false, "print JSON")
			return func(_ context.Context, e *env, operands []string) error {
				if len(operands) < 1 || len(operands) > 2 {
					return usagef("inspect: name a mount point and, if wanted, one path in it")
				}
				found, err := inspect(operands[0], strings.Join(operands[1:], ""))
				if err != nil {
					return err
				}
				if *asJSON {
					return printJSON(e.out, found)
				}
				return found.print(e.out)
			}
		},
	}
}

const inspectDetails = `With PATH, absolute or relative to the mount point, it also says which layer
supplies that name, and for a directory which layers are merged in it.

The counters are those of the daemon of a fuse mount: what reached it since it
was started. A kernel mount has none. Only root, the user who mounted and the
daemon's own user may ask. The kernel does not show all that it knows of its own
mounts: where layers were named relative to a folder PATH cannot be looked up,
and of a stacked mount only the layers of the outer one are listed.

Examples:
  unionfs-deep inspect /merged
  unionfs-deep inspect /merged etc/passwd
  unionfs-deep inspect --json /merged | jq .counters.requests
`

func inspect(mountPoint, path string) (*inspection, error) {
	entry, err := overlayfallback.MountAt(mountPoint)
	if err != nil {
		return nil, err
	}
	path = relativeTo(entry.Point, path)
	switch {
	case entry.Type == "overlay":
		return inspectKernel(entry, path)
	case strings.HasPrefix(entry.Type, "fuse"):
		served, err := ask(entry.Device, ownerOf(entry), question{Path: path})
		if err != nil {
			return nil, fmt.Errorf("inspect %q: %w", mountPoint, err)
		}
		served.MountPoint = entry.Point
		return &served, served.problem(mountPoint)
	}
	return nil, fmt.Errorf("inspect %q: the file system there is %s, and no union", mountPoint, entry.Type)
}

// relativeTo takes a path that was given absolute to where it lies in the union.
func relativeTo(mountPoint, path string) string {
	if filepath.IsAbs(path) {
		if rel, err := filepath.Rel(mountPoint, path); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return path
}

// inspectKernel describes a mount of kernel overlayfs by what the kernel shows of it.
func inspectKernel(entry overlayfallback.MountInfo, path string) (*inspection, error) {
	// A newer kernel may show options that we do not know yet.
	cfg := overlayfallback.Config{Source: entry.Source, Target: entry.Point, Lenient: true}
	if err := cfg.Set(entry.SuperOptions); err != nil {
		return nil, fmt.Errorf("inspect %q: read the kernel's options: %w", entry.Point, err)
	}
	route := overlayfallback.Overlay
	if cutInnerMount(&cfg) {
		route = overlayfallback.Stacked
	}
	found := inspectionOf(&cfg, route)
	if path == "" {
		return found, nil
	}
	for _, layer := range slices.Concat(cfg.Lower, cfg.Data) {
		if !filepath.IsAbs(layer) {
			return nil, fmt.Errorf("inspect %q: its layers are named in short, such as %q, and the kernel does not say of which folder", entry.Point, layer)
		}
	}
	var err error
	if found.Supplier, err = findSupplier(&cfg, path); err != nil {
		if route == overlayfallback.Stacked {
			err = fmt.Errorf("%w in the upper layers, and the kernel does not show which layers it has stacked below them", err)
		}
		return nil, fmt.Errorf("inspect %q: %w", entry.Point, err)
	}
	return found, nil
}

// cutInnerMount takes the inner mount of the stacked route out of the layers and tells whether there was one. It is in no
// folder, so the kernel shows its root as "/". What tells it from a layer of that name is xino=on, which that route sets.
func cutInnerMount(cfg *overlayfallback.Config) bool {
	last := len(cfg.Lower) - 1
	if last < 1 || cfg.Lower[last] != "/" || cfg.Options.XIno != "on" {
		return false
	}
	cfg.Lower = cfg.Lower[:last]
	return true
}

// inspectServed describes a union that this process serves.
func inspectServed(cfg *overlayfallback.Config, mounted *overlayfallback.Mounted, path string) *inspection {
	found := inspectionOf(cfg, mounted.Route())
	stats := mounted.Stats()
	found.Reason, found.PID = mounted.Plan().Reason, os.Getpid()
	found.Fastpath, found.Counters = string(stats.Profile), &stats.Requests
	if path == "" {
		return found
	}
	var err error
	if found.Supplier, err = findSupplier(asPlanned(cfg, mounted.Plan()), path); err != nil {
		found.Problem = err.Error()
	}
	return found
}

// asPlanned gives the configuration with what the planner has found out about the layers.
func asPlanned(cfg *overlayfallback.Config, plan *overlayfallback.Plan) *overlayfallback.Config {
	planned := *cfg
	planned.Options.UserXattr = plan.UserXattr
	if plan.AUFS {
		planned.Options.AUFS = "on"
	}
	return &planned
}

func inspectionOf(cfg *overlayfallback.Config, route overlayfallback.Route) *inspection {
	return &inspection{
		MountPoint: cfg.Target, Source: cfg.Source, Route: string(route),
		Upper: cfg.Upper, Work: cfg.Work, Lower: cfg.Lower, Data: cfg.Data,
	}
}

func (i *inspection) problem(mountPoint string) error {
	if i.Problem == "" {
		return nil
	}
	return fmt.Errorf("inspect %q: %s", mountPoint, i.Problem)
}

// ownerOf finds the user who made a FUSE mount.
func ownerOf(m overlayfallback.MountInfo) int {
	for option := range strings.SplitSeq(m.SuperOptions, ",") {
		if id, ok := strings.CutPrefix(option, "user_id="); ok {
			uid, err := strconv.Atoi(id)
			if err == nil {
				return uid
			}
		}
	}
	return 0
}

func (i *inspection) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(table, "%s:\t%v\n", name, value) }
	row("mount point", i.MountPoint)
	row("route", i.Route)
	if i.Reason != "" {
		row("reason", i.Reason)
	}
	if i.PID != 0 {
		row("daemon", i.PID)
		row("fastpath", i.Fastpath)
	}
	if i.Upper != "" {
		row("upper", i.Upper)
		row("work", i.Work)
	}
	if i.Route == string(overlayfallback.Stacked) {
		row("lower layers", fmt.Sprintf("%d, and those of the inner mount, which the kernel does not show", len(i.Lower)))
	} else {
		row("lower layers", len(i.Lower))
	}
	if s := i.Supplier; s != nil {
		row("path", s.Path+" ("+s.Type+")")
		row("supplied by", s.Layer)
		for _, layer := range s.Merge {
			row("merged with", layer)
		}
		if s.Data != "" {
			row("content from", s.Data)
		}
	} else {
		printLayers(row, i)
	}
	if i.Counters != nil {
		printCounters(row, i.Counters)
	}
	return table.Flush()
}

func printLayers(row func(string, any), i *inspection) {
	for _, layer := range i.Lower {
		row("  lower", layer)
	}
	for _, layer := range i.Data {
		row("  data", layer)
	}
}

func printCounters(row func(string, any), c *perf.Snapshot) {
	row("requests", fmt.Sprintf("%d (%d answered with an error)", c.Total, c.Errors))
	kinds := slices.SortedFunc(maps.Keys(c.Requests), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.Requests[b].Count, c.Requests[a].Count), cmp.Compare(a, b))
	})
	for _, kind := range kinds {
		row("  "+kind, c.Requests[kind].Count)
	}
	row("bytes", fmt.Sprintf("%d in, %d out", c.BytesIn, c.BytesOut))
	for _, value := range c.Values {
		row(strings.ReplaceAll(value.Name, "_", " "), value.Value)
	}
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
