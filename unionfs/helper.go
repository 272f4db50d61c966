package unionfs

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

const (
	// helperRound is how long the helper sleeps before each round. It is not woken: that would take as long as what it saves.
	helperRound = time.Millisecond
	// mostGone is how many nodes wait for the helper. A round's removals are a tenth of it; beyond it they are closed at once.
	mostGone = 256
	// mostSpares is how many empty copies are kept, for some two rounds of copy-ups.
	mostSpares = 32
	// fewCopyUps in a round are not worth a spare.
	fewCopyUps = 2
)

// helper does, beside the requests and on another processor, what none of them need wait for: it closes inodes whose last name is
// gone, with which the layer's file system frees them, and makes the empty files that copy-ups are built in. ext4 takes some 10 us
// for either, a quarter of a removal and a seventh of a copy-up. It runs while there are many of these, and ends after a round without
// work, with which the spares go too.
//
// What it has not closed yet, and its spares, take room that a request may need: see room.go.
type helper struct {
	f   *FS
	may bool // there is another processor

	// busy is held while a round is done. It is taken before mu, a leaf.
	busy sync.Mutex

	mu       sync.Mutex
	running  bool
	ended    sync.WaitGroup
	gone     []*node // forgotten nodes to be closed
	spares   []spare
	copyUps  int    // since the last round
	mode     uint32 // of the last copy-up
	noSpares bool   // room is scarce: none until the helper starts anew
}

// spare is an empty file without a name in the work directory.
type spare struct {
	fd int
	st unix.Statx_t
}

func newHelper(f *FS) *helper { return &helper{f: f, may: runtime.NumCPU() > 1} }

// close closes what a forgotten node had open, or has it closed.
func (h *helper) close(n *node) {
	if !h.takes(n) {
		h.f.closeNode(n)
	}
}

// takes reports whether a node is left to the helper. One that has a name still is closed in no time. Where files are passed through,
// the kernel writes to them itself, so that a write that finds no room could not wait for what is to be freed.
func (h *helper) takes(n *node) bool {
	if !h.may || n.ext == nil || !n.ext.kept.something() || h.f.profile == perf.Passthrough {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.gone) == mostGone {
		return false
	}
	h.gone = append(h.gone, n)
	h.startLocked()
	return true
}

// takeSpare returns an empty file for a copy-up to a mode, which it may have already, if there is one.
func (h *helper) takeSpare(mode uint32) (s spare, ok bool) {
	if !h.may {
		return s, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mode = mode
	h.copyUps++
	h.startLocked()
	last := len(h.spares) - 1
	if last < 0 {
		return s, false
	}
	s, h.spares = h.spares[last], h.spares[:last]
	return s, true
}

func (h *helper) startLocked() {
	if !h.running {
		h.running, h.noSpares = true, false
		h.ended.Go(h.run)
	}
}

func (h *helper) run() {
	defer h.f.survive()
	for {
		time.Sleep(helperRound)
		if !h.round() && h.end() {
			return
		}
	}
}

// round reports whether there was anything to do.
func (h *helper) round() bool {
	h.busy.Lock()
	defer h.busy.Unlock()
	closed := h.closeGone()
	return h.makeSpares() || closed
}

// end ends the helper unless there is something to do by now.
func (h *helper) end() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.gone) > 0 {
		return false
	}
	h.running = false
	h.dropSparesLocked()
	return true
}

// closeGone closes the nodes that wait for it. The caller holds busy.
func (h *helper) closeGone() bool {
	h.mu.Lock()
	gone := h.gone
	h.gone = nil
	h.mu.Unlock()
	for _, n := range gone {
		h.f.closeNode(n)
	}
	return len(gone) > 0
}

// makeSpares makes as many as there were copy-ups in the last round, and as many again. The caller holds busy.
func (h *helper) makeSpares() bool {
	h.mu.Lock()
	mode, want := h.mode, min(2*h.copyUps, mostSpares)
	if h.copyUps < fewCopyUps || h.noSpares {
		want = 0
	}
	h.copyUps = 0
	missing := want - len(h.spares)
	h.mu.Unlock()
	for range missing {
		s, err := h.f.upper.makeSpare(mode)
		if err != nil {
			return false // the copy-up that has to make its own will tell
		}
		h.mu.Lock()
		h.spares = append(h.spares, s)
		h.mu.Unlock()
	}
	return want > 0
}

func (h *helper) dropSparesLocked() {
	for _, s := range h.spares {
		unix.Close(s.fd)
		h.f.madeRoom()
	}
	h.spares = nil
}

// settle gives back at once all the room that the helper takes, and sees to it that it takes none for spares.
func (h *helper) settle() {
	h.busy.Lock()
	defer h.busy.Unlock()
	h.closeGone()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropSparesLocked()
	h.noSpares = h.running
}

// stop waits until the helper has ended. Nothing is given to it any more.
func (h *helper) stop() {
	h.settle()
	h.ended.Wait()
}

// makeSpare makes an empty file that no umask takes bits from.
func (u *upperLayer) makeSpare(mode uint32) (s spare, err error) {
	const made = 0600
	if s.fd, err = u.makeNameless(made); err != nil {
		return s, err
	}
	if mode != made {
		err = unix.Fchmod(s.fd, mode)
	}
	if err == nil {
		err = layers.StatFD(s.fd, "", &s.st)
	}
	if err != nil {
		unix.Close(s.fd)
	}
	return s, err
}

// makeNameless makes an empty file without a name (ovl_do_tmpfile).
func (u *upperLayer) makeNameless(mode uint32) (int, error) {
	return unix.Openat(u.work, ".", unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, mode)
}
