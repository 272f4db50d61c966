package bench

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
)

// Work is something that is done in a mount, and timed.
type Work interface {
	// Name is how --only calls it.
	Name() string
	// Figures are what it yields, each by one call of Bed.Time or Bed.Record in every run.
	Figures() []Figure
	// Depths are the numbers of layers that it is done with unless others are asked for.
	Depths() []int
	// Needs says what kind of mount and machine it takes.
	Needs() Needs
	// Run does the work once.
	Run(ctx context.Context, b *Bed) error
}

// Needs is what a work asks for. The zero value is a read-only mount of the usual layer set.
type Needs struct {
	Files    int    // in the layer set, and empty; 0: as many small ones as Config.Files says
	Data     bool   // a large file in the bottom layer
	Writable bool   // an upper directory
	CopyUp   bool   // files of lower layers are changed, so that a subject without copy-up would change the layers
	Uncached bool   // names and attributes that are not cached
	Volatile bool   // a mount that syncs nothing
	Daemon   bool   // a server of its own to look at; others are left out
	ByItself bool   // the work makes and ends the mount
	Program  string // to be found in PATH; empty: none
	Named    bool   // takes so much time or room that it is done only when it is asked for by its name
}

// Unit is what a figure is counted in.
type Unit string

// The units.
const (
	Seconds      Unit = "s"
	Microseconds Unit = "µs"
	MiB          Unit = "MiB"
	Percent      Unit = "%"
	Times        Unit = "times"
)

// Figure is one number that a work yields; the less, the better.
type Figure struct {
	Name    string // "cold-walk"; --only knows it too
	Title   string
	Unit    Unit
	Ops     int // a timed figure in microseconds is divided by this number of operations
	Targets []Target
}

// Works returns all works in the order in which they are done.
func Works() []Work {
	return []Work{
		statWalk{},
		smallReads{},
		dataReads{},
		coldData{},
		pagesHeld{},
		dataWrite{},
		lookups{},
		createDelete{},
		untar{},
		gitCommit{},
		chmodLower{},
		chmodLower{volatile: true},
		copyUp{},
		copyUp{volatile: true},
		mountTime{},
		memory{files: 100_000},
		memory{files: 1_000_000},
		idle{},
	}
}

// chooseWorks returns the works whose own name, or that of a figure, is among the names; without names, all that need not
// be named.
func chooseWorks(all []Work, names []string) ([]Work, error) {
	known := func(w Work, name string) bool {
		return w.Name() == name || slices.ContainsFunc(w.Figures(), func(f Figure) bool { return f.Name == name })
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(w Work) bool { return known(w, name) }) {
			return nil, fmt.Errorf("unknown work %q: it is one of %s", name, workNames(all))
		}
	}
	var out []Work
	for _, w := range all {
		named := slices.ContainsFunc(names, func(name string) bool { return known(w, name) })
		if named || len(names) == 0 && !w.Needs().Named {
			out = append(out, w)
		}
	}
	return out, nil
}

func workNames(all []Work) []string {
	var names []string
	for _, w := range all {
		names = append(names, w.Name())
	}
	return names
}

// missing says why a work cannot be done on this machine, or nil.
func (n Needs) missing() error {
	if n.Program == "" {
		return nil
	}
	if _, err := exec.LookPath(n.Program); err != nil {
		return fmt.Errorf("%s is not installed", n.Program)
	}
	return nil
}
