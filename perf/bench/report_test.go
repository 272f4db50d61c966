package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// sampleReport has one figure of three subjects, one of them cut.
func sampleReport() *Report {
	r := &Report{Made: time.Unix(0, 0).UTC(), Commands: []string{"unionfs-deep bench"}, figures: figuresOf(Works())}
	add := func(subject string, exceeded bool, values ...float64) {
		x := &Result{Work: "walk", Figure: "cold-walk", Title: "cold <stat> walk", Unit: Seconds, Depth: 400, Files: 20000, Subject: subject}
		var samples []Sample
		for _, v := range values {
			samples = append(samples, Sample{Value: v, CPU: 0.25, Requests: 7, Exceeded: exceeded})
		}
		x.add(samples)
		r.Results = append(r.Results, x)
	}
	add(Overlayfs, false, 2, 1.9, 2.2)
	add(DeepFUSE, false, 0.5, 0.4)
	add(FuseOverlayfs1, true, 60)
	r.Results = append(r.Results, &Result{Figure: "cold-walk", Depth: 400, Subject: Mergerfs, LeftOut: "it is <not> able"})
	r.Verdicts = r.judge(r.figures["cold-walk"], 400)
	return r
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 5}, 5}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	r := sampleReport()
	figure := Figure{Name: "cold-walk", Unit: Seconds}
	for _, c := range []struct {
		name   string
		target Target
		want   Mark
		found  float64
	}{
		{"kept", Target{Subject: DeepFUSE, Against: Overlayfs, AtMost: 0.5}, Pass, 0.225},
		{"missed", Target{Subject: DeepFUSE, Against: Overlayfs, AtMost: 0.2}, Fail, 0.225},
		{"absolute", Target{Subject: DeepFUSE, AtMost: 0.4}, Fail, 0.45},
		{"requests", Target{Subject: DeepFUSE, Of: Requests, AtMost: 7}, Pass, 7},
		{"kept against a lower bound", Target{Subject: DeepFUSE, Against: FuseOverlayfs1, AtMost: 0.1}, Pass, 0.0075},
		{"undecided against a lower bound", Target{Subject: DeepFUSE, Against: FuseOverlayfs1, AtMost: 0.001}, Open, 0.0075},
		{"not measured", Target{Subject: DeepFUSE, Against: FuseOverlayfs2, AtMost: 1}, Open, 0},
		{"left out", Target{Subject: DeepFUSE, Against: Mergerfs, AtMost: 1}, Open, 0},
		{"the faster one", Target{Subject: DeepFUSE, Against: FasterFuseOverlayfs, AtMost: 0.1}, Pass, 0.0075},
		{"another depth", Target{Subject: DeepFUSE, Against: DeepFUSE, AgainstDepth: 1000, AtMost: 4}, Open, 0},
	} {
		v := r.verdict(figure, 400, c.target)
		if v.Mark != c.want || v.Found < c.found*0.999 || v.Found > c.found*1.001 {
			t.Errorf("%s: %s at %v, want %s at %v", c.name, v.Mark, v.Found, c.want, c.found)
		}
	}
}

func TestTableSaysEverything(t *testing.T) {
	var out bytes.Buffer
	if err := sampleReport().WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"cold-walk: cold <stat> walk, 400 layers, 20,000 files", ">60.0 s", "0.225", "<0.00750",
		"mergerfs is left out: it is <not> able", "pass  deep-fuse at most 0.500 of overlayfs: 0.225", "1 targets kept, 0 missed",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
}

func TestReportReadsBack(t *testing.T) {
	var first, second, third bytes.Buffer
	r := sampleReport()
	if err := errors.Join(r.WriteJSON(&first), r.WriteTable(&second)); err != nil {
		t.Fatal(err)
	}
	again, err := ReadJSON(&first)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.WriteTable(&third); err != nil || second.String() != third.String() {
		t.Errorf("the table changed with a turn through JSON (%v):\n%s\n%s", err, &second, &third)
	}
}

func TestChartsAreXML(t *testing.T) {
	paths, err := sampleReport().WriteCharts(t.TempDir())
	if err != nil || len(paths) != 1 {
		t.Fatalf("charts %v, %v", paths, err)
	}
	svg, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	dec := xml.NewDecoder(bytes.NewReader(svg))
	for {
		if _, err := dec.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	for _, want := range []string{"more than 60.0 s", "logarithmic", "cold &lt;stat&gt; walk", "prefers-color-scheme"} {
		if !bytes.Contains(svg, []byte(want)) {
			t.Errorf("the chart lacks %q", want)
		}
	}
}

func TestScaleKeepsBarsInside(t *testing.T) {
	for _, values := range [][]float64{{0}, {0, 5}, {1, 2, 3}, {0.0003, 1, 45}, {7}} {
		g := chartGroup{}
		for _, v := range values {
			g.bars = append(g.bars, chartBar{value: v, most: v})
		}
		s := (&chart{groups: []chartGroup{g}}).scale()
		for _, v := range values {
			if x := s.x(v); x < 0 || x > plotWidth+0.001 {
				t.Errorf("%v of %v ends at %v", v, values, x)
			}
		}
		if n := len(s.ticks()); n < 2 || n > 12 {
			t.Errorf("%v gets %d ticks", values, n)
		}
	}
}

func TestFioReport(t *testing.T) {
	job := fioJob{Mode: "read", MiB: 1}
	out := []byte(`note: both iodepth >= 1 and synchronous I/O engine are selected
{"jobs": [{"read": {"io_bytes": 2097152, "runtime": 50}, "write": {"io_bytes": 0, "runtime": 0}}]}`)
	if d, err := job.parse(out); d != 25*time.Millisecond || err != nil {
		t.Errorf("one of two passes in 50 ms took %v, %v", d, err)
	}
	for _, bad := range []string{"", "{}", `{"jobs": [{"read": {"io_bytes": 0}}]}`} {
		if d, err := job.parse([]byte(bad)); err == nil {
			t.Errorf("%q gives %v", bad, d)
		}
	}
}

func TestCommandLine(t *testing.T) {
	if got := commandLine([]string{"a", "", "b c", "it's"}); got != `a '' 'b c' 'it'\''s'` {
		t.Errorf("got %s", got)
	}
}

func TestNumbersReadWell(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{amount(0.0123, Seconds), "12.3 ms"}, {amount(2.5, Seconds), "2.50 s"}, {amount(0.0000042, Seconds), "4.20 µs"},
		{amount(61, MiB), "61.0 MiB"}, {thousands(1234567), "1,234,567"}, {thousands(999), "999"}, {significant(0), "0"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestMergeTakesTheLaterResult(t *testing.T) {
	r, later := sampleReport(), sampleReport()
	later.Results = later.Results[1:2]
	later.Results[0].Median = 4
	before := len(r.Results)
	r.Merge(later)
	if len(r.Results) != before || r.find("cold-walk", 400, DeepFUSE).Median != 4 {
		t.Errorf("%d results of %d, %v", len(r.Results), before, r.find("cold-walk", 400, DeepFUSE))
	}
	if failed := r.Failed(); len(failed) != 1 || failed[0].Found != 2 {
		t.Errorf("the targets were not judged anew: %v", failed)
	}
}

func TestMergeKeepsAllSubjects(t *testing.T) {
	report := func(subjects ...SubjectReport) *Report {
		r := sampleReport()
		r.Subjects = subjects
		return r
	}
	r := report(SubjectReport{Name: Overlayfs, Version: "1"}, SubjectReport{Name: FuseOverlayfs2, Version: "2.0"})
	r.Merge(report(SubjectReport{Name: Overlayfs, Version: "2"}, SubjectReport{Name: DeepFUSE, Version: "3"}))
	want := []SubjectReport{{Name: Overlayfs, Version: "2"}, {Name: DeepFUSE, Version: "3"}, {Name: FuseOverlayfs2, Version: "2.0"}}
	if !slices.Equal(r.Subjects, want) {
		t.Errorf("%v, want %v", r.Subjects, want)
	}
}

func TestDocumentNamesItsCharts(t *testing.T) {
	dir := t.TempDir()
	if err := sampleReport().WriteDocument(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dir + "/results.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"](cold-walk.svg)", "    unionfs-deep bench\n", "| deep-fuse | 450 ms |", "more than 60.0 s", "| pass |"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("results.md lacks %q:\n%s", want, text)
		}
	}
}
