package overlayfallback

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var can, cannot = Ability{OK: true}, Ability{Why: "operation not permitted"}

// everything is a machine on which all is possible.
func everything() Capabilities {
	return Capabilities{
		MountAPI: can, Overlay: can, LowerPaths: can, LowerFDs: can, DataOnly: can, Detached: can, OwnThread: can, TrustedXattr: can,
		UserXattr: can, Labels: can, Device: can, FUSEMount: can, Fusermount: can, Openat2: can, Descriptors: 1 << 20,
	}
}

// pretend gives a configuration of so many layers, in paths of about 68 bytes, that exist nowhere.
func pretend(layers int) Config {
	c := Config{Target: "/mnt"}
	for i := range layers {
		c.Lower = append(c.Lower, fmt.Sprintf("/var/lib/docker/overlay2/%032x/diff", i))
	}
	return c
}

func TestPlan(t *testing.T) {
	for name, c := range map[string]struct {
		layers int
		with   func(*Config, *Capabilities, *facts)
		route  Route
		naming Naming
		passed string // in the reason for a route that was passed over
	}{
		"few":                  {layers: 3, route: Overlay, naming: Absolute},
		"one":                  {layers: 1, route: Overlay, naming: FSConfig},
		"one, written to":      {layers: 1, with: func(c *Config, _ *Capabilities, _ *facts) { c.Upper, c.Work = "/u", "/w" }, route: Overlay, naming: Absolute},
		"a page":               {layers: 90, route: Overlay, naming: Relative},
		"named by descriptors": {layers: 500, route: Overlay, naming: Descriptor},
		"few descriptors":      {layers: 500, with: func(_ *Config, m *Capabilities, _ *facts) { m.Descriptors = 256 }, route: Overlay, naming: FSConfig},
		"no thread":            {layers: 500, with: func(_ *Config, m *Capabilities, _ *facts) { m.OwnThread = cannot }, route: Overlay, naming: FSConfig},
		"501":                  {layers: 501, route: Stacked, passed: "501 layers"},
		"999":                  {layers: 999, route: Stacked, passed: "holds 500"},
		"1000":                 {layers: 1000, route: FUSE, passed: "two kernel overlays hold 999"},
		"data counted": {layers: 400, with: func(c *Config, _ *Capabilities, _ *facts) { c.Data = pretend(101).Lower }, route: Stacked,
			passed: "501 layers"},
		"data in both": {layers: 799, with: func(c *Config, _ *Capabilities, _ *facts) { c.Data = pretend(101).Lower }, route: FUSE,
			passed: "hold 898"},
		"no overlay": {layers: 3, with: func(_ *Config, m *Capabilities, _ *facts) { m.Overlay = cannot }, route: FUSE, passed: "operation not permitted"},
		"old kernel": {layers: 501, with: func(_ *Config, m *Capabilities, _ *facts) { m.Detached = cannot }, route: FUSE,
			passed: "in no folder"},
		"a single layer on an old kernel": {layers: 1, with: func(_ *Config, m *Capabilities, _ *facts) { m.Detached = cannot }, route: FUSE,
			passed: "single layer"},
		"AUFS":     {layers: 3, with: func(_ *Config, _ *Capabilities, f *facts) { f.aufs = "/a/.wh.b" }, route: FUSE, passed: "/a/.wh.b"},
		"AUFS off": {layers: 3, with: func(c *Config, _ *Capabilities, f *facts) { f.aufs, c.Options.AUFS = "/a/.wh.b", "off" }, route: Overlay, naming: Absolute},
		"nested":   {layers: 3, with: func(_ *Config, _ *Capabilities, f *facts) { f.nested = "a in b" }, route: FUSE, passed: "a in b"},
		"refused":  {layers: 3, with: func(_ *Config, _ *Capabilities, f *facts) { f.refused = "not that one" }, route: FUSE, passed: "not that one"},
		"on an overlay": {layers: 600, with: func(_ *Config, _ *Capabilities, f *facts) { f.onOverlay = "/o" }, route: FUSE,
			passed: "two deep"},
		"tried": {layers: 3, with: func(_ *Config, _ *Capabilities, f *facts) { f.failed = map[Route]error{Overlay: unix.EINVAL} }, route: Stacked,
			passed: "it was tried"},
		"redirects in a user namespace": {layers: 3, with: func(c *Config, m *Capabilities, _ *facts) { m.TrustedXattr, c.Options.RedirectDir = cannot, "follow" },
			route: FUSE, passed: "userxattr"},
		"data-only before 6.16": {layers: 3, with: func(c *Config, m *Capabilities, _ *facts) { m.DataOnly, c.Data = cannot, []string{"/d"} }, route: FUSE,
			passed: "metacopy=on"},
		"exported": {layers: 600, with: func(c *Config, _ *Capabilities, _ *facts) { c.Options.NFSExport = "on" }, route: FUSE, passed: "file handles"},
		"exported 2": {layers: 600, with: func(c *Config, _ *Capabilities, _ *facts) {
			c.Options.NFSExport, c.Options.RedirectDir = "on", "nofollow"
		}, route: Stacked},
		"served": {layers: 3, with: func(_ *Config, _ *Capabilities, f *facts) { f.served = true }, route: FUSE, passed: "mounted already"},
		"no FUSE mount but a helper": {layers: 1000, with: func(_ *Config, m *Capabilities, _ *facts) { m.FUSEMount, m.Device = cannot, cannot },
			route: FUSE},
	} {
		t.Run(name, func(t *testing.T) {
			config, caps, f := pretend(c.layers), everything(), facts{}
			if c.with != nil {
				c.with(&config, &caps, &f)
			}
			p, err := choose(&config, &caps, &f)
			if err != nil || p.Route != c.route || p.Naming != c.naming {
				t.Fatalf("%+v, %v; want %s, named %s", p, err, c.route, c.naming)
			}
			if p.Reason == "" || !strings.Contains(fmt.Sprint(p.Passed), c.passed) {
				t.Errorf("%+v: no word on %q", p, c.passed)
			}
		})
	}
}

// What was asked for and cannot be had is refused, with the limit and the route that would do.
func TestPlanRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		layers int
		with   func(*Config, *Capabilities, *facts)
		want   []string
	}{
		"overlay":        {1000, func(c *Config, _ *Capabilities, _ *facts) { c.Route = Overlay }, []string{"1000 layers", "holds 500", "the route fuse would work"}},
		"overlay, 501":   {501, func(c *Config, _ *Capabilities, _ *facts) { c.Route = Overlay }, []string{"the route stacked would work"}},
		"stacked":        {1000, func(c *Config, _ *Capabilities, _ *facts) { c.Route = Stacked }, []string{"hold 999", "the route fuse would work"}},
		"naming":         {500, func(c *Config, _ *Capabilities, _ *facts) { c.Route, c.Naming = Overlay, Absolute }, []string{"mount(2) takes 4095"}},
		"nothing at all": {3, func(_ *Config, m *Capabilities, _ *facts) { *m = Capabilities{Device: cannot} }, []string{"overlay: ", "fuse: ", "unshare -Urm"}},
		"no fuse module": {3, func(c *Config, m *Capabilities, _ *facts) {
			*m = Capabilities{Device: Ability{Why: unix.ENOENT.Error()}}
		}, []string{"modprobe fuse"}},
		"reading itself":  {3, func(c *Config, _ *Capabilities, f *facts) { c.Route, f.below = FUSE, "/" }, []string{"read itself", "overlay would work"}},
		"verity required": {3, func(c *Config, _ *Capabilities, _ *facts) { c.Route, c.Options.Verity = FUSE, "require" }, []string{"fs-verity"}},
	} {
		t.Run(name, func(t *testing.T) {
			config, caps, f := pretend(c.layers), everything(), facts{}
			c.with(&config, &caps, &f)
			p, err := choose(&config, &caps, &f)
			var e *Error
			if !errors.As(err, &e) || e.Hint == "" {
				t.Fatalf("%+v, %v", p, err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v: no word on %q", err, w)
				}
			}
		})
	}
}

func TestPlanAdapts(t *testing.T) {
	config, caps := pretend(2), everything()
	caps.TrustedXattr, caps.Labels = cannot, cannot
	config.Options.Labels, config.Options.RedirectDir = []Label{{"context", "x"}}, "off"
	p, err := choose(&config, &caps, &facts{})
	if err != nil || !p.UserXattr || len(p.Warnings) != 1 || p.Route != Overlay {
		t.Errorf("%+v, %v", p, err)
	}
	if len(config.Options.Labels) != 1 || config.Options.UserXattr {
		t.Error("the caller's configuration was changed")
	}
}

func TestRelativeTo(t *testing.T) {
	for _, c := range []struct {
		lower    []string
		folder   string
		relative []string
	}{
		{[]string{"/a/b/1", "/a/b/2"}, "/a/b/", []string{"1", "2"}},
		{[]string{"/a/b", "/a/bc"}, "/a/", []string{"b", "bc"}},
		{[]string{"/a/b/", "/a/b/c"}, "/a/b/", []string{".", "c"}},
		{[]string{"/a//b", "/a/c"}, "/a/", []string{"b", "c"}},
		{[]string{"/a/l/X/../d", "/a/l/Y/../d"}, "/a/l/", []string{"X/../d", "Y/../d"}},
		{[]string{"/a", "/b"}, "/", []string{"a", "b"}},
		{[]string{"l/X", "l/Y"}, "l/", []string{"X", "Y"}},
		{[]string{"l/X", "/a"}, "", []string{"l/X", "/a"}},
		{[]string{"a", "b"}, "", []string{"a", "b"}},
	} {
		folder, relative := stack{lower: c.lower}.relativeTo()
		if folder != c.folder || fmt.Sprint(relative.lower) != fmt.Sprint(c.relative) {
			t.Errorf("%q: %q, %q; want %q, %q", c.lower, folder, relative.lower, c.folder, c.relative)
		}
	}
}
