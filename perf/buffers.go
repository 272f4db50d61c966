package perf

import (
	"fmt"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const pageSize = 4096

// What precedes the data of a WRITE in a request and of a READ in a reply. The buffers are placed so that the data
// begins on a page: a layer on a file system with O_DIRECT needs that, and copying is faster.
const (
	writeHead = int(unsafe.Sizeof(fuse.WriteIn{}))
	readHead  = int(unsafe.Sizeof(fuse.OutHeader{}))
)

// buffer is memory outside the Go heap: a megabyte per loop that is never zeroed again, of which only the pages that
// requests have touched are resident, and that goes back to the kernel at once when its loop ends.
type buffer struct {
	region []byte
	data   []byte
}

// newBuffer returns a buffer of at least size bytes whose byte number head begins a page.
func newBuffer(size, head int) (buffer, error) {
	region, err := unix.Mmap(-1, 0, pageSize+size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return buffer{}, fmt.Errorf("allocate a request buffer of %d bytes: %w", size, err)
	}
	return buffer{region: region, data: region[pageSize-head:]}, nil
}

func (b *buffer) free() {
	if b.region != nil {
		// Unmapping what was mapped whole cannot fail.
		_ = unix.Munmap(b.region)
	}
	*b = buffer{}
}
