package unionfs

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/unionfs-deep/unionfs-deep/perf"
)

// A writer reads back what it has written while others open the file, and read it by descriptors of their own: nobody else
// writes, so that it reads what it wrote last. A page that the kernel drops at an open while it is being written may be read
// again from before the write. The writes are large, so that they take long, and the openers rest, so that a page which is wrong
// is not dropped again at once.
func TestWriterReadsItsWrites(t *testing.T) {
	eachProfile(t, func(t *testing.T, o Options) {
		needFUSE(t)
		d := makeDirs(t, "")
		write(t, d.upper+"/f", string(make([]byte, coherenceSize)))
		m := mount(t, d.options(o))
		end := time.Now().Add(2 * time.Second)
		var others sync.WaitGroup
		defer others.Wait()
		for range 2 {
			others.Go(func() {
				if err := openAndRead(m.p("f"), end); err != nil {
					t.Error(err)
				}
			})
		}
		writes, wrong, err := writeAndRead(m.p("f"), end)
		if wrong > 0 || err != nil {
			t.Errorf("%d of %d times the writer did not read what it had written, %v", wrong, writes, err)
		}
	})
}

const (
	coherenceSize = 1 << 20
	coherenceTail = 8 << 10 // what is read of it, which is written last
)

// openAndRead reads a file's last page by one descriptor, each time just after it has opened the file by another.
func openAndRead(path string, end time.Time) error {
	reader, err := os.Open(path)
	if err != nil {
		return err
	}
	defer reader.Close()
	for b := make([]byte, coherenceTail/2); time.Now().Before(end); {
		other, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = reader.ReadAt(b, coherenceSize-int64(len(b)))
		if err := errors.Join(err, other.Close()); err != nil {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
	return nil
}

// writeAndRead writes a whole file and reads its tail, and counts how often that was not what it had written.
func writeAndRead(path string, end time.Time) (writes, wrong int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	for got := make([]byte, coherenceTail); err == nil && time.Now().Before(end); writes++ {
		want := bytes.Repeat([]byte{byte(writes)}, coherenceSize)
		if _, err = f.WriteAt(want, 0); err == nil {
			_, err = f.ReadAt(got, coherenceSize-coherenceTail)
		}
		if !bytes.Equal(got, want[:coherenceTail]) {
			wrong++
		}
	}
	return writes, wrong, err
}

// With fastpath=off a file that was changed in its layer is read anew when it is opened again.
func TestOffReadsAnewAtOpen(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	write(t, d.upper+"/f", "before")
	m := mount(t, d.options(Options{Fastpath: perf.Off}))
	f, err := os.OpenFile(m.p("f"), os.O_RDWR, 0) // the writers' count falls again
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, m.p("f")); got != "before" {
		t.Fatal(got)
	}
	f.Close()
	write(t, d.upper+"/f", "behind")
	if !eventually(func() bool { return read(t, m.p("f")) == "behind" }) { // RELEASE comes a moment after the close
		t.Errorf("it has %q", read(t, m.p("f")))
	}
}
