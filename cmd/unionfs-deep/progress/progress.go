// Package progress draws a bar for long work on a terminal. Elsewhere, such as in a log or a pipe, it draws nothing.
package progress

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	width    = 30                     // of the bar itself, in columns
	interval = 100 * time.Millisecond // between two drawings
)

// Bar shows how much of some work is done. It is for one goroutine.
type Bar struct {
	out         *os.File // nil: not a terminal, draw nothing
	label       string
	done, total int
	drawn       time.Time
}

// New starts a bar on out for total steps of the work named by label; it draws only if out is a terminal.
func New(out *os.File, label string, total int) *Bar {
	b := &Bar{label: label, total: max(total, 1)}
	if _, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS); err == nil {
		b.out = out
	}
	return b
}

// Add counts n more steps as done.
func (b *Bar) Add(n int) {
	b.done += n
	if b.out != nil && time.Since(b.drawn) >= interval {
		b.draw()
		b.drawn = time.Now()
	}
}

// End takes the bar off the terminal.
func (b *Bar) End() {
	if b.out != nil {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}

func (b *Bar) draw() {
	filled := min(b.done, b.total) * width / b.total
	fmt.Fprintf(b.out, "\r%s [%s%s] %d of %d\x1b[K",
		b.label, strings.Repeat("#", filled), strings.Repeat(".", width-filled), b.done, b.total)
}
