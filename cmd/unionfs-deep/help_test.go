package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestHelpNamesWhatAnAdministratorNeeds(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}} {
		out := run(t, args...).wantStatus(t, 0).stdout
		for _, section := range []string{"Usage:", "Commands", "Options:", "Examples:", "Exit status:", "Environment:", "Files:"} {
			if !strings.Contains(out, section) {
				t.Errorf("%v: no section %q", args, section)
			}
		}
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	for _, c := range commands() {
		for _, args := range [][]string{{c.name, "--help"}, {"help", c.name}} {
			out := run(t, args...).wantStatus(t, 0).stdout
			if !strings.HasPrefix(out, "Usage: unionfs-deep "+c.name) {
				t.Errorf("%v: %q", args, out)
			}
		}
	}
}

func TestHelpFitsATerminal(t *testing.T) {
	pages := []string{run(t, "--help").stdout}
	for _, c := range commands() {
		pages = append(pages, run(t, c.name, "--help").stdout)
	}
	for line := range strings.Lines(strings.Join(pages, "")) {
		if n := len(strings.TrimSuffix(line, "\n")); n > 85 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, flag := range []string{"--version", "-V"} {
		if out := run(t, flag).wantStatus(t, 0).stdout; !strings.HasPrefix(out, "unionfs-deep version ") {
			t.Errorf("%s: %q", flag, out)
		}
	}
}

func TestWrongCommandLines(t *testing.T) {
	for name, c := range map[string]struct {
		args  []string
		words []string
	}{
		"unknown command":       {[]string{"mnt", "/x"}, []string{`"mnt"`, "--help"}},
		"unknown flag":          {[]string{"mount", "--rout", "fuse", "/x"}, []string{"rout", "mount --help"}},
		"unknown flag, drop-in": {[]string{"--rout", "/x"}, []string{"rout", "--help"}},
		"no mount point":        {[]string{"mount", "-o", "lowerdir=/"}, []string{"mount point"}},
		"two mount points":      {[]string{"mount", "-o", "lowerdir=/", "/a", "/b"}, []string{"mount point"}},
		"unknown route":         {[]string{"plan", "--route", "teleport", "-o", "lowerdir=/", "/x"}, []string{"teleport", "overlay, stacked, fuse"}},
		"unknown log level":     {[]string{"plan", "--log-level", "loud", "/x"}, []string{"loud", "debug"}},
		"unknown log format":    {[]string{"plan", "--log-format", "xml", "/x"}, []string{"xml", "json"}},
		"unknown option":        {[]string{"mount", "-o", "lowerdir=/,frobnicate", "/x"}, []string{"frobnicate"}},
		"malformed option":      {[]string{"mount", "-o", "lowerdir=/,index=perhaps", "/x"}, []string{"index=perhaps"}},
		"operands of umount":    {[]string{"umount"}, []string{"mount point"}},
		"operands of doctor":    {[]string{"doctor", "now"}, []string{"operands"}},
		"operands of inspect":   {[]string{"inspect"}, []string{"mount point"}},
		"unknown shell":         {[]string{"completion", "tcsh"}, []string{"bash, zsh or fish"}},
		"help of nothing":       {[]string{"help", "mnt"}, []string{`"mnt"`}},
		"too many operands":     {[]string{"-o", "lowerdir=/", "a", "b", "c"}, []string{"3 operands"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, c.args...).wantStatus(t, exitUsage)
			r.wantOneLine(t, c.words...)
			if r.stdout != "" {
				t.Errorf("standard output: %q", r.stdout)
			}
		})
	}
}

func TestNoCommandShowsHelpAndFails(t *testing.T) {
	r := run(t).wantStatus(t, exitUsage)
	if !strings.Contains(r.stderr, "Usage:") {
		t.Errorf("standard error: %q", r.stderr)
	}
}

func TestCompletionScriptsAreSound(t *testing.T) {
	for shell, check := range map[string][]string{"bash": {"bash", "-n"}, "zsh": {"zsh", "-n"}, "fish": {"fish", "--no-execute"}} {
		t.Run(shell, func(t *testing.T) {
			script := run(t, "completion", shell).wantStatus(t, 0).stdout
			if !strings.Contains(script, "unionfs-deep completion --words") {
				t.Errorf("the script does not ask the program: %q", script)
			}
			if _, err := exec.LookPath(check[0]); err != nil {
				t.Skipf("%s is not installed, so the script cannot be checked by it", shell)
			}
			cmd := exec.Command(check[0], check[1:]...)
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestCompletionInBash(t *testing.T) {
	for line, want := range map[string]string{"mou": "mount", "mount --lay": "--layers-file", "completion zs": "zsh"} {
		words := strings.Fields("unionfs-deep " + line)
		script := run(t, "completion", "bash").stdout + `
			PATH=$1:$PATH; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _unionfs_deep; echo "${COMPREPLY[@]}"`
		dir := strings.TrimSuffix(program, "/unionfs-deep")
		out, err := exec.Command("bash", append([]string{"-c", script, "bash", dir}, words...)...).Output()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%q is completed as %q (%v), want %q", line, out, err, want)
		}
	}
}
