package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// deep is unionfs-deep by one of its routes, run through its command line in a process of its own.
type deep struct {
	name      string
	route     string
	fastpath  string // profile of the fuse route; empty on the others
	binary    string
	maxLayers int // 0: no bound
}

func (d deep) Name() string { return d.name }

func (d deep) Version(ctx context.Context) (string, error) {
	if d.binary == "" {
		return "", errors.New("no unionfs-deep program given")
	}
	out, err := exec.CommandContext(ctx, d.binary, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", d.binary, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (d deep) Able(r *Request) error {
	if d.maxLayers > 0 && r.Set.Depth > d.maxLayers {
		return fmt.Errorf("the %s route takes at most %d layers", d.route, d.maxLayers)
	}
	if r.Uncached && d.route != "fuse" {
		return errors.New("the kernel serves this route: it sends no requests")
	}
	return nil
}

// Mount runs the fuse route in the foreground, as a child whose memory and time can be read. The kernel's routes need no
// process once mounted.
func (d deep) Mount(ctx context.Context, r *Request) (*Mount, error) {
	if d.route != "fuse" {
		if err := d.Launch(ctx, r); err != nil {
			return nil, err
		}
		return &Mount{Root: r.Target, target: r.Target}, nil
	}
	list, err := layersFile(r.Set)
	if err != nil {
		return nil, err
	}
	defer os.Remove(list)
	daemon, err := startDaemon(ctx, exec.Command(d.binary, d.arguments(r, list, "--foreground")...), r.Target)
	if err != nil {
		return nil, err
	}
	m := &Mount{Root: r.Target, target: r.Target, Daemon: daemon}
	m.requests = func(ctx context.Context) (int64, error) { return d.requests(ctx, r.Target) }
	return m, nil
}

// Launch mounts as a user would: the command returns once the mount answers, and leaves a daemon where there is need of one.
func (d deep) Launch(ctx context.Context, r *Request) error {
	list, err := layersFile(r.Set)
	if err != nil {
		return err
	}
	defer os.Remove(list)
	return runQuietly(exec.CommandContext(ctx, d.binary, d.arguments(r, list)...))
}

func (d deep) arguments(r *Request, list string, flags ...string) []string {
	args := append([]string{"mount", "--route", d.route, "--layers-file", list}, flags...)
	var options []string
	if r.Upper != "" {
		options = append(options, "upperdir="+r.Upper, "workdir="+r.Work)
	}
	if d.fastpath != "" {
		options = append(options, "fastpath="+d.fastpath)
	}
	if r.Uncached {
		options = append(options, "timeout=0")
	}
	if r.Volatile {
		options = append(options, "volatile")
	}
	if len(options) > 0 {
		args = append(args, "-o", strings.Join(options, ","))
	}
	return append(args, r.Target)
}

// layersFile writes the set's layers into a file, one a line, the topmost first.
func layersFile(set *LayerSet) (string, error) {
	f, err := os.CreateTemp("", "layers-*")
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = f.WriteString(strings.Join(set.paths(), "\n") + "\n")
	return f.Name(), err
}

// requests asks the daemon for its counters.
func (d deep) requests(ctx context.Context, target string) (int64, error) {
	out, err := exec.CommandContext(ctx, d.binary, "inspect", "--json", target).Output()
	if err != nil {
		return 0, fmt.Errorf("inspect %s: %w", target, err)
	}
	var report struct {
		Counters *struct {
			Total int64 `json:"total"`
		} `json:"counters"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return 0, fmt.Errorf("inspect %s: %w", target, err)
	}
	// Each connection begins with a request, INIT: a count of none is no count.
	if report.Counters == nil || report.Counters.Total == 0 {
		return 0, fmt.Errorf("inspect %s: the daemon has counted no requests", target)
	}
	return report.Counters.Total, nil
}
