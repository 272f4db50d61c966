package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// peer is another FUSE union. Its layers are named in one argument, which may hold at most 131,071 bytes: so it runs in
// the folder of the layers, and has them by their short names.
type peer struct {
	name      string
	program   string         // as found in PATH and in cargo's folder
	version   *regexp.Regexp // what --version must show
	arguments func(r *Request) []string
	volatile  bool // has the option
	copyUp    bool // does not change the layers themselves
}

func newPeer(name string) peer {
	switch name {
	case FuseOverlayfs1:
		return peer{name, "fuse-overlayfs", regexp.MustCompile(`fuse-overlayfs: version 1\.[0-9.]+`), fuseOverlayfsArguments, true, true}
	case FuseOverlayfs2:
		return peer{name, "fuse-overlayfs", regexp.MustCompile(`fuse-overlayfs: version 2\.[0-9.]+`), fuseOverlayfsArguments, true, true}
	case Mergerfs:
		return peer{name, "mergerfs", regexp.MustCompile(`mergerfs version: [0-9.]+`), mergerfsArguments, false, false}
	default:
		return peer{UnionfsFuse, "unionfs-fuse", regexp.MustCompile(`unionfs-fuse version: [0-9.]+`), unionfsFuseArguments, false, true}
	}
}

func (p peer) Name() string { return p.name }

func (p peer) Version(ctx context.Context) (string, error) {
	path, version := p.find(ctx)
	if path == "" {
		return "", fmt.Errorf("no %s in PATH or ~/.cargo/bin whose --version shows %q", p.program, p.version)
	}
	return version + " (" + path + ")", nil
}

// find returns the first installed program of the right version, and that version.
func (p peer) find(ctx context.Context) (path, version string) {
	folders := filepath.SplitList(os.Getenv("PATH"))
	if home, err := os.UserHomeDir(); err == nil {
		folders = append(folders, filepath.Join(home, ".cargo", "bin"))
	}
	for _, folder := range folders {
		path, err := exec.LookPath(filepath.Join(folder, p.program))
		if err != nil {
			continue
		}
		// unionfs-fuse shows its version with a failure status, so the output alone counts.
		out, _ := exec.CommandContext(ctx, path, "--version").CombinedOutput()
		if version := p.version.Find(out); version != nil {
			return path, string(version)
		}
	}
	return "", ""
}

func (p peer) Able(r *Request) error {
	if r.Volatile && !p.volatile {
		return errors.New(p.name + " has no volatile mounts")
	}
	if r.CopyUp && !p.copyUp {
		return errors.New(p.name + " does not copy up: it would change the layers")
	}
	return nil
}

func (p peer) Mount(ctx context.Context, r *Request) (*Mount, error) {
	daemon, err := startDaemon(ctx, p.command(ctx, append([]string{"-f"}, p.arguments(r)...), r), r.Target)
	if err != nil {
		return nil, err
	}
	return &Mount{Root: r.Target, target: r.Target, Daemon: daemon}, nil
}

// Launch mounts as a user would, leaving a daemon.
func (p peer) Launch(ctx context.Context, r *Request) error {
	return runQuietly(p.command(ctx, p.arguments(r), r))
}

// command runs the program where the layers are, with as many descriptors as this user may have: the peers hold one or more
// for each layer.
func (p peer) command(ctx context.Context, args []string, r *Request) *exec.Cmd {
	path, _ := p.find(ctx)
	cmd := exec.Command("/bin/sh", append([]string{"-c", `ulimit -n "$(ulimit -Hn)"; exec "$0" "$@"`, path}, args...)...)
	cmd.Args[0] = p.program // what errors name
	cmd.Dir = r.Set.Layers
	return cmd
}

func fuseOverlayfsArguments(r *Request) []string {
	options := []string{"lowerdir=" + strings.Join(r.Set.Names, ":")}
	if r.Upper != "" {
		options = append(options, "upperdir="+r.Upper, "workdir="+r.Work)
	}
	if r.Uncached {
		options = append(options, "timeout=0")
	}
	if r.Volatile {
		options = append(options, "volatile")
	}
	return []string{"-o", strings.Join(options, ","), r.Target}
}

// mergerfsArguments makes new files in the upper directory: mergerfs has neither copy-up nor whiteouts. By itself it would
// name all branches in the mount's source, which has to fit into a page.
func mergerfsArguments(r *Request) []string {
	branches := suffixed(r.Set.Names, "=RO")
	options := "use_ino,fsname=mergerfs"
	if r.Upper != "" {
		branches = append([]string{r.Upper + "=RW"}, branches...)
		options += ",category.create=ff"
	}
	if r.Uncached {
		options += ",cache.attr=0,cache.entry=0"
	}
	return []string{"-o", options, strings.Join(branches, ":"), r.Target}
}

func unionfsFuseArguments(r *Request) []string {
	branches := suffixed(r.Set.Names, "=RO")
	options := "allow_other,default_permissions,fsname=unionfs-fuse"
	if r.Upper != "" {
		branches = append([]string{r.Upper + "=RW"}, branches...)
		options += ",cow"
	}
	if r.Uncached {
		options += ",attr_timeout=0,entry_timeout=0"
	}
	return []string{"-o", options, strings.Join(branches, ":"), r.Target}
}

func suffixed(names []string, suffix string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = name + suffix
	}
	return out
}
