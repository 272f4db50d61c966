package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNothingIsDrawnIntoAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	bar := New(w, "working", 3)
	bar.Add(3)
	bar.End()
	w.Close()
	if out, err := io.ReadAll(r); err != nil || len(out) > 0 {
		t.Errorf("drew %q, %v", out, err)
	}
}

func TestATerminalShowsTheBar(t *testing.T) {
	master, slave := openTerminal(t)
	bar := New(slave, "working", 4)
	bar.Add(1)
	bar.drawn = time.Time{} // as if some time had passed
	bar.Add(3)
	bar.End()
	var out strings.Builder
	buffer := make([]byte, 1000)
	for !strings.Contains(out.String(), "4 of 4") { // it comes in as many pieces as the terminal likes
		n, err := master.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(buffer[:n])
	}
	for _, want := range []string{"working [#######....", "1 of 4"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, out.String())
		}
	}
}

// openTerminal makes a pseudo-terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}
