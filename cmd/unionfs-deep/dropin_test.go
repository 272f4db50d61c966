package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// wantFUSE checks that FUSE serves what is mounted: callers tell a live mount by the file system's magic.
func (b bed) wantFUSE(t *testing.T) {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(b.target, &fs); err != nil || fs.Type != unix.FUSE_SUPER_MAGIC {
		t.Errorf("file system magic %#x, %v; want FUSE's", fs.Type, err)
	}
}

func TestDropInTakesEachOrderOfArguments(t *testing.T) {
	requireFUSE(t)
	for name, args := range map[string]func(b bed) []string{
		"containers/storage": func(b bed) []string { return []string{"-o", b.writable(), b.target} },
		"with a source":      func(b bed) []string { return []string{"-o", b.writable(), "overlay", b.target} },
		"mount.fuse3":        func(b bed) []string { return []string{"overlay", b.target, "-o", b.writable() + ",dev,suid"} },
		"joined flag":        func(b bed) []string { return []string{"-o" + b.writable(), b.target} },
		"several -o": func(b bed) []string {
			return []string{"-o", "workdir=" + b.work, "-o", "upperdir=" + b.upper, "-o", b.lowerdir(), b.target}
		},
		"one thread":            func(b bed) []string { return []string{"-s", "-o", b.writable(), b.target} },
		"empty options between": func(b bed) []string { return []string{"-o", "," + b.writable() + ",,", b.target} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			if r := run(t, args(b)...).wantStatus(t, 0); r.stdout+r.stderr != "" {
				t.Errorf("output on success: %q %q", r.stdout, r.stderr)
			}
			b.wantFUSE(t)
			b.wantContent(t, "both", "0")
		})
	}
}

func TestDropInWarnsOfUnknownOptions(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	run(t, "-o", b.lowerdir()+",frobnicate=1", b.target).wantStatus(t, 0).wantOneLine(t, "frobnicate")
	b.wantContent(t, "top", "0")
}

func TestDropInTakesASymbolicLinkInALayersPath(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	if err := os.MkdirAll(filepath.Join(b.dir, "l/deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../lower2", filepath.Join(b.dir, "l/ID")); err != nil {
		t.Fatal(err)
	}
	// By the link's target this is lower0; cleaned as text it would be l/lower0, which does not exist.
	run(t, "-o", "lowerdir="+b.dir+"/l/ID/../lower0", b.target).wantStatus(t, 0)
	b.wantContent(t, "top", "0")
}

func TestDropInMountsOneLayerAndHonoursAUFSWhiteouts(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	write(t, b.lower[0], map[string]string{".wh.bottom": "", "dir/.wh..wh..opq": ""})
	run(t, "-o", b.lowerdir(), b.target).wantStatus(t, 0)
	for _, gone := range []string{"bottom", ".wh.bottom", "dir/1", "dir/.wh..wh..opq"} {
		if _, err := os.Lstat(filepath.Join(b.target, gone)); !os.IsNotExist(err) {
			t.Errorf("%s: %v, want it hidden", gone, err)
		}
	}
	run(t, "umount", b.target).wantStatus(t, 0)
	run(t, "-o", "lowerdir="+b.lower[1], b.target).wantStatus(t, 0)
	b.wantContent(t, "both", "1")
	run(t, "umount", b.target).wantStatus(t, 0)
	write(t, b.lower[0], map[string]string{".wh..wh..opq": ""})
	run(t, "-o", b.lowerdir(), b.target).wantStatus(t, 0)
	if names, err := filepath.Glob(filepath.Join(b.target, "*/*")); err != nil || len(names) != 1 {
		t.Errorf("with an opaque root on top: %q, %v", names, err)
	}
}

func TestDropInUnderAnotherName(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	runAs(t, "fuse-overlayfs", "-o", b.lowerdir(), b.target).wantStatus(t, 0)
	b.wantFUSE(t)
}

func TestDropInCanBeRepeated(t *testing.T) {
	requireFUSE(t)
	b := newBed(t)
	for range 3 {
		run(t, "-o", b.writable(), b.target).wantStatus(t, 0)
		run(t, "umount", b.target).wantStatus(t, 0)
	}
}

func TestUnmountingByFusermountEndsTheDaemon(t *testing.T) {
	requireFUSE(t)
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Skip("fusermount3 is not installed")
	}
	b := newBed(t)
	run(t, "-o", b.writable(), b.target).wantStatus(t, 0)
	if err := os.WriteFile(filepath.Join(b.target, "new"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("fusermount3", "-u", b.target).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	waitForEnd(t)
	if got, err := os.ReadFile(filepath.Join(b.upper, "new")); string(got) != "new" {
		t.Errorf("the upper directory holds %q, %v", got, err)
	}
}

func TestMountHelper(t *testing.T) {
	requireFUSE(t)
	t.Run("fake", func(t *testing.T) {
		b := newBed(t)
		runAs(t, "/sbin/mount.unionfs-deep", "overlay", b.target, "-f", "-o", b.lowerdir()).wantStatus(t, 0)
		b.wantUnmounted(t)
	})
	t.Run("mount", func(t *testing.T) {
		b := newBed(t)
		runAs(t, "mount.unionfs-deep", "overlay", b.target, "-n", "-s", "-v", "-t", "unionfs-deep", "-o", "rw,"+b.lowerdir()).wantStatus(t, 0)
		b.wantFUSE(t)
	})
	t.Run("by the kernel where asked", func(t *testing.T) {
		requireRoot(t)
		b := newBed(t)
		runAs(t, "mount.unionfs-deep", "overlay", b.target, "-o", b.lowerdir()+",route=overlay").wantStatus(t, 0)
		if entry, err := overlayfallback.MountAt(b.target); err != nil || entry.Type != "overlay" {
			t.Errorf("mounted: %+v, %v", entry, err)
		}
	})
	t.Run("failure", func(t *testing.T) {
		b := newBed(t)
		r := runAs(t, "mount.unionfs-deep", "overlay", b.target, "-o", "lowerdir=/missing").wantStatus(t, mountHelperFailed)
		r.wantOneLine(t, "mount.unionfs-deep", "/missing")
	})
	t.Run("usage", func(t *testing.T) {
		runAs(t, "mount.unionfs-deep", "overlay").wantStatus(t, mountHelperFailed)
		runAs(t, "mount.unionfs-deep").wantStatus(t, mountHelperUsage)
	})
}

// TestMountProgramOfMount runs mount(8) itself, which calls the program by mount.fuse3.
func TestMountProgramOfMount(t *testing.T) {
	requireRoot(t)
	requireFUSE(t)
	if _, err := exec.LookPath("mount.fuse3"); err != nil {
		t.Skip("mount.fuse3 is not installed")
	}
	b := newBed(t)
	cmd := exec.Command("mount", "-t", "fuse."+program, "overlay", b.target, "-o", b.lowerdir())
	if r := runCommand(t, cmd); r.status != 0 && strings.Contains(r.stderr, "unknown filesystem") {
		t.Skipf("mount(8) does not find mount.fuse: %s", r.stderr)
	} else {
		r.wantStatus(t, 0)
	}
	b.wantFUSE(t)
	b.wantContent(t, "top", "0")
}
