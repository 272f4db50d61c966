package bench

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// leftovers fails a test that leaves mounts below dir or children behind.
func leftovers(t *testing.T, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("a mount below %s is left", dir)
	}
	if left := children(); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

// TestRun does works of each kind on kernel overlayfs, a plain directory and what peers there are.
func TestRun(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	var messages []string
	report, err := Run(t.Context(), Config{Dir: dir, Depths: []int{4}, Runs: 1, Files: 400, DataMiB: 4, Limit: 20 * time.Second,
		Only:     []string{"walk", "read", "data", "create", "copy-up", "lookup", "mount"},
		Subjects: []string{Native, Overlayfs, FuseOverlayfs1, FuseOverlayfs2},
		Message:  func(text string) { messages = append(messages, text) }})
	if err != nil {
		t.Fatal(err)
	}
	leftovers(t, dir)
	for _, x := range report.Results {
		daemonOnly := strings.HasPrefix(x.Figure, "lookup") || x.Figure == "mount"
		if x.LeftOut != "" && !daemonOnly {
			t.Errorf("%s of %s: %s", x.Figure, x.Subject, x.LeftOut)
		}
		if x.LeftOut == "" && x.Median <= 0 {
			t.Errorf("%s of %s takes %v", x.Figure, x.Subject, x.Median)
		}
	}
	t.Log(strings.Join(messages, "\n"))
}

func TestInterruptedRunLeavesNothing(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	report, err := Run(ctx, Config{Dir: dir, Depths: []int{30}, Runs: 2, Files: 2000, Only: []string{"walk", "idle"},
		Subjects: []string{Overlayfs, FuseOverlayfs1, FuseOverlayfs2},
		Progress: func(done, _ int, _ string) {
			if done == 2 {
				time.AfterFunc(20*time.Millisecond, cancel)
			}
		}})
	if !errors.Is(err, context.Canceled) || report == nil {
		t.Errorf("an interrupted run gives %v, %v", report, err)
	}
	leftovers(t, dir)
}

// TestLimit cuts an idle work, which takes longer than its time.
func TestLimit(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	began := time.Now()
	report, err := Run(t.Context(), Config{Dir: dir, Depths: []int{2}, Runs: 3, Files: 200, Only: []string{"idle"},
		Subjects: []string{FuseOverlayfs1}, Limit: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	leftovers(t, dir)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("three runs of 300 ms at most took %v", took)
	}
	if report.Subjects[0].LeftOut != "" {
		t.Skip("not installed: " + report.Subjects[0].LeftOut)
	}
	if x := report.Results[0]; x.LeftOut != errTimeOver.Error() {
		t.Errorf("left out: %q", x.LeftOut)
	}
}

func TestUnknownNames(t *testing.T) {
	for _, cfg := range []Config{{Only: []string{"nap"}}, {Subjects: []string{"nofs"}}} {
		if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "it is one of") {
			t.Errorf("%+v gives %v", cfg, err)
		}
	}
}

func TestFigureNamesAreUnique(t *testing.T) {
	seen := make(map[string]bool)
	for _, w := range Works() {
		for _, f := range w.Figures() {
			if seen[f.Name] {
				t.Errorf("two figures are called %s", f.Name)
			}
			seen[f.Name] = true
			for _, target := range f.Targets {
				if target.AtMost == 0 && target.Of == Value {
					t.Errorf("%s has a target without a bound", f.Name)
				}
			}
		}
	}
}
