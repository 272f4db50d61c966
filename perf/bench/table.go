package bench

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the report for people: a block for each figure and depth, with each subject's median and spread, its
// ratio to the others, and the targets with their marks.
func (r *Report) WriteTable(w io.Writer) error {
	t := &table{report: r}
	t.head()
	for _, block := range r.blocks() {
		t.block(block)
	}
	t.summary()
	_, err := io.WriteString(w, t.text.String())
	return err
}

// references are the subjects that get a column of ratios, with the column's head.
var references = []struct{ subject, head string }{
	{Overlayfs, "to overlayfs"}, {FuseOverlayfs1, "to f-o 1"}, {FuseOverlayfs2, "to f-o 2"}, {Native, "to native"},
}

// subjectWidth is that of the longest name of a subject: the first column alone is set flush left.
const subjectWidth = len(DeepPassthrough)

// table writes a report as text. It writes into memory, where nothing fails.
type table struct {
	report *Report
	text   strings.Builder
}

// blocks groups the results by figure and depth, in their order.
func (r *Report) blocks() [][]*Result {
	var out [][]*Result
	at := make(map[string]int)
	for _, x := range r.Results {
		key := fmt.Sprint(x.Figure, " ", x.Depth)
		if _, ok := at[key]; !ok {
			at[key] = len(out)
			out = append(out, nil)
		}
		out[at[key]] = append(out[at[key]], x)
	}
	return out
}

func (t *table) head() {
	m := t.report.Machine
	fmt.Fprintf(&t.text, "%s, %d processors, %d MiB of memory, layers on %s, %s\n", m.Kernel, m.Processors, m.Memory>>20,
		m.FileSystem, t.report.Made.Format("2006-01-02 15:04 MST"))
	for _, command := range t.report.Commands {
		fmt.Fprintf(&t.text, "%s\n", command)
	}
	for _, s := range t.report.Subjects {
		if s.LeftOut != "" {
			fmt.Fprintf(&t.text, "  %s is left out: %s\n", s.Name, s.LeftOut)
		} else {
			fmt.Fprintf(&t.text, "  %s: %s\n", s.Name, s.Version)
		}
	}
}

func (t *table) block(results []*Result) {
	first := results[0]
	fmt.Fprintf(&t.text, "\n%s: %s, %s\n", first.Figure, first.Title, first.set())
	w := tabwriter.NewWriter(&t.text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "  %-*s\tmedian\tleast\tgreatest\truns\t", subjectWidth, "subject")
	for _, ref := range references {
		fmt.Fprint(w, ref.head, "\t")
	}
	fmt.Fprint(w, "daemon\trequests\t\n")
	for _, x := range results {
		t.row(w, x)
	}
	w.Flush()
	for _, x := range results {
		if x.LeftOut != "" {
			fmt.Fprintf(&t.text, "  %s is left out: %s\n", x.Subject, x.LeftOut)
		}
	}
	for _, v := range t.report.Verdicts {
		if v.Figure == first.Figure && v.Depth == first.Depth {
			fmt.Fprintf(&t.text, "  %s\n", v.text(first.Unit))
		}
	}
}

// set describes the layer set of a result.
func (x *Result) set() string {
	text := fmt.Sprintf("%s layers, %s files", thousands(x.Depth), thousands(x.Files))
	if x.DataMiB > 0 {
		text += fmt.Sprintf(", %d MiB", x.DataMiB)
	}
	return text
}

func (t *table) row(w io.Writer, x *Result) {
	if x.LeftOut != "" {
		return
	}
	over := ""
	if x.Exceeded {
		over = ">"
	}
	fmt.Fprintf(w, "  %-*s\t%s%s\t%s\t%s\t%d\t", subjectWidth, x.Subject, over, amount(x.Median, x.Unit), amount(x.Least, x.Unit),
		amount(x.Greatest, x.Unit), len(x.Values))
	for _, ref := range references {
		fmt.Fprint(w, t.ratio(x, ref.subject), "\t")
	}
	cpu, requests := "", ""
	if x.DaemonCPU != nil {
		cpu = amount(*x.DaemonCPU, Seconds)
	}
	if x.Requests != nil {
		requests = thousands(int(*x.Requests))
	}
	fmt.Fprintf(w, "%s\t%s\t\n", cpu, requests)
}

// ratio compares a result to another subject's. What was cut on one side gives a bound, on both sides nothing.
func (t *table) ratio(x *Result, subject string) string {
	ref := t.report.find(x.Figure, x.Depth, subject)
	if ref == nil || ref.LeftOut != "" || ref.Median == 0 || ref.Exceeded && x.Exceeded {
		return ""
	}
	sign := ""
	if ref.Exceeded {
		sign = "<"
	} else if x.Exceeded {
		sign = ">"
	}
	return sign + significant(x.Median/ref.Median)
}

// text tells a verdict in one line.
func (v Verdict) text(unit Unit) string {
	bound, found := v.sides(unit)
	if v.Mark == Open && v.Found == 0 {
		found = "not measured"
	}
	return fmt.Sprintf("%s  %s at most %s: %s", v.Mark, v.bounded(), bound, found)
}

// bounded names what the target bounds.
func (v Verdict) bounded() string {
	if v.Of == Value {
		return v.Subject
	}
	return v.Subject + "'s " + string(v.Of)
}

// sides words the bound and what was found.
func (v Verdict) sides(unit Unit) (bound, found string) {
	if v.Against == "" && v.Of == Value {
		return amount(v.AtMost, unit), amount(v.Found, unit)
	}
	bound, found = significant(v.AtMost), significant(v.Found)
	if v.Against != "" {
		bound += " of " + v.Against
	}
	if v.Bound {
		found = "at most " + found
	}
	return bound, found
}

func (t *table) summary() {
	count := make(map[Mark]int)
	for _, v := range t.report.Verdicts {
		count[v.Mark]++
	}
	fmt.Fprintf(&t.text, "\n%d targets kept, %d missed, %d not measured\n", count[Pass], count[Fail], count[Open])
	for _, v := range t.report.Failed() {
		fmt.Fprintf(&t.text, "  %s, %s layers: %s\n", v.Figure, thousands(v.Depth), v.text(t.report.figures[v.Figure].Unit))
	}
}

// amount writes a number with its unit, seconds in the unit that reads best.
func amount(v float64, unit Unit) string {
	switch {
	case unit != Seconds:
		return significant(v) + " " + string(unit)
	case v >= 1:
		return significant(v) + " s"
	case v >= 1e-3:
		return significant(v*1e3) + " ms"
	}
	return significant(v*1e6) + " µs"
}

// significant writes three significant digits, without an exponent.
func significant(v float64) string {
	if v == 0 {
		return "0"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	return fmt.Sprintf("%.*f", min(digits, 6), v)
}

// thousands writes a whole number with commas.
func thousands(n int) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
