package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// wantWrite writes to the union and compares the errno.
func (b bed) wantWrite(t *testing.T, want error) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.target, "written"), nil, 0o600); !errors.Is(err, want) {
		t.Errorf("a write: %v, want %v", err, want)
	}
}

// flags gives the mount's own options as the kernel lists them.
func (b bed) flags(t *testing.T) string {
	t.Helper()
	m, err := overlayfallback.MountAt(b.target)
	if err != nil {
		t.Fatal(err)
	}
	return "," + m.Options + ","
}

func TestRemountChangesTheFlagsAlone(t *testing.T) {
	requireRoot(t)
	forEachRoute(t, func(t *testing.T, route string) {
		b := newBed(t)
		b.mount(t, route, "-o", b.writable()+",nosuid")
		for _, step := range []struct {
			options string
			write   error
			has     string
		}{
			{"remount,ro", unix.EROFS, ",nosuid,"},
			{"remount,lowerdir=/elsewhere,noexec", unix.EROFS, ",noexec,"},
			{"remount,rw,noatime,exec", nil, ",noatime,"},
			{"remount", nil, ",nosuid,"},
		} {
			run(t, "mount", "-o", step.options, b.target).wantStatus(t, 0)
			b.wantWrite(t, step.write)
			if got := b.flags(t); !strings.Contains(got, step.has) {
				t.Errorf("after %s the mount has %s", step.options, got)
			}
			b.wantContent(t, "both", "0")
		}
	})
}

func TestRemountThatCannotBe(t *testing.T) {
	requireRoot(t)
	forEachRoute(t, func(t *testing.T, route string) {
		b := newBed(t)
		run(t, "mount", "-o", "remount,ro", b.target).wantStatus(t, exitFailed).wantOneLine(t, "nothing is mounted")
		b.mount(t, route, "-o", b.writable())
		open, err := os.Create(filepath.Join(b.target, "open"))
		if err != nil {
			t.Fatal(err)
		}
		run(t, "mount", "-o", "remount,ro", b.target).wantStatus(t, exitFailed).wantOneLine(t, b.target, "busy")
		open.Close()
		b.wantWrite(t, nil)
		run(t, "umount", b.target).wantStatus(t, 0)
		b.mount(t, route, "-o", b.lowerdir())
		run(t, "mount", "-o", "remount,rw", b.target).wantStatus(t, exitFailed).wantOneLine(t, b.target, "no upper layer")
		b.wantWrite(t, unix.EROFS)
	})
}

// mount(8) runs its helpers for a remount too: with what fstab(5) has, or, where that is nothing, with what the kernel lists.
func TestRemountByMount(t *testing.T) {
	requireRoot(t)
	requireFUSE(t)
	b := newBed(t)
	b.mount(t, "fuse", "-o", b.writable())
	runAs(t, "mount.unionfs-deep", "overlay", b.target, "-o", "ro,remount,"+b.writable()).wantStatus(t, 0)
	b.wantWrite(t, unix.EROFS)
	run(t, "overlay", b.target, "-o", "rw,relatime,remount,user_id=0,group_id=0,default_permissions,allow_other").wantStatus(t, 0)
	b.wantWrite(t, nil)
	run(t, "-o", "remount,ro,frobnicate=1", b.target).wantStatus(t, 0)
	b.wantWrite(t, unix.EROFS)
}
