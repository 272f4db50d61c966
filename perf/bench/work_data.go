package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// dataReads reads a large file whose pages are in memory: by read, by mmap, and by random preads of 4 KiB.
type dataReads struct{}

func (dataReads) Name() string { return "data" }

func (dataReads) Figures() []Figure {
	bound := []Target{
		{Subject: DeepCache, Against: Overlayfs, AtMost: 1.1},
		{Subject: DeepPassthrough, Against: Overlayfs, AtMost: 1.1},
	}
	return []Figure{
		{Name: "data-read", Title: "large file read, cached", Unit: Seconds, Targets: bound},
		{Name: "data-mmap", Title: "large file read by mmap, cached", Unit: Seconds, Targets: bound},
		{Name: "data-random", Title: "large file read in random preads of 4 KiB, cached", Unit: Seconds, Targets: bound},
	}
}

func (dataReads) Depths() []int { return []int{2} }

func (dataReads) Needs() Needs { return Needs{Data: true, Program: "fio"} }

func (dataReads) Run(ctx context.Context, b *Bed) error {
	file := filepath.Join(b.Mount.Root, LargeFile)
	if err := discardFile(file); err != nil {
		return err
	}
	jobs := map[string]fioJob{
		"data-read":   {File: file, Mode: "read", Engine: "psync", Block: "128k", MiB: b.Set.Data, Loops: 8},
		"data-mmap":   {File: file, Mode: "read", Engine: "mmap", Block: "128k", MiB: b.Set.Data, Loops: 8},
		"data-random": {File: file, Mode: "randread", Engine: "psync", Block: "4k", MiB: b.Set.Data, Loops: 2},
	}
	for _, figure := range (dataReads{}).Figures() {
		err := b.Time(ctx, figure.Name, func() (time.Duration, error) { return jobs[figure.Name].run(ctx) })
		if err != nil {
			return err
		}
	}
	return nil
}

// coldData reads a large file of which nothing is in memory.
type coldData struct{}

func (coldData) Name() string { return "data-cold" }

func (coldData) Figures() []Figure {
	return []Figure{{Name: "data-cold", Title: "large file read from the disk", Unit: Seconds, Targets: []Target{
		{Subject: DeepPassthrough, Against: Overlayfs, AtMost: 1.05},
		{Subject: DeepCache, Against: Overlayfs, AtMost: 1.3},
	}}}
}

func (coldData) Depths() []int { return []int{2} }

func (coldData) Needs() Needs { return Needs{Data: true, Program: "fio"} }

func (coldData) Run(ctx context.Context, b *Bed) error {
	for _, file := range b.Set.largeFiles() {
		if err := evict(file); err != nil {
			return err
		}
	}
	job := fioJob{File: filepath.Join(b.Mount.Root, LargeFile), Mode: "read", Engine: "psync", Block: "128k", MiB: b.Set.Data}
	return b.Time(ctx, "data-cold", func() (time.Duration, error) { return job.run(ctx) })
}

// pagesHeld counts how often the page cache holds a file that was read once, through the mount and in the layer.
type pagesHeld struct{}

func (pagesHeld) Name() string { return "pages-held" }

func (pagesHeld) Figures() []Figure {
	return []Figure{{Name: "pages-held", Title: "page cache held for a file read through the mount", Unit: Times, Targets: []Target{
		{Subject: DeepPassthrough, AtMost: 1.01},
	}}}
}

func (pagesHeld) Depths() []int { return []int{2} }

func (pagesHeld) Needs() Needs { return Needs{Data: true, Daemon: true} }

func (pagesHeld) Run(_ context.Context, b *Bed) error {
	layer := filepath.Join(b.Set.Layers, b.Set.Names[b.Set.Depth-1], LargeFile)
	if err := evict(layer); err != nil {
		return err
	}
	through := filepath.Join(b.Mount.Root, LargeFile)
	if err := discardFile(through); err != nil {
		return err
	}
	var held uint64
	for _, file := range []string{layer, through} {
		pages, err := cachedPages(file)
		if err != nil {
			return err
		}
		held += pages
	}
	b.Record("pages-held", float64(held)*float64(unix.Getpagesize())/float64(b.Set.Data<<20))
	return nil
}

// largeFiles returns where the set's large file lies on disk.
func (s *LayerSet) largeFiles() []string {
	return []string{filepath.Join(s.Merged, LargeFile), filepath.Join(s.Layers, s.Names[s.Depth-1], LargeFile)}
}

// evict drops a file's pages from memory and makes sure that they are gone.
func evict(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("fadvise %s: %w", path, err)
	}
	left, err := cachedPages(path)
	if err == nil && left > 0 {
		err = fmt.Errorf("%d pages of %s stay in memory: does something use it, or does it lie on a tmpfs?", left, path)
	}
	return err
}

// cachedPages returns how many pages of a file the page cache holds.
func cachedPages(path string) (uint64, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Cachestat_t
	if err := unix.Cachestat(uint(fd), &unix.CachestatRange{}, &st, 0); err != nil {
		return 0, fmt.Errorf("cachestat %s (it takes Linux 6.5): %w", path, err)
	}
	return st.Cache, nil
}
