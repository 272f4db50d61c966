package overlayfallback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Mounted is a mount that this process has made.
type Mounted struct {
	plan   *Plan
	entry  MountInfo // where the kernel lists it; empty if someone else mounted the connection that is served
	unique uint64    // its number that no other mount is given, 0 where the kernel has none (before Linux 6.8)
	server *server   // nil for the kernel's routes
	tidy   func()    // does what tidyUp does, once, and returns when that is done
	log    *slog.Logger
}

// Route is the route that the mount took.
func (m *Mounted) Route() Route { return m.plan.Route }

// Plan says why it took it.
func (m *Mounted) Plan() *Plan { return m.plan }

// NewPlan checks a configuration, looks at the layers and at what the machine can do, and says which route Mount would take.
// Nothing is changed, on disk or otherwise. The errors are *Error.
func NewPlan(ctx context.Context, c Config) (*Plan, error) {
	caps := Probe(ctx)
	f, err := inspect(ctx, &c, &caps)
	if err != nil {
		return nil, about(&c, err)
	}
	return choose(&c, &caps, f)
}

// Mount makes the union and returns once it answers. On the FUSE route it is served by goroutines of this process, until it is
// unmounted; the kernel's routes need no process. ctx bounds the mounting only. With the route Auto, a route that looks as if
// it would do and then fails gives way to the next one. On failure, an *Error, no mount is left.
func Mount(ctx context.Context, c Config) (*Mounted, error) {
	caps := Probe(ctx)
	f, err := inspect(ctx, &c, &caps)
	if err != nil {
		return nil, about(&c, err)
	}
	f.failed = map[Route]error{}
	for {
		p, err := choose(&c, &caps, f)
		if err != nil {
			return nil, err
		}
		m, err := mountAs(ctx, &c, p, &caps)
		if err == nil {
			return m, nil
		}
		if f.failed[p.Route] = err; c.Route == p.Route || ctx.Err() != nil || p.Route == FUSE {
			return nil, mountError(&c, p, err)
		}
		logger(&c).Warn("a route failed, trying the next", "route", p.Route, "error", err)
	}
}

func logger(c *Config) *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// mountAs makes the mount that was planned.
func mountAs(ctx context.Context, c *Config, p *Plan, caps *Capabilities) (*Mounted, error) {
	c = adapt(situation{config: c, stack: c.stack(), caps: caps})
	m := &Mounted{plan: p, log: logger(c)}
	var err error
	switch p.Route {
	case Overlay:
		err = mountOverlay(c, p)
	case Stacked:
		err = mountStacked(c, p)
	case FUSE:
		m.server, err = mountFUSE(ctx, c, p)
	}
	if err == nil {
		err = m.settle(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	m.log.Debug("mounted", "target", m.entry.Point, "route", p.Route, "reason", p.Reason)
	return m, nil
}

// settle finds the new mount where the kernel lists it, and does what can be done only to a mount in its place.
func (m *Mounted) settle(ctx context.Context, c *Config) error {
	if _, served := servedDescriptor(c.Target); served {
		return nil
	}
	var err error
	if m.entry, err = unionAt(c.Target); err != nil {
		return fmt.Errorf("the mount is not to be found: %w", err)
	}
	m.unique = uniqueNumber(m.entry.Point)
	if m.server != nil {
		m.tidy = sync.OnceFunc(m.tidyUp)
		go m.tidy()
	}
	if flags := c.Options.Propagation; flags != 0 {
		if err := unix.Mount("", m.entry.Point, "", flags, ""); err != nil {
			return errors.Join(fmt.Errorf("set the propagation: %w", err), m.Unmount(ctx))
		}
	}
	return nil
}

func mountError(c *Config, p *Plan, err error) error {
	e := &Error{Op: "mount", Source: c.Source, Target: c.Target, Err: fmt.Errorf("route %s: %w", p.Route, err)}
	switch {
	case p.Route == FUSE && errors.Is(unix.Access(fuseDevice, unix.R_OK|unix.W_OK), unix.EACCES):
		e.Hint = "let this user open " + fuseDevice + ", whose mode is 0666 on most systems"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e.Hint = "run as root or in a user namespace of your own (unshare -Urm)"
	case errors.Is(err, os.ErrNotExist):
		e.Hint = "a layer or the mount point went away meanwhile"
	case p.Route != FUSE:
		e.Hint = "the kernel's log (dmesg) says more; the route fuse may work"
	}
	return e
}
