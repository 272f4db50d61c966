package bench

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// gitCommit makes a git repository of small files that lie in the mount: init, add, commit.
type gitCommit struct{}

func (gitCommit) Name() string { return "git" }

func (gitCommit) Figures() []Figure {
	return []Figure{{Name: "git", Title: "git init, add, commit of 3,000 files", Unit: Seconds, Targets: writeTargets()}}
}

func (gitCommit) Depths() []int { return []int{2, 100} }

func (gitCommit) Needs() Needs { return Needs{Writable: true, Program: "git"} }

func (gitCommit) Run(ctx context.Context, b *Bed) error {
	dir, err := b.Scratch()
	if err != nil {
		return err
	}
	names, err := newNames(dir)
	if err != nil {
		return err
	}
	for i, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), smallContent(i, name, 0), 0o644); err != nil {
			return err
		}
	}
	return b.Time(ctx, "git", func() (time.Duration, error) {
		return stopwatch(func() error {
			for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"commit", "-q", "-m", "bench"}} {
				if err := git(ctx, dir, b.Shared, args...); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// git runs git without any user's or system's settings, and without work in the background.
func git(ctx context.Context, dir, home string, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "gc.auto=0", "-c", "maintenance.auto=false",
		"-c", "user.name=bench", "-c", "user.email=bench@localhost"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+home, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
	return runQuietly(cmd)
}
