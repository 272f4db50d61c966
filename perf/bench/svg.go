package bench

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
)

// chart is a bar chart: groups of horizontal bars on one scale.
type chart struct {
	title  string
	unit   Unit
	groups []chartGroup
}

type chartGroup struct {
	label string
	bars  []chartBar
}

// chartBar is one value with its spread. A lower bound ends in an arrow.
type chartBar struct {
	label                string
	value, least, most   float64
	lowerBound, ownColor bool // ownColor: one of unionfs-deep's own
}

// Sizes, in SVG user units.
const (
	chartWidth  = 860
	labelWidth  = 150 // left of the bars
	valueWidth  = 90  // right of the longest bar
	barHeight   = 14
	barStep     = 20
	groupHead   = 26
	chartHead   = 54
	axisHeight  = 30
	logFrom     = 12.0 // the greatest value is this many times the least: the scale is logarithmic
	plotWidth   = chartWidth - labelWidth - valueWidth
	shortestBar = 2
)

// chartStyle sets colours that read on a light and on a dark page: the page's own background shows through.
const chartStyle = `
text { font: 12px system-ui, sans-serif; fill: #333 }
.title { font-size: 15px; font-weight: 600 }
.group { font-weight: 600 }
.note, .tick { font-size: 11px; fill: #777 }
.grid { stroke: #888; stroke-opacity: 0.3 }
.spread { stroke: #333 }
.own { fill: #2a9d6f } .native { fill: #9aa0a6 } .kernel { fill: #3f7fd0 } .peer { fill: #d9822b } .other { fill: #a56cc1 }
@media (prefers-color-scheme: dark) {
text { fill: #ddd } .note, .tick { fill: #999 } .spread { stroke: #eee }
}
`

// scale places values on the plot.
type scale struct {
	from, to    float64
	logarithmic bool
}

func (c *chart) scale() scale {
	least, greatest := math.Inf(1), 0.0
	for _, g := range c.groups {
		for _, b := range g.bars {
			greatest = max(greatest, b.value, b.most)
			if b.value > 0 {
				least = min(least, b.value)
			}
		}
	}
	if greatest == 0 {
		return scale{to: 1}
	}
	if greatest/least < logFrom {
		return scale{to: greatest}
	}
	return scale{from: math.Pow(10, math.Floor(math.Log10(least))), to: greatest, logarithmic: true}
}

// x is where a value ends, counted from the left of the plot.
func (s scale) x(v float64) float64 {
	if !s.logarithmic {
		return v / s.to * plotWidth
	}
	if v <= s.from {
		return shortestBar
	}
	return max(shortestBar, math.Log(v/s.from)/math.Log(s.to/s.from)*plotWidth)
}

// ticks are the values that get a line: powers of ten, or steps of a quarter.
func (s scale) ticks() []float64 {
	var out []float64
	if !s.logarithmic {
		step := niceStep(s.to / 4)
		for v := 0.0; v <= s.to*1.0001; v += step {
			out = append(out, v)
		}
		return out
	}
	for v := s.from; v <= s.to; v *= 10 {
		out = append(out, v)
	}
	return out
}

// niceStep rounds down to 1, 2 or 5 times a power of ten.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{5, 2} {
		if v >= m*power {
			return m * power
		}
	}
	return power
}

func (c *chart) height() int {
	h := chartHead + axisHeight
	for _, g := range c.groups {
		h += groupHead + barStep*len(g.bars)
	}
	return h
}

// write writes the chart as an SVG document. note is shown in small letters below the title.
func (c *chart) write(w io.Writer, note string) error {
	var out strings.Builder
	height, s := c.height(), c.scale()
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n",
		chartWidth, height, chartWidth, height)
	fmt.Fprintf(&out, "<title>%s</title>\n<style>%s</style>\n", escape(c.title), chartStyle)
	label(&out, "title", 8, 20, "start", c.title)
	if s.logarithmic {
		note += "; logarithmic scale"
	}
	label(&out, "note", 8, 38, "start", note)
	c.axis(&out, s, height)
	y := chartHead
	for _, g := range c.groups {
		label(&out, "group", 8, float64(y+16), "start", g.label)
		y += groupHead
		for _, b := range g.bars {
			b.draw(&out, s, float64(y), c.unit)
			y += barStep
		}
	}
	out.WriteString("</svg>\n")
	_, err := io.WriteString(w, out.String())
	return err
}

func (c *chart) axis(out *strings.Builder, s scale, height int) {
	for _, v := range s.ticks() {
		x := labelWidth + s.x(v)
		if s.logarithmic && v == s.from {
			x = labelWidth
		}
		fmt.Fprintf(out, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`+"\n", x, x, chartHead, height-axisHeight+6)
		label(out, "tick", x, float64(height-8), "middle", amount(v, c.unit))
	}
}

func (b chartBar) draw(out *strings.Builder, s scale, y float64, unit Unit) {
	end := labelWidth + s.x(b.value)
	middle := y + barHeight/2
	label(out, "", labelWidth-8, middle+4, "end", b.label)
	fmt.Fprintf(out, `<rect class="%s" x="%d" y="%.1f" width="%.1f" height="%d" rx="2"/>`+"\n", b.class(), labelWidth, y,
		max(shortestBar, end-labelWidth), barHeight)
	text := amount(b.value, unit)
	if b.lowerBound {
		text = "more than " + text
	} else if b.most > b.least {
		from, to := labelWidth+s.x(b.least), labelWidth+s.x(b.most)
		fmt.Fprintf(out, `<line class="spread" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`+"\n", from, to, middle, middle)
		end = max(end, to)
	}
	label(out, "", end+6, middle+4, "start", text)
}

// class is what the bar's colour goes by.
func (b chartBar) class() string {
	switch {
	case b.ownColor:
		return "own"
	case b.label == Native:
		return "native"
	case b.label == Overlayfs:
		return "kernel"
	case strings.HasPrefix(b.label, "fuse-overlayfs"):
		return "peer"
	}
	return "other"
}

func label(out *strings.Builder, class string, x, y float64, anchor, text string) {
	if class != "" {
		class = ` class="` + class + `"`
	}
	fmt.Fprintf(out, `<text%s x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, escape(text))
}

func escape(text string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(text)) // a Builder takes everything
	return out.String()
}
