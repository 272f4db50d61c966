package bench

import (
	"fmt"
	"slices"
)

// Metric is what of a figure a target bounds.
type Metric string

// The metrics. The zero value is the figure itself.
const (
	Value    Metric = ""
	Requests Metric = "requests" // that reach the daemon meanwhile
)

// FasterFuseOverlayfs stands, in a Target, for that version of fuse-overlayfs which was faster in this run.
const FasterFuseOverlayfs = "faster fuse-overlayfs"

// Target is a bound on a figure: of one subject, against another one (or the same one elsewhere), or in the figure's unit.
type Target struct {
	Subject       string
	Depth         int    // 0: every depth
	Of            Metric // what is bounded
	Against       string // the subject to compare to; empty: AtMost is absolute
	AgainstDepth  int    // 0: the same depth
	AgainstFigure string // empty: the same figure
	AtMost        float64
}

// Mark is what became of a target.
type Mark string

// The marks. A target is open when one of its two sides was not measured.
const (
	Pass Mark = "pass"
	Fail Mark = "FAIL"
	Open Mark = "open"
)

// Verdict is a target held against the results.
type Verdict struct {
	Figure  string  `json:"figure"`
	Depth   int     `json:"depth"`
	Subject string  `json:"subject"`
	Of      Metric  `json:"of,omitempty"`
	Against string  `json:"against,omitempty"`
	AtMost  float64 `json:"at_most"`
	Found   float64 `json:"found"` // 0 while open
	Mark    Mark    `json:"mark"`
	// Bound says that the other side was cut, so that Found is an upper bound.
	Bound bool `json:"bound,omitempty"`
}

// judge holds the targets of a figure against what was measured of it at one depth.
func (r *Report) judge(figure Figure, depth int) []Verdict {
	var out []Verdict
	for _, t := range figure.Targets {
		if t.Depth == 0 || t.Depth == depth {
			out = append(out, r.verdict(figure, depth, t))
		}
	}
	return out
}

func (r *Report) verdict(figure Figure, depth int, t Target) Verdict {
	v := Verdict{Figure: figure.Name, Depth: depth, Subject: t.Subject, Of: t.Of, Against: t.Against, AtMost: t.AtMost, Mark: Open}
	own := r.find(figure.Name, depth, t.Subject)
	if own == nil || own.LeftOut != "" || own.Exceeded {
		return v
	}
	found, known := own.metric(t.Of)
	if t.Against != "" {
		other := r.other(figure, depth, t)
		if other == nil || other.LeftOut != "" || other.Median == 0 {
			return v
		}
		v.Against, v.Bound = describeOther(other, figure, depth), other.Exceeded
		found /= other.Median
	}
	if !known {
		return v
	}
	v.Found, v.Mark = found, Fail
	if found <= t.AtMost {
		v.Mark = Pass
	} else if v.Bound {
		v.Mark = Open
	}
	return v
}

// other finds the result that a target compares to.
func (r *Report) other(figure Figure, depth int, t Target) *Result {
	name, against := figure.Name, t.Against
	if t.AgainstFigure != "" {
		name = t.AgainstFigure
	}
	if t.AgainstDepth != 0 {
		depth = t.AgainstDepth
	}
	if against != FasterFuseOverlayfs {
		return r.find(name, depth, against)
	}
	both := []*Result{r.find(name, depth, FuseOverlayfs1), r.find(name, depth, FuseOverlayfs2)}
	both = slices.DeleteFunc(both, func(r *Result) bool { return r == nil || r.LeftOut != "" })
	if len(both) == 0 {
		return nil
	}
	return slices.MinFunc(both, func(a, b *Result) int { return int(1e6 * (a.Median - b.Median)) })
}

// describeOther names a result as seen from a figure and depth.
func describeOther(other *Result, figure Figure, depth int) string {
	text := other.Subject
	if other.Figure != figure.Name {
		text += " " + other.Figure
	}
	if other.Depth != depth {
		text += fmt.Sprintf(" at %d layers", other.Depth)
	}
	return text
}

// metric returns what a target bounds, and whether it is known.
func (r *Result) metric(m Metric) (float64, bool) {
	if m == Requests {
		if r.Requests == nil {
			return 0, false
		}
		return float64(*r.Requests), true
	}
	return r.Median, true
}
