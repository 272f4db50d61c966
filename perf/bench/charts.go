package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// WriteCharts writes one SVG chart for each figure, its depths in groups, into dir, and returns the files' paths.
func (r *Report) WriteCharts(dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var paths []string
	for _, c := range r.charts() {
		path := filepath.Join(dir, c.name+".svg")
		if err := writeChart(path, &c.chart, r.note()); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// namedChart is the chart of the figure of that name.
type namedChart struct {
	name string
	chart
}

func (r *Report) charts() []*namedChart {
	var out []*namedChart
	byName := make(map[string]*namedChart)
	for _, block := range r.blocks() {
		first := block[0]
		c := byName[first.Figure]
		if c == nil {
			c = &namedChart{name: first.Figure, chart: chart{title: first.Title, unit: first.Unit}}
			byName[first.Figure] = c
			out = append(out, c)
		}
		if g := groupOf(block); len(g.bars) > 0 {
			c.groups = append(c.groups, g)
		}
	}
	return out
}

func groupOf(block []*Result) chartGroup {
	g := chartGroup{label: block[0].set()}
	for _, x := range block {
		if x.LeftOut != "" {
			continue
		}
		g.bars = append(g.bars, chartBar{label: x.Subject, value: x.Median, least: x.Least, most: x.Greatest,
			lowerBound: x.Exceeded, ownColor: strings.HasPrefix(x.Subject, "deep-")})
	}
	return g
}

func (r *Report) note() string {
	return fmt.Sprintf("less is better; medians, with the spread as a line; %s, %d processors, %s", r.Machine.Kernel,
		r.Machine.Processors, r.Machine.FileSystem)
}

func writeChart(path string, c *chart, note string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(c.write(f, note), f.Close())
}
