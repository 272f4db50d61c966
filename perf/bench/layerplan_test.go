package bench

import (
	"maps"
	"reflect"
	"slices"
	"testing"
)

func TestPlanIsDeterministic(t *testing.T) {
	spec := Spec{Depth: 50, Files: 1000}
	if !reflect.DeepEqual(planLayers(spec), planLayers(spec)) {
		t.Error("two plans of the same spec differ")
	}
}

// TestPlanShowsMerged joins the planned layers by overlay's rules and compares the outcome with what the plan says of it.
func TestPlanShowsMerged(t *testing.T) {
	for _, spec := range []Spec{
		{Depth: 1, Files: 150}, {Depth: 2, Files: 2000}, {Depth: 100, Files: 5000}, {Depth: 3000, Files: 2000}, {Depth: 5, Files: 7},
	} {
		plan := planLayers(spec)
		var shown []string
		for dir := range spec.Directories() {
			for name, version := range joined(plan.homes[dir]) {
				shown = append(shown, directoryName(dir)+"/"+name)
				if version != 0 {
					t.Errorf("%+v: %s/%s shows its older version", spec, directoryName(dir), name)
				}
			}
		}
		slices.Sort(shown)
		if !slices.Equal(shown, plan.merged()) {
			t.Errorf("%+v: the layers show %d files, the plan says %d", spec, len(shown), len(plan.merged()))
		}
		if len(shown) != spec.Files {
			t.Errorf("%+v: %d files are shown", spec, len(shown))
		}
	}
}

// joined merges a directory's instances, topmost first, and returns its files with their versions.
func joined(homes []*instance) map[string]int {
	shown, hidden := make(map[string]int), make(map[string]bool)
	for _, in := range homes {
		for name, version := range in.files {
			if _, above := shown[name]; !above && !hidden[name] {
				shown[name] = version
			}
		}
		for _, name := range in.whiteouts {
			hidden[name] = true
		}
		if in.opaque {
			break
		}
	}
	return shown
}

func TestPlanHasEveryKindOfEntry(t *testing.T) {
	var shadows, whiteouts, opaque int
	for _, homes := range planLayers(Spec{Depth: 100, Files: 5000}).homes {
		for _, in := range homes {
			whiteouts += len(in.whiteouts)
			if in.opaque {
				opaque++
			}
			for version := range maps.Values(in.files) {
				shadows += version
			}
		}
	}
	if shadows == 0 || whiteouts == 0 || opaque == 0 {
		t.Errorf("%d older files, %d whiteouts, %d opaque directories", shadows, whiteouts, opaque)
	}
}

func TestInstancesAreTheSameAtEveryDepth(t *testing.T) {
	for _, depth := range []int{100, 400, 1000, 2000, 10000} {
		if n := (Spec{Depth: depth, Files: DefaultFiles}).Instances(); n != DefaultFiles {
			t.Errorf("%d layers hold %d directory instances, want %d", depth, n, DefaultFiles)
		}
	}
}
