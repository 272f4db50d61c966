package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// Config says what Run does. The zero value of a field stands for what its comment says.
type Config struct {
	Binary   string        // the unionfs-deep program; empty: its routes are left out
	Dir      string        // where layers are made and kept, to be found again; empty: a temporary directory, removed at the end
	Only     []string      // names of works or figures; empty: all that need not be named
	Subjects []string      // names of subjects; empty: all
	Depths   []int         // numbers of layers; empty: what each work proposes
	Runs     int           // of each work, depth and subject; 0: DefaultRuns
	Files    int           // small files in a layer set; 0: DefaultFiles
	DataMiB  int           // size of the large file; 0: DefaultDataMiB
	Limit    time.Duration // for all runs of one subject at one work and depth; 0: DefaultLimit
	Writable bool          // mounts have an upper directory also for works that only read
	Command  []string      // the command line, to be recorded
	// Progress, unless nil, is told of each run that begins: how many were done, of how many, and which it is.
	Progress func(done, total int, what string)
	// Message, unless nil, gets what is worth telling while the run goes on: what was left out and why.
	Message func(text string)
}

// What Config's zero values stand for.
const (
	DefaultRuns    = 5
	DefaultFiles   = 20000
	DefaultDataMiB = 512
	DefaultLimit   = 90 * time.Second
)

func (c Config) withDefaults() Config {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&c.Runs, DefaultRuns)
	set(&c.Files, DefaultFiles)
	set(&c.DataMiB, DefaultDataMiB)
	if c.Limit == 0 {
		c.Limit = DefaultLimit
	}
	if c.Progress == nil {
		c.Progress = func(int, int, string) {}
	}
	if c.Message == nil {
		c.Message = func(string) {}
	}
	return c
}

// runner is the state of one Run.
type runner struct {
	Config
	works    []Work
	subjects []Subject
	report   *Report
	dir      string // on one file system: layer sets, upper directories, mount points
	opaque   string // name of the xattr of opaque directories
	done     int    // runs
	total    int
	mounts   int // made so far: names their directories
}

// Run does the chosen works and returns what it found. When ctx ends, it returns what it has so far, with the context's
// error. It leaves no mount and no process behind in any case.
//
// It makes this process the reaper of daemons that mount commands start, and raises GOMAXPROCS to 4 at least, so that
// drivers which wait in a system call leave room for the rest of the program.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := &runner{Config: cfg.withDefaults()}
	if err := r.choose(ctx); err != nil {
		return nil, err
	}
	if err := r.makeDir(); err != nil {
		return nil, err
	}
	if r.Config.Dir == "" {
		defer os.RemoveAll(r.dir)
	}
	if err := adoptOrphans(); err != nil {
		return nil, err
	}
	runtime.GOMAXPROCS(max(4, runtime.NumCPU()))
	r.report.Machine = describeMachine(r.dir)
	var err error
	for _, w := range r.works {
		if err = r.work(ctx, w); err != nil {
			break
		}
	}
	return r.report, errors.Join(err, reapOrphans(endsWithin))
}

// choose finds works and subjects, and says which subjects are not to be had.
func (r *runner) choose(ctx context.Context) error {
	ns := whiteout.Trusted
	userXattr := inUserNamespace()
	if userXattr {
		ns = whiteout.User
	}
	r.opaque = ns.Opaque()
	r.report = &Report{Made: time.Now().UTC().Truncate(time.Second), Commands: []string{commandLine(r.Command)}, figures: figuresOf(Works())}
	var err error
	if r.works, err = chooseWorks(Works(), r.Only); err != nil {
		return err
	}
	chosen, err := choose(Subjects(r.Binary, userXattr), r.Config.Subjects)
	if err != nil {
		return err
	}
	for _, s := range chosen {
		version, err := s.Version(ctx)
		if err != nil {
			r.Message(fmt.Sprintf("%s is left out: %v", s.Name(), err))
			r.report.Subjects = append(r.report.Subjects, SubjectReport{Name: s.Name(), LeftOut: err.Error()})
			continue
		}
		r.report.Subjects = append(r.report.Subjects, SubjectReport{Name: s.Name(), Version: version})
		r.subjects = append(r.subjects, s)
	}
	for _, w := range r.works {
		r.total += len(r.depths(w)) * r.Runs * len(r.subjects)
	}
	return nil
}

// inUserNamespace says whether this process is in a user namespace of its own, where trusted.overlay.* cannot be set: the
// initial one maps all user ids to themselves.
func inUserNamespace() bool {
	m, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return os.Geteuid() != 0
	}
	var inside, outside, count uint64
	n, _ := fmt.Sscan(string(m), &inside, &outside, &count)
	return n != 3 || inside != 0 || outside != 0 || count != 1<<32-1
}

func (r *runner) makeDir() (err error) {
	if r.Config.Dir == "" {
		r.dir, err = os.MkdirTemp("", "unionfs-deep-bench-*")
		return err
	}
	if r.dir, err = filepath.Abs(r.Config.Dir); err != nil {
		return err
	}
	return os.MkdirAll(r.dir, 0o755)
}

func (r *runner) depths(w Work) []int {
	if len(r.Config.Depths) > 0 {
		return r.Config.Depths
	}
	return w.Depths()
}

// work does one work at all its depths. An error is one that ends the whole run.
func (r *runner) work(ctx context.Context, w Work) error {
	if err := w.Needs().missing(); err != nil {
		r.Message(fmt.Sprintf("%s is left out: %v", w.Name(), err))
		return nil
	}
	for _, depth := range r.depths(w) {
		if err := r.depth(ctx, w, depth); err != nil {
			return err
		}
	}
	return nil
}

// depth does one work at one depth, on every subject.
func (r *runner) depth(ctx context.Context, w Work, depth int) error {
	spec := Spec{Depth: depth, Files: r.Files}
	if n := w.Needs(); n.Files > 0 {
		spec.Files, spec.Empty = n.Files, true
	}
	if w.Needs().Data {
		spec.Data = r.DataMiB
	}
	r.Progress(r.done, r.total, fmt.Sprintf("making %d layers", depth))
	set, err := MakeLayers(ctx, r.dir, spec, r.opaque)
	if err != nil {
		return err
	}
	cells := make([]*cell, len(r.subjects))
	for i, s := range r.subjects {
		cells[i] = newCell(w, s, set)
	}
	err = r.rounds(ctx, cells)
	for _, c := range cells {
		c.enter(r.report)
	}
	for _, f := range w.Figures() {
		r.report.Verdicts = append(r.report.Verdicts, r.report.judge(f, depth)...)
	}
	return err
}

// rounds lets the cells take turns, another one beginning each round.
func (r *runner) rounds(ctx context.Context, cells []*cell) error {
	for round := range r.Runs {
		for i := range cells {
			c := cells[(i+round)%len(cells)]
			r.Progress(r.done, r.total, fmt.Sprintf("%s, %d layers, %s", c.work.Name(), c.set.Depth, c.subject.Name()))
			r.done++
			if err := r.run(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// run does one run of a cell, unless the cell has got its time already or failed.
func (r *runner) run(ctx context.Context, c *cell) error {
	if c.over(r.Limit) {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, r.Limit-c.spent)
	defer cancel()
	req, remove, err := r.request(c)
	if err != nil {
		return err
	}
	began := time.Now()
	c.run(within, req, r.dir)
	c.last = time.Since(began)
	c.spent += c.last
	if c.ended != nil && ctx.Err() == nil {
		r.Message(fmt.Sprintf("%s, %d layers: no more of %s: %v", c.work.Name(), c.set.Depth, c.subject.Name(), c.ended))
	}
	return errors.Join(remove(), ctx.Err())
}

// request makes the directories that a mount needs; the function that it returns removes them.
func (r *runner) request(c *cell) (*Request, func() error, error) {
	r.mounts++
	base := filepath.Join(r.dir, fmt.Sprintf("mount-%d-%d", os.Getpid(), r.mounts))
	needs := c.work.Needs()
	req := &Request{Set: c.set, Target: filepath.Join(base, "union"), CopyUp: needs.CopyUp,
		Uncached: needs.Uncached, Volatile: needs.Volatile}
	dirs := []string{req.Target}
	if needs.Writable || r.Writable {
		req.Upper, req.Work = filepath.Join(base, "upper"), filepath.Join(base, "work")
		dirs = append(dirs, req.Upper, req.Work)
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, nil, err
		}
	}
	remove := func() error {
		// What a run wrote must not burden the next one, so its blocks are freed, and then the disk is waited for.
		if req.Upper != "" {
			defer settle(r.dir)
		}
		// Never reach through a mount that would not go: the layers' files may show there.
		if unix.Unmount(req.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			return fmt.Errorf("%s was still mounted", req.Target)
		}
		return os.RemoveAll(base)
	}
	return req, remove, nil
}
