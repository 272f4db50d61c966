package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
	"github.com/unionfs-deep/unionfs-deep/whiteout"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

func inspectJSON(t *testing.T, operands ...string) inspection {
	t.Helper()
	var found inspection
	out := run(t, append([]string{"inspect", "--json"}, operands...)...).wantStatus(t, 0).stdout
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return found
}

func TestInspectShowsRouteAndLayers(t *testing.T) {
	for _, route := range []string{"overlay", "fuse"} {
		t.Run(route, func(t *testing.T) {
			requireRoute(t, route)
			b := newBed(t)
			b.mount(t, route, "-o", b.writable())
			found := inspectJSON(t, b.target)
			if found.Route != route || found.MountPoint != b.target || found.Upper != b.upper || len(found.Lower) != 3 || found.Lower[0] != b.lower[0] {
				t.Errorf("%+v", found)
			}
		})
	}
}

func requireRoute(t *testing.T, route string) {
	t.Helper()
	if route == "fuse" {
		requireFUSE(t)
	} else {
		requireRoot(t)
	}
}

func TestInspectNamesTheSupplier(t *testing.T) {
	for _, route := range []string{"overlay", "fuse"} {
		t.Run(route, func(t *testing.T) {
			requireRoute(t, route)
			b := newBed(t)
			write(t, b.upper, map[string]string{"fresh": "u"})
			b.mount(t, route, "-o", b.writable())
			for path, want := range map[string]string{
				"fresh": b.upper, "top": b.lower[0], "both": b.lower[0], "bottom": b.lower[2], "dir/1": b.lower[1],
				b.target + "/dir/2": b.lower[2],
			} {
				if found := inspectJSON(t, b.target, path).Supplier; found == nil || found.Layer != want || found.Type != "file" {
					t.Errorf("%s is supplied by %+v, want %s", path, found, want)
				}
			}
			found := inspectJSON(t, b.target, "dir").Supplier
			if found == nil || found.Type != "directory" || found.Layer != b.lower[0] || len(found.Merge) != 2 {
				t.Errorf("dir is supplied by %+v", found)
			}
			run(t, "inspect", b.target, "no/such").wantStatus(t, exitFailed).wantOneLine(t, "no/such", "no such file")
		})
	}
}

func TestInspectStopsAtAnOpaqueDirectory(t *testing.T) {
	requireInitialRoot(t)
	b := newBed(t)
	if err := unix.Setxattr(filepath.Join(b.lower[1], "dir"), whiteout.Trusted.Opaque(), []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	b.mount(t, "fuse", "-o", b.lowerdir())
	found := inspectJSON(t, b.target, "dir").Supplier
	if found == nil || len(found.Merge) != 1 || found.Merge[0] != b.lower[1] {
		t.Errorf("dir is supplied by %+v, want two layers", found)
	}
}

func TestInspectCountsRequests(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	b.mount(t, "fuse", "-o", b.lowerdir()+",fastpath=off")
	before := inspectJSON(t, b.target)
	for range 10 {
		b.wantContent(t, "top", "0")
	}
	after := inspectJSON(t, b.target)
	if before.Counters == nil || after.Counters == nil {
		t.Fatal("no counters")
	}
	if n := after.Counters.Requests["LOOKUP"].Count - before.Counters.Requests["LOOKUP"].Count; n < 10 {
		t.Errorf("%d LOOKUP requests for 10 opens without a cache", n)
	}
	if after.PID != daemonOf(t) {
		t.Errorf("daemon %d, want %d", after.PID, daemonOf(t))
	}
	text := run(t, "inspect", b.target).wantStatus(t, 0).stdout
	for _, want := range []string{"route:", "fuse", b.lower[2], "LOOKUP"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestInspectAnswersNoStranger(t *testing.T) {
	requireInitialRoot(t)
	requireFUSE(t)
	b := newBed(t)
	b.mount(t, "fuse", "-o", b.lowerdir())
	// The other user has to reach both the program and the mount point.
	for _, dir := range []string{filepath.Dir(program), b.dir, filepath.Dir(b.dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "inspect", b.target)
	runCommand(t, cmd).wantStatus(t, exitFailed)
}

func TestInspectOfWhatIsNoUnion(t *testing.T) {
	run(t, "inspect", t.TempDir()).wantStatus(t, exitFailed).wantOneLine(t, "nothing is mounted")
	run(t, "inspect", "/proc").wantStatus(t, exitFailed).wantOneLine(t, "/proc", "no union")
	run(t, "inspect", "/no/such").wantStatus(t, exitFailed).wantOneLine(t, "/no/such")
}

func TestDoctor(t *testing.T) {
	out := run(t, "doctor", "--json")
	var found overlayfallback.Capabilities
	if err := json.Unmarshal([]byte(out.stdout), &found); err != nil {
		t.Fatalf("%v in %s", err, out.stdout)
	}
	if works := found.Overlay.OK || fuseWorks(found); works != (out.status == exitOK) {
		t.Errorf("exit status %d, but a route works: %v", out.status, works)
	}
	text := run(t, "doctor").stdout
	for _, want := range []string{"kernel overlayfs", "/dev/fuse", "openat2"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestPlanSaysWhy(t *testing.T) {
	requireRoot(t)
	b := newBed(t)
	out := run(t, "plan", "-o", b.lowerdir(), b.target).wantStatus(t, 0).stdout
	if !strings.Contains(out, "overlay") || !strings.Contains(out, "layers:") {
		t.Errorf("plan:\n%s", out)
	}
	b.wantUnmounted(t)
	r := run(t, "plan", "--route", "overlay", "-o", b.lowerdir()+":"+b.dir+"/missing", b.target)
	r.wantStatus(t, exitFailed).wantOneLine(t, b.dir+"/missing")
}

func TestRelativePathsAreTakenFromTheWorkingDirectory(t *testing.T) {
	for _, route := range []string{"overlay", "fuse"} {
		t.Run(route, func(t *testing.T) {
			requireRoute(t, route)
			b := newBed(t)
			cmd := exec.Command(program, "mount", "--route", route, "-o", "lowerdir=lower0:lower1", "merged")
			cmd.Dir = b.dir
			runCommand(t, cmd).wantStatus(t, 0)
			b.wantContent(t, "dir/1", "1")
			if found := inspectJSON(t, b.target, "both"); found.MountPoint != b.target || found.Supplier.Layer != b.lower[0] {
				t.Errorf("%+v, supplied by %+v", found, found.Supplier)
			}
		})
	}
}

// TestInspectDoesNotGuessWhereShortNamesLead inspects a kernel mount with layers whose names are relative.
func TestInspectDoesNotGuessWhereShortNamesLead(t *testing.T) {
	requireRoot(t)
	b := newBed(t)
	cmd := exec.Command("mount", "-i", "-t", "overlay", "overlay", b.target, "-o", "lowerdir=lower0:lower1")
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run(t, "inspect", b.target).wantStatus(t, 0)
	run(t, "inspect", b.target, "both").wantStatus(t, exitFailed).wantOneLine(t, b.target, "lower0")
}

func TestInspectOfAStackedMount(t *testing.T) {
	requireRoot(t)
	b := newBed(t)
	cmd := exec.Command(program, "mount", "--route", "stacked", "--layers-file", "-", b.target)
	cmd.Stdin = strings.NewReader(b.deep(t, 600))
	runCommand(t, cmd).wantStatus(t, 0)
	b.wantContent(t, "file599", "x")
	if found := inspectJSON(t, b.target, "file7"); found.Route != "stacked" || found.Supplier.Layer != filepath.Join(b.dir, "deep/7") {
		t.Errorf("%+v, supplied by %+v", found, found.Supplier)
	}
	run(t, "inspect", b.target, "file599").wantStatus(t, exitFailed).wantOneLine(t, "file599", "stacked below")
}
