package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/unionfs-deep/unionfs-deep/cmd/unionfs-deep/progress"
)

// times are what one route took.
type times struct{ mount, walk, read, again, unmount time.Duration }

func (d *demo) printPlan() error {
	if err := os.MkdirAll(d.mountPoint(), 0o755); err != nil {
		return err
	}
	plan, err := d.command(d.ctx, "plan", "--layers-file", d.list(), d.mountPoint())
	fmt.Printf("\n$ unionfs-deep plan --layers-file layers.txt merged\n%s\n", plan)
	return err
}

func (d *demo) showRoutes(routes []string) error {
	fmt.Printf("%-6s %10s %10s %10s %10s %10s  %s\n", "route", "mount", "walk", "read all", "walk again", "unmount", "result")
	for _, route := range routes {
		t, err := d.showRoute(route)
		if err != nil {
			return fmt.Errorf("route %s: %w", route, err)
		}
		fmt.Printf("%-6s %10s %10s %10s %10s %10s  %s\n", route, short(t.mount), short(t.walk), short(t.read), short(t.again),
			short(t.unmount), "equal to the original in every name")
	}
	return nil
}

func short(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }

// showRoute mounts the layers by one route, checks the union and unmounts it.
func (d *demo) showRoute(route string) (t times, err error) {
	if t.mount, err = timed(func() error {
		_, err := d.command(d.ctx, "mount", "--route", route, "--layers-file", d.list(), d.mountPoint())
		return err
	}); err != nil {
		return t, err
	}
	if t.walk, err = timed(d.walk); err != nil {
		return t, err
	}
	if t.read, err = timed(d.compare); err != nil {
		return t, err
	}
	if t.again, err = timed(d.walk); err != nil {
		return t, err
	}
	t.unmount, err = timed(d.unmount)
	return t, err
}

// walk asks for the attributes of every name of the union.
func (d *demo) walk() error {
	return filepath.WalkDir(d.mountPoint(), func(_ string, entry fs.DirEntry, err error) error {
		if err == nil {
			_, err = entry.Info()
		}
		return errors.Join(d.ctx.Err(), err)
	})
}

func (d *demo) compare() error {
	bar := progress.New(os.Stderr, "checking", len(d.tree))
	found, err := differences(d.mountPoint(), d.tree, func() { bar.Add(1) })
	bar.End()
	if err != nil || len(found) == 0 {
		return err
	}
	for _, difference := range found[:min(len(found), maxReported)] {
		fmt.Fprintln(os.Stderr, difference)
	}
	return fmt.Errorf("%d differences from the original", len(found))
}

func (d *demo) unmount() error {
	_, err := d.command(context.WithoutCancel(d.ctx), "umount", d.mountPoint())
	return err
}

// command runs unionfs-deep and returns its standard output.
func (d *demo) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.program, args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("unionfs-deep %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), nil
}

// cleanUp takes away everything that the demonstration made, also after it failed half way.
func (d *demo) cleanUp() error {
	if mounted, err := mountsBelow(d.dir); err != nil || mounted > 0 {
		if err := errors.Join(err, d.unmount()); err != nil {
			return fmt.Errorf("%w; what was made lies in %s", err, d.dir)
		}
	}
	// A directory of the original may be closed to writing, and then so is its copy, to all but root.
	filepath.WalkDir(d.dir, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	if err := os.RemoveAll(d.dir); err != nil {
		return err
	}
	if mounted, err := mountsBelow(d.dir); err != nil || mounted > 0 {
		return errors.Join(err, fmt.Errorf("%d mounts are left below %s", mounted, d.dir))
	}
	fmt.Println("Nothing is left behind.")
	return nil
}

func mountsBelow(dir string) (int, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	return strings.Count(string(mounts), " "+dir+"/"), err
}
