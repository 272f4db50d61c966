package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// forEachRoute runs a test by each route that this user may take.
func forEachRoute(t *testing.T, test func(t *testing.T, route string)) {
	for _, route := range []string{"auto", "overlay", "stacked", "fuse"} {
		t.Run(route, func(t *testing.T) {
			if route == "fuse" {
				requireFUSE(t)
			} else {
				requireRoot(t)
			}
			test(t, route)
		})
	}
}

func TestMountAnswersWhenTheCommandReturns(t *testing.T) {
	forEachRoute(t, func(t *testing.T, route string) {
		b := newBed(t)
		b.mount(t, route, "-o", b.lowerdir())
		b.wantContent(t, "both", "0")
		b.wantContent(t, "dir/2", "2")
		run(t, "umount", b.target).wantStatus(t, 0)
		b.wantUnmounted(t)
		if left := processes(); len(left) > 0 {
			t.Errorf("umount returned before the daemon %v had ended", left)
		}
	})
}

func TestMountReadWrite(t *testing.T) {
	forEachRoute(t, func(t *testing.T, route string) {
		b := newBed(t)
		b.mount(t, route, "-o", b.writable())
		if err := os.WriteFile(filepath.Join(b.target, "new"), []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "umount", b.target).wantStatus(t, 0)
		if got, err := os.ReadFile(filepath.Join(b.upper, "new")); string(got) != "new" {
			t.Errorf("the upper directory holds %q, %v", got, err)
		}
	})
}

func TestMountWritesWithTheCallersModeWhateverTheUmask(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	cmd := exec.Command("sh", "-c", `umask 077; exec "$@"`, "sh", program, "mount", "--route", "fuse", "-o", b.writable(), b.target)
	runCommand(t, cmd).wantStatus(t, 0)
	old := unix.Umask(0)
	err := os.WriteFile(filepath.Join(b.target, "open"), nil, 0o666)
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(b.target, "open"))
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v; want 0666", info.Mode(), err)
	}
}

func TestMountTakesLayersFromAFileAndFromStandardInput(t *testing.T) {
	requireFUSE(t)
	list := func(b bed) string { return strings.Join(b.lower, "\n\n") + "\n" }
	t.Run("file", func(t *testing.T) {
		b := newBed(t)
		file := filepath.Join(b.dir, "layers.txt")
		if err := os.WriteFile(file, []byte(list(b)), 0o600); err != nil {
			t.Fatal(err)
		}
		b.mount(t, "fuse", "--layers-file", file)
		b.wantContent(t, "both", "0")
	})
	t.Run("standard input", func(t *testing.T) {
		b := newBed(t)
		cmd := exec.Command(program, "mount", "--route", "fuse", "--layers-file", "-", b.target)
		cmd.Stdin = strings.NewReader(list(b))
		runCommand(t, cmd).wantStatus(t, 0)
		b.wantContent(t, "both", "0")
	})
	t.Run("nothing in it", func(t *testing.T) {
		b := newBed(t)
		cmd := exec.Command(program, "mount", "--layers-file", "-", b.target)
		runCommand(t, cmd).wantStatus(t, exitFailed).wantOneLine(t, "standard input", "no layer")
	})
	t.Run("no such file", func(t *testing.T) {
		b := newBed(t)
		run(t, "mount", "--layers-file", "/no/such/file", b.target).wantStatus(t, exitFailed).wantOneLine(t, "/no/such/file")
	})
}

// TestMountTakesPathsThatNeedNoEscapingInAFile mounts layers whose names would need escapes in an option.
func TestMountTakesPathsThatNeedNoEscapingInAFile(t *testing.T) {
	forEachRoute(t, func(t *testing.T, route string) {
		b := newBed(t)
		for i, name := range []string{"a b", "comma,", "colon:", `back\slash`, `quote"`, strings.Repeat("x", 255), "-o"} {
			b.lower = append(b.lower, write(t, filepath.Join(b.dir, name), map[string]string{fmt.Sprint("odd", i): name}))
		}
		cmd := exec.Command(program, "mount", "--route", route, "--layers-file", "-", b.target)
		cmd.Stdin = strings.NewReader(strings.Join(b.lower, "\n"))
		runCommand(t, cmd).wantStatus(t, 0)
		b.wantContent(t, "odd1", "comma,")
		b.wantContent(t, "odd3", `back\slash`)
	})
}

func TestMountOf1200LayersFallsBackToFUSE(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	list := b.deep(t, 1200)
	plan := exec.Command(program, "plan", "--json", "--layers-file", "-", b.target)
	plan.Stdin = strings.NewReader(list)
	var got overlayfallback.Plan
	if err := json.Unmarshal([]byte(runCommand(t, plan).wantStatus(t, 0).stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.Route != overlayfallback.FUSE || got.Layers != 1200 || len(got.Passed) != 2 {
		t.Errorf("plan: %+v", got)
	}
	mount := exec.Command(program, "mount", "--layers-file", "-", b.target)
	mount.Stdin = strings.NewReader(list)
	runCommand(t, mount).wantStatus(t, 0)
	b.wantContent(t, "file1199", "x")
	entries, err := os.ReadDir(b.target)
	if err != nil || len(entries) != 1200 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

// TestForcedRouteTooSmall asks for more layers than a route holds; the answer names the limit and the route that would do.
func TestForcedRouteTooSmall(t *testing.T) {
	requireRoot(t)
	b := newBed(t)
	list := b.deep(t, 1000)
	for route, limit := range map[string]string{"overlay": "500", "stacked": "999"} {
		for _, command := range []string{"plan", "mount"} {
			cmd := exec.Command(program, command, "--route", route, "--layers-file", "-", b.target)
			cmd.Stdin = strings.NewReader(list)
			runCommand(t, cmd).wantStatus(t, exitFailed).wantOneLine(t, route, "1000 layers", limit, "the route fuse would work")
			b.wantUnmounted(t)
		}
	}
}

func TestFailuresLeaveNothing(t *testing.T) {
	for name, c := range map[string]struct {
		args   func(b bed) []string
		words  func(b bed) []string
		status int
	}{
		"missing lower": {
			args:  func(b bed) []string { return []string{"-o", b.lowerdir() + ":" + b.dir + "/missing", b.target} },
			words: func(b bed) []string { return []string{b.dir + "/missing"} },
		},
		"lower is a file": {
			args:  func(b bed) []string { return []string{"-o", b.lowerdir() + ":" + b.lower[0] + "/top", b.target} },
			words: func(b bed) []string { return []string{b.lower[0] + "/top"} },
		},
		"upper without work": {
			args:  func(b bed) []string { return []string{"-o", b.lowerdir() + ",upperdir=" + b.upper, b.target} },
			words: func(b bed) []string { return []string{"workdir"} },
		},
		"missing mount point": {
			args:  func(b bed) []string { return []string{"-o", b.lowerdir(), b.target + "/missing"} },
			words: func(b bed) []string { return []string{b.target + "/missing"} },
		},
		"mount point is a file": {
			args:  func(b bed) []string { return []string{"-o", b.lowerdir(), b.lower[0] + "/top"} },
			words: func(b bed) []string { return []string{b.lower[0] + "/top"} },
		},
		"no layers": {
			args:  func(b bed) []string { return []string{b.target} },
			words: func(b bed) []string { return []string{"layer"} },
		},
		"newline in a path": {
			args:  func(b bed) []string { return []string{"-o", b.lowerdir() + ":" + b.dir + "/a\nb", b.target} },
			words: func(b bed) []string { return []string{`a\nb`} },
		},
		"metrics address in use": {
			args: func(b bed) []string {
				return []string{"--route", "fuse", "--metrics", "256.0.0.1:1", "-o", b.lowerdir(), b.target}
			},
			words: func(b bed) []string { return []string{"--metrics"} },
		},
		"log file cannot be made": {
			args: func(b bed) []string {
				return []string{"--route", "fuse", "--log-file", "/no/such/dir/log", "-o", b.lowerdir(), b.target}
			},
			words: func(b bed) []string { return []string{"--log-file", "/no/such/dir"} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			requireFUSE(t)
			b := newBed(t)
			run(t, append([]string{"mount"}, c.args(b)...)...).wantStatus(t, exitFailed).wantOneLine(t, c.words(b)...)
			b.wantUnmounted(t)
			waitForEnd(t)
			for _, dir := range []string{b.upper, b.work} {
				if entries, _ := os.ReadDir(dir); len(entries) > 0 {
					t.Errorf("%s: %v was left", dir, entries)
				}
			}
		})
	}
}

func TestUmountOfWhatIsNotMounted(t *testing.T) {
	b := newBed(t)
	run(t, "umount", b.target).wantStatus(t, exitFailed).wantOneLine(t, b.target)
}

func TestUmountOfWhatIsInUse(t *testing.T) {
	forEachRoute(t, func(t *testing.T, route string) {
		b := newBed(t)
		b.mount(t, route, "-o", b.lowerdir())
		file, err := os.Open(filepath.Join(b.target, "dir"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		run(t, "umount", b.target).wantStatus(t, exitFailed).wantOneLine(t, b.target, "busy")
		b.wantContent(t, "top", "0")
	})
}
