package overlaytest

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// startTime is how long a server may take until its mount answers.
const startTime = 20 * time.Second

// mountProgram runs a program in the form of fuse-overlayfs, "PROGRAM -o OPTIONS TARGET", which puts itself into the
// background and ends when it is unmounted.
func mountProgram(r Route, l Layout, target string) error {
	opts := []string{"lowerdir=" + strings.Join(l.Lower, ":")}
	if l.Upper != "" {
		opts = append(opts, "upperdir="+l.Upper, "workdir="+l.Work)
	}
	opts = append(append(opts, l.Options...), r.Options()...)
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, r.Program(), "-o", strings.Join(opts, ","), target).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", r.Program(), err, strings.TrimSpace(string(out)))
	}
	return nil
}
