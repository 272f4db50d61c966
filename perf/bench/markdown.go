package bench

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// WriteDocument writes the report as results.md, with its charts beside it, into dir.
func (r *Report) WriteDocument(dir string) error {
	charts, err := r.WriteCharts(dir)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "results.md"))
	if err != nil {
		return err
	}
	defer f.Close()
	return r.writeMarkdown(f, charts)
}

func (r *Report) writeMarkdown(w io.Writer, charts []string) error {
	var out strings.Builder
	m := r.Machine
	fmt.Fprintf(&out, "# Results\n\n%s, %d processors, %d MiB of memory, layers on %s, %s. Made by\n\n", m.Kernel, m.Processors,
		m.Memory>>20, m.FileSystem, r.Made.Format("2006-01-02"))
	for _, command := range r.Commands {
		fmt.Fprintf(&out, "    %s\n", command)
	}
	out.WriteString("\n| subject | |\n|---|---|\n")
	for _, s := range r.Subjects {
		text := s.Version
		if s.LeftOut != "" {
			text = "left out: " + s.LeftOut
		}
		fmt.Fprintf(&out, "| %s | %s |\n", s.Name, cellText(text))
	}
	r.markdownTargets(&out)
	out.WriteString("\n## Medians\n")
	for _, path := range charts {
		r.markdownFigure(&out, path)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (r *Report) markdownTargets(out *strings.Builder) {
	out.WriteString("\n## Targets\n\n| figure | layers | bound | found | |\n|---|---:|---|---:|---|\n")
	for _, v := range r.Verdicts {
		f := r.figures[v.Figure]
		bound, found := v.sides(f.Unit)
		if v.Mark == Open && v.Found == 0 {
			found = "not measured"
		}
		fmt.Fprintf(out, "| %s | %s | %s at most %s | %s | %s |\n", cellText(f.Title), thousands(v.Depth), v.bounded(), bound, found, v.Mark)
	}
}

// markdownFigure writes a figure's chart and a table of its medians: a row for each subject, a column for each depth.
func (r *Report) markdownFigure(out *strings.Builder, chart string) {
	name := strings.TrimSuffix(filepath.Base(chart), ".svg")
	blocks := slices.DeleteFunc(r.blocks(), func(b []*Result) bool { return b[0].Figure != name })
	fmt.Fprintf(out, "\n### %s\n\n![%[1]s](%s)\n\n| |", blocks[0][0].Title, filepath.Base(chart))
	for _, b := range blocks {
		fmt.Fprintf(out, " %s layers |", thousands(b[0].Depth))
	}
	out.WriteString("\n|---|" + strings.Repeat("---:|", len(blocks)) + "\n")
	for _, x := range blocks[0] {
		fmt.Fprintf(out, "| %s |", x.Subject)
		for _, b := range blocks {
			fmt.Fprintf(out, " %s |", medianCell(r.find(name, b[0].Depth, x.Subject)))
		}
		out.WriteString("\n")
	}
}

func medianCell(x *Result) string {
	switch {
	case x == nil || x.LeftOut != "":
		return ""
	case x.Exceeded:
		return "more than " + amount(x.Median, x.Unit)
	}
	return amount(x.Median, x.Unit)
}

// cellText keeps a text from ending its table's cell.
func cellText(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
