package overlayfallback

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Plan says which route a mount takes and why.
type Plan struct {
	Route       Route    `json:"route"`
	Reason      string   `json:"reason"`
	Naming      Naming   `json:"naming,omitempty"`       // overlay: how the layers are named
	OptionBytes int      `json:"option_bytes,omitempty"` // overlay: length of the options handed to mount(2)
	Layers      int      `json:"layers"`                 // all of them: lower, data-only and upper
	Folded      int      `json:"folded,omitempty"`       // stacked: how many of the lowest lower layers lie in the inner mount
	ReadOnly    bool     `json:"read_only"`
	UserXattr   bool     `json:"user_xattr"`       // user.overlay.* rather than trusted.overlay.*
	AUFS        bool     `json:"aufs_whiteouts"`   // .wh. names in lower layers are whiteouts
	Passed      []Passed `json:"passed,omitempty"` // the routes that were passed over, in order
	Warnings    []string `json:"warnings,omitempty"`
}

// Passed is a route that was passed over, and why.
type Passed struct {
	Route  Route  `json:"route"`
	Reason string `json:"reason"`
}

const (
	maxLayers  = 500             // of one kernel overlay, data-only ones counted (OVL_MAX_STACK)
	maxStacked = 2*maxLayers - 1 // of two, one being a layer of the other
)

// situation is all that a plan depends on.
type situation struct {
	config *Config
	stack  stack
	caps   *Capabilities
	facts  *facts
}

// fit is what a route says of a situation: why it cannot be used, or else what it would do.
type fit struct {
	obstacle string
	plan     Plan
}

// planner is how one route judges a situation.
type planner struct {
	route Route
	judge func(situation) fit
}

// planners are the routes in the order in which Auto tries them. One that indexes all layers into a single one belongs
// between stacked and fuse.
var planners = []planner{{Overlay, judgeOverlay}, {Stacked, judgeStacked}, {FUSE, judgeFUSE}}

// choose is the pure planner: the route for a configuration, given what the machine can do and the facts about the layers.
// It fails with an *Error if the route that was asked for, or every one, cannot be used.
func choose(c *Config, caps *Capabilities, f *facts) (*Plan, error) {
	s := situation{c, c.stack(), caps, f}
	s.config = adapt(s)
	plan := Plan{}
	for _, p := range planners {
		if c.Route != Auto && c.Route != "" && c.Route != p.route {
			continue
		}
		got := judge(p, s)
		if got.obstacle == "" {
			got.plan.Passed = plan.Passed
			return complete(got.plan, p.route, s), nil
		}
		plan.Passed = append(plan.Passed, Passed{p.route, got.obstacle})
	}
	return nil, noRoute(s, plan.Passed)
}

// judge asks a route, unless it has been tried in vain.
func judge(p planner, s situation) fit {
	if err := s.facts.failed[p.route]; err != nil {
		return fit{obstacle: "it was tried: " + err.Error()}
	}
	return p.judge(s)
}

// adapt gives the configuration with what the situation decides: the kind of xattrs, options that mean nothing here.
func adapt(s situation) *Config {
	c := *s.config
	o := &c.Options
	o.UserXattr = o.UserXattr || !s.caps.TrustedXattr.OK
	if o.UserXattr && o.RedirectDir == "off" {
		o.RedirectDir = "nofollow" // the one word that the kernel takes with userxattr
	}
	o.Volatile = o.Volatile && s.stack.upper != ""
	c.Warnings = slices.Clone(c.Warnings)
	if len(o.Labels) > 0 && !s.caps.Labels.OK {
		c.Warnings = append(c.Warnings, "security labels are left out, as by mount(8): this kernel has no security module that takes them")
		o.Labels = nil
	}
	return &c
}

func complete(p Plan, r Route, s situation) *Plan {
	p.Route = r
	p.Layers = s.layers()
	if s.stack.upper != "" {
		p.Layers++
	}
	p.ReadOnly = s.config.Options.ReadOnly || s.stack.upper == ""
	p.UserXattr = s.config.Options.UserXattr
	p.Warnings = s.config.Warnings
	return &p
}

// layers counts the lower and the data-only layers, as the kernel's limit does.
func (s situation) layers() int { return len(s.stack.lower) + len(s.stack.data) }

func judgeOverlay(s situation) fit {
	if why := kernelObstacle(s); why != "" {
		return fit{obstacle: why}
	}
	if n := s.layers(); n > maxLayers {
		return fit{obstacle: fmt.Sprintf("%d layers, and kernel overlayfs holds %d in a mount", n, maxLayers)}
	}
	if s.stack.upper == "" && s.layers() < 2 {
		return judgePadded(s)
	}
	naming, size, why := nameStack(s.config.Naming, s.stack, s.config.Options, s.caps)
	if why != "" {
		return fit{obstacle: why}
	}
	return fit{plan: Plan{Naming: naming, OptionBytes: size, Reason: reasonFor(naming, s.layers(), size)}}
}

// reasonFor says how a kernel overlay comes about.
func reasonFor(n Naming, layers, size int) string {
	how := map[Naming]string{
		Absolute:   "named as given",
		Relative:   "named relative to a common folder",
		Descriptor: "named by descriptors",
		FSConfig:   "handed over by descriptor, one by one",
	}[n]
	if size > 0 {
		how += " in " + strconv.Itoa(size) + " of " + strconv.Itoa(optionSpace) + " bytes"
	}
	return fmt.Sprintf("kernel overlayfs takes %d %s, %s", layers, plural(layers, "layer"), how)
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// judgePadded is for a single layer that nothing is written to. The empty one below it is in no folder, so it has no name.
func judgePadded(s situation) fit {
	switch {
	case !s.caps.Detached.OK:
		return fit{obstacle: "a single layer, and this kernel takes no empty one from a mount that is in no folder (" + s.caps.Detached.Why + ")"}
	case s.config.Naming != "" && s.config.Naming != FSConfig:
		return fit{obstacle: "a single read-only layer can be named only by fsconfig"}
	}
	if _, why := namingFits(FSConfig, s.stack, s.config.Options, s.caps); why != "" {
		return fit{obstacle: why}
	}
	return fit{plan: Plan{Naming: FSConfig, Reason: "kernel overlayfs takes 1 layer, with an empty one below it"}}
}

// judgeStacked folds the lowest layers into an inner mount. Each of the two mounts holds all data-only layers, since a file
// in either may have its data there.
func judgeStacked(s situation) fit {
	if why := kernelObstacle(s); why != "" {
		return fit{obstacle: why}
	}
	o, lower, data := s.config.Options, len(s.stack.lower), len(s.stack.data)
	folded := max(1, min(lower-1, maxLayers-data))
	_, named := namingFits(FSConfig, s.stack, o, s.caps)
	switch {
	case !s.caps.Detached.OK:
		return fit{obstacle: "this kernel takes no layer from a mount that is in no folder (" + s.caps.Detached.Why + ")"}
	case named != "":
		return fit{obstacle: named}
	case lower-folded+1+data > maxLayers || folded+data > maxLayers:
		return fit{obstacle: fmt.Sprintf("%d layers, and two kernel overlays hold %d, one inside the other", lower+data, maxStacked-2*data+data)}
	case s.facts.onOverlay != "":
		return fit{obstacle: fmt.Sprintf("the layer %q lies on an overlay itself, and file systems stack only two deep", s.facts.onOverlay)}
	case (o.Index == "on" || o.NFSExport == "on") && !handles(o):
		return fit{obstacle: "index=on and nfs_export=on need file handles of the layers, which the inner mount gives only with redirect_dir=nofollow"}
	}
	return fit{plan: Plan{Folded: folded, Reason: fmt.Sprintf("kernel overlayfs takes %d layers in two mounts, the lowest %d folded into one", lower+data, folded)}}
}

// kernelObstacle says what keeps kernel overlayfs from making this union at all.
func kernelObstacle(s situation) string {
	o := s.config.Options
	switch {
	case s.facts.served:
		return "the mount point is a FUSE connection that is mounted already"
	case !s.caps.Overlay.OK:
		return "kernel overlayfs cannot be mounted here: " + s.caps.Overlay.Why
	case s.facts.aufs != "" && o.AUFS != "off":
		return fmt.Sprintf("the layers hold AUFS whiteouts, such as %q, which the kernel would show as files", s.facts.aufs)
	case s.facts.refused != "":
		return s.facts.refused
	case s.facts.nested != "":
		return "kernel overlayfs refuses a layer inside another: " + s.facts.nested
	case o.UserXattr && !s.caps.UserXattr.OK:
		return "trusted.overlay.* cannot be set here, and kernel overlayfs does not take userxattr: " + s.caps.UserXattr.Why
	case o.UserXattr && (o.RedirectDir == "on" || o.RedirectDir == "follow" || o.Metacopy == "on"):
		return "with userxattr kernel overlayfs refuses redirect_dir and metacopy"
	case len(s.stack.data) > 0 && o.Metacopy != "on" && !s.caps.DataOnly.OK:
		return "data-only layers need metacopy=on on this kernel: " + s.caps.DataOnly.Why
	}
	return ""
}

func judgeFUSE(s situation) fit {
	o := s.config.Options
	switch {
	case !s.caps.canFUSE() && !s.facts.served:
		return fit{obstacle: "FUSE cannot be mounted: " + s.caps.FUSEMount.Why + ", nor through a helper: " + s.caps.Fusermount.Why}
	case o.UserXattr && (o.RedirectDir == "on" || o.Metacopy == "on"):
		return fit{obstacle: "redirect_dir=on and metacopy=on need trusted.overlay.* xattrs, which cannot be set here"}
	case o.Verity == "require":
		return fit{obstacle: "it does not check fs-verity digests"}
	case s.facts.below != "":
		return fit{obstacle: fmt.Sprintf("the mount point lies below the layer %q, so that the server would read itself", s.facts.below)}
	}
	n := s.layers()
	return fit{plan: Plan{
		AUFS:   o.AUFS == "on" || (o.AUFS != "off" && (s.config.Lenient || s.facts.aufs != "")),
		Reason: fmt.Sprintf("the FUSE union takes any number of layers, here %d", n),
	}}
}

// noRoute tells why nothing can be mounted, and which route would do where another one was asked for.
func noRoute(s situation, passed []Passed) error {
	e := &Error{Op: "plan", Source: s.config.Source, Target: s.config.Target}
	if s.config.Route == Auto || s.config.Route == "" {
		var whys []string
		for _, p := range passed {
			whys = append(whys, string(p.Route)+": "+p.Reason)
		}
		e.Err = routeError("no route fits ("+strings.Join(whys, "; ")+")", s)
		e.Hint = remedy(s.caps)
		return e
	}
	e.Options = "route=" + string(s.config.Route)
	e.Err = routeError(passed[0].Reason, s)
	e.Hint = remedy(s.caps)
	for _, p := range planners {
		if p.route == s.config.Route || judge(p, s).obstacle != "" {
			continue
		}
		if works := "the route " + string(p.route) + " would work"; s.caps.canFUSE() {
			e.Hint = works
		} else {
			e.Hint += "; " + works
		}
		break
	}
	return e
}

// remedy says what would make FUSE, the route that takes everything, possible.
func remedy(caps *Capabilities) string {
	switch {
	case caps.canFUSE():
		return "change what stands in the way, or leave the option out"
	case strings.Contains(caps.Device.Why, unix.ENOENT.Error()):
		return "load the module fuse (modprobe fuse), or give the container the device " + fuseDevice
	default:
		return "run as root or in a user namespace of your own (unshare -Urm), or install fusermount3 (package fuse3)"
	}
}

// routeError gives the reason a cause that errors.Is can find.
func routeError(reason string, s situation) error {
	for _, err := range s.facts.failed {
		return fmt.Errorf("%s%w", reason, silent{err})
	}
	if !s.caps.Overlay.OK && !s.caps.FUSEMount.OK {
		return fmt.Errorf("%s%w", reason, silent{unix.EPERM})
	}
	return errors.New(reason)
}

// silent wraps a cause without saying it again.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (e silent) Unwrap() error { return e.error }
