package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// podman runs Podman with a storage of its own whose mount program is ours.
type podman struct {
	t   *testing.T
	env []string
}

func newPodman(t *testing.T) podman {
	t.Helper()
	requireInitialRoot(t)
	requireFUSE(t)
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "storage.conf")
	text := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n[storage.options.overlay]\nmount_program = %q\n",
		dir+"/root", dir+"/run", program)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { waitForEnd(t) })
	return podman{t, append(os.Environ(), "CONTAINERS_STORAGE_CONF="+config, "TMPDIR="+dir)}
}

// run runs one command of Podman in a directory and returns its last line of output.
func (p podman) run(dir string, args ...string) string {
	p.t.Helper()
	cmd := exec.Command("podman", args...)
	cmd.Env, cmd.Dir = p.env, dir
	r := runCommand(p.t, cmd).wantStatus(p.t, 0)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	return lines[len(lines)-1]
}

// TestPodmanBuildsAndMountsImages has Podman import a layer, build another on it, change a container and commit it.
func TestPodmanBuildsAndMountsImages(t *testing.T) {
	p := newPodman(t)
	dir := write(t, t.TempDir(), map[string]string{"tree/etc/hello": "hello", "Dockerfile": "FROM localhost/one\nCOPY tree/etc/hello /etc/copy\n"})
	if out, err := exec.Command("tar", "-C", dir+"/tree", "-cf", dir+"/tree.tar", ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	p.run(dir, "import", "--quiet", "tree.tar", "one")
	p.run(dir, "build", "--quiet", "--tag", "two", ".")
	t.Cleanup(func() { p.run(dir, "rm", "--all", "--force") })
	container := p.run(dir, "create", "two", "/bin/true")
	merged := p.run(dir, "mount", container)
	if entry, err := overlayfallback.MountAt(merged); err != nil || entry.Type != overlayfallback.FSType {
		t.Errorf("mounted: %+v, %v", entry, err)
	}
	write(t, merged, map[string]string{"etc/new": "new"})
	if err := os.Remove(merged + "/etc/hello"); err != nil {
		t.Fatal(err)
	}
	p.run(dir, "umount", container)
	cmd := exec.Command("podman", "diff", container)
	cmd.Env = p.env
	if diff := runCommand(t, cmd).wantStatus(t, 0).stdout; diff != "C /etc\nA /etc/new\nD /etc/hello\n" {
		t.Errorf("podman sees the changes as %q", diff)
	}
	p.run(dir, "commit", "--quiet", container, "three")
	p.run(dir, "rm", "--force", container)
	container = p.run(dir, "create", "three", "/bin/true")
	merged = p.run(dir, "mount", container)
	for name, want := range map[string]string{"new": "new", "copy": "hello", "hello": ""} {
		if got, _ := os.ReadFile(filepath.Join(merged, "etc", name)); string(got) != want {
			t.Errorf("the committed image has %q in %s, want %q", got, name, want)
		}
	}
	p.run(dir, "umount", container)
}
