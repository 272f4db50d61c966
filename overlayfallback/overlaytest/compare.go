package overlaytest

import (
	"fmt"
	"slices"
	"strings"
)

// Difference is one thing that a route shows otherwise than the oracle.
type Difference struct {
	Where string // a path, or an operation
	Field string
	Want  string // the oracle's
	Got   string
}

// String returns the difference on one line.
func (d Difference) String() string {
	return fmt.Sprintf("%q %s: want %s, got %s", brief(d.Where), brief(d.Field), brief(d.Want), brief(d.Got))
}

// brief shortens what would fill the screen: the paths of cases about long paths do.
func brief(s string) string {
	if len(s) <= 160 {
		return s
	}
	return fmt.Sprintf("%s…%s (%d bytes)", s[:60], s[len(s)-60:], len(s))
}

// Ignore tells which fields a comparison leaves out.
type Ignore func(path, field string) bool

// IgnoreFields leaves out the named fields wherever they are.
func IgnoreFields(fields ...string) Ignore {
	return func(_, field string) bool { return slices.Contains(fields, field) }
}

// Changing leaves out what two mounts with uppers of their own cannot agree on: change and birth times.
var Changing = IgnoreFields("ctime", "btime")

// Compare lists what differs between the oracle's tree and a route's, by path and field. A readdir inode number that already
// the oracle gives otherwise than stat is not asked of the route. ignore may be nil.
func Compare(want, got Snapshot, ignore Ignore) []Difference {
	var diffs []Difference
	for _, p := range union(want, got) {
		w, inWant := want[p]
		g, inGot := got[p]
		switch {
		case !inGot:
			diffs = append(diffs, Difference{p, "name", w.presence(), "missing"})
		case !inWant:
			diffs = append(diffs, Difference{p, "name", "missing", g.presence()})
		default:
			diffs = append(diffs, compareNodes(p, w, g, ignore)...)
		}
	}
	return diffs
}

// onlyListed is said of a name that its directory lists and that is not there.
const onlyListed = "listed, but not there"

// presence says in which way the name is there.
func (n Node) presence() string {
	if n["error stat"] == "ENOENT" {
		return onlyListed
	}
	return "there (" + n["type"] + ")"
}

// compareNodes lists the fields of one path that differ.
func compareNodes(p string, want, got Node, ignore Ignore) []Difference {
	var diffs []Difference
	for _, field := range union(want, got) {
		w, g := want[field], got[field]
		if w == g || ignore != nil && ignore(p, field) {
			continue
		}
		if strings.HasPrefix(field, "d_ino") && w == sameness(false) {
			continue
		}
		diffs = append(diffs, Difference{p, field, absent(w), absent(g)})
	}
	return diffs
}

func absent(v string) string {
	if v == "" {
		return "nothing"
	}
	return v
}

// union returns the keys of both maps, sorted.
func union[V any](a, b map[string]V) []string {
	keys := make([]string, 0, len(a))
	for k := range a {
		keys = append(keys, k)
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// List returns the differences a line each, at most max of them.
func List(diffs []Difference, max int) string {
	var b strings.Builder
	for i, d := range diffs {
		if i == max {
			fmt.Fprintf(&b, "  … and %d more\n", len(diffs)-max)
			break
		}
		fmt.Fprintf(&b, "  %s\n", d)
	}
	return b.String()
}
