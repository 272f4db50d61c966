package bench

import (
	"context"
	"errors"
	"time"
)

// cell is one subject at one work and depth, over all rounds.
type cell struct {
	work    Work
	subject Subject
	set     *LayerSet
	figures map[string]Figure
	samples map[string][]Sample // by figure
	spent   time.Duration
	last    time.Duration
	ended   error // why there are no more runs; nil: there may be
}

func newCell(w Work, s Subject, set *LayerSet) *cell {
	return &cell{work: w, subject: s, set: set, figures: figuresOf([]Work{w}), samples: make(map[string][]Sample)}
}

// over says that there should be no more runs: another one like the last would go over the limit, or it failed.
func (c *cell) over(limit time.Duration) bool {
	return c.ended != nil || c.spent+c.last > limit
}

// errTimeOver ends a cell whose run was cut.
var errTimeOver = errors.New("a run took longer than its time")

// run makes the mount, does the work, and undoes the mount.
func (c *cell) run(ctx context.Context, req *Request, shared string) {
	b := &Bed{Subject: c.subject, Request: req, Set: c.set, Shared: shared, figures: c.figures, samples: make(map[string]Sample)}
	c.ended = c.able(req)
	switch {
	case c.ended != nil:
		return
	case c.work.Needs().ByItself:
		c.ended = c.work.Run(ctx, b)
	default:
		c.ended = c.runMounted(ctx, b)
	}
	for figure, s := range b.samples {
		c.samples[figure] = append(c.samples[figure], s)
	}
	if c.ended != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		c.ended = errTimeOver // what failed did so because its mount was taken away
	}
}

// able says why the subject cannot do the work, or nil.
func (c *cell) able(req *Request) error {
	if c.work.Needs().Daemon {
		switch c.subject.Name() {
		case Native, Overlayfs, DeepOverlay, DeepStacked:
			return errors.New("it has no daemon")
		}
	}
	if c.work.Needs().ByItself && c.subject.Name() == Native {
		return errors.New("nothing is mounted")
	}
	return c.subject.Able(req)
}

func (c *cell) runMounted(ctx context.Context, b *Bed) error {
	m, err := c.subject.Mount(ctx, b.Request)
	if err != nil {
		return err
	}
	b.Mount = m
	// A server that hangs must not hang us: its death ends every call that waits for it.
	stop := context.AfterFunc(ctx, m.Abort)
	err = c.work.Run(ctx, b)
	stop()
	if closed := m.Close(); err == nil {
		err = closed
	}
	return err
}

// enter puts the cell's results into the report.
func (c *cell) enter(report *Report) {
	for _, f := range c.work.Figures() {
		x := &Result{Work: c.work.Name(), Figure: f.Name, Title: f.Title, Unit: f.Unit, Depth: c.set.Depth, Files: c.set.Files, DataMiB: c.set.Data,
			Subject: c.subject.Name()}
		if samples := c.samples[f.Name]; len(samples) > 0 {
			x.add(samples)
		} else {
			x.LeftOut = "no run was made"
			if c.ended != nil {
				x.LeftOut = c.ended.Error()
			}
		}
		report.Results = append(report.Results, x)
	}
}
