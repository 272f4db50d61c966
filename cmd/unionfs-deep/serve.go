package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// serving is how the process that makes a mount behaves once it stands.
type serving struct {
	foreground bool
	metrics    string // address of the metrics' listener; empty: none
	logFile    string // where a daemon logs; empty: syslog
}

// graceAfterSignal is how long a union that was in use when a signal came goes on serving the files that are open.
const graceAfterSignal = 5 * time.Second

// run makes the mount, in this process or in a daemon, and returns once it answers; in the foreground it returns when the
// union is unmounted. configure is called in the process that mounts, since it may read standard input.
func (s *serving) run(ctx context.Context, e *env, configure func() (overlayfallback.Config, error)) error {
	if !s.foreground && !isDaemon() {
		return startDaemon(ctx)
	}
	var ready *os.File
	if isDaemon() {
		var err error
		if ready, err = adoptReadyPipe(); err != nil {
			return err
		}
	}
	cfg, err := configure()
	if err != nil {
		return err
	}
	for _, warning := range cfg.Warnings {
		e.log.Warn(warning)
	}
	return s.mount(ctx, e, cfg, ready)
}

// mount makes the mount, says so, and serves it until it is unmounted or ctx ends. A kernel mount needs nobody to serve it,
// so without --foreground it only makes it.
func (s *serving) mount(ctx context.Context, e *env, cfg overlayfallback.Config, ready *os.File) error {
	paceCollections()
	giveLoopsProcessors()
	unix.Umask(0) // modes come from the callers, who have applied their own
	// Layers below the mount point can be reached through this alone once it is covered. Where it cannot be opened the
	// mount itself says why.
	if point, err := os.OpenFile(cfg.Target, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		defer point.Close()
		cfg.MountPoint = point
	}
	mounted, err := overlayfallback.Mount(ctx, cfg)
	if err != nil {
		return err
	}
	if err := s.start(e, &cfg, mounted, ready); err != nil {
		return errors.Join(err, mounted.Unmount(context.WithoutCancel(ctx)))
	}
	if !s.foreground && mounted.Route() != overlayfallback.FUSE {
		return nil
	}
	return wait(ctx, e, cfg.Target, mounted)
}

// start opens the side doors to a union and then lets whoever waits for it go on.
func (s *serving) start(e *env, cfg *overlayfallback.Config, mounted *overlayfallback.Mounted, ready *os.File) error {
	word := done
	if mounted.Route() == overlayfallback.FUSE {
		word = served
		if err := s.openSideDoors(e, cfg, mounted); err != nil {
			return err
		}
	}
	if ready == nil {
		return notifySystemd("READY=1")
	}
	log, err := openDaemonLog(s.logFile)
	if err != nil {
		return err
	}
	e.logTo.redirect(log)
	// The working directory's file system can be unmounted, for all that we care: every path is absolute.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return reportReady(ready, word)
}

// openSideDoors makes the counters readable: by inspect, by Prometheus, and by SIGUSR1 into the log.
func (s *serving) openSideDoors(e *env, cfg *overlayfallback.Config, mounted *overlayfallback.Mounted) error {
	if err := serveInspection(e, cfg, mounted); err != nil {
		// A union without inspect is worth more than none, so this is no failure.
		e.log.Warn("inspect will not work", "error", err)
	}
	if s.metrics != "" {
		if err := serveMetrics(e, s.metrics, mounted); err != nil {
			return err
		}
	}
	logCountersOnSignal(e, mounted)
	return nil
}

func logCountersOnSignal(e *env, mounted *overlayfallback.Mounted) {
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, unix.SIGUSR1)
	go func() {
		for range usr1 {
			// At the level of errors, so that they are written at every --log-level: somebody has asked for them.
			e.log.Error("counters on request", "counters", mounted.Stats().Requests.String())
		}
	}()
}

// wait returns when the union is unmounted, by others or, once ctx has ended, by itself.
func wait(ctx context.Context, e *env, target string, mounted *overlayfallback.Mounted) error {
	ended := make(chan error, 1)
	go func() { ended <- mounted.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	e.log.Info("unmounting on a signal")
	if err := notifySystemd("STOPPING=1"); err != nil {
		e.log.Warn("systemd was not told", "error", err)
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceAfterSignal)
	defer cancel()
	if err := mounted.Unmount(limit); err != nil {
		if failed := mounted.Detach(limit); failed != nil {
			return errors.Join(err, failed)
		}
	}
	select {
	case err := <-ended:
		return err
	case <-limit.Done():
		return fmt.Errorf("files of %q were still open %v after it was unmounted", target, graceAfterSignal)
	}
}
