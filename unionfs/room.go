package unionfs

import (
	"time"

	"golang.org/x/sys/unix"
)

// On a kernel overlay the room of a file is there for the next one as soon as it is removed. Here it is given back when the kernel has
// forgotten the file, which it says in a message that may come after the next request, and the helper has closed it. So a
// request that finds no room waits for what is on its way back, and is handled once more.

const (
	// roomWait is how long the kernel's messages, which it has sent by then, are waited for. What is still kept after that is in use.
	roomWait = 20 * time.Millisecond
	roomLook = 100 * time.Microsecond
)

// noRoom tells the errors that makeRoom may help against.
func noRoom(err error) bool { return err == unix.ENOSPC || err == unix.EDQUOT }

// nearlyFull tells whether the upper layer's file system has less than a sixty-fourth left, and less than 1 GiB.
func (u *upperLayer) nearlyFull() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(u.root, &st) == nil && st.Bavail < st.Blocks/64 && st.Bavail*uint64(st.Frsize) < 1<<30
}

// epoch is what times are counted from where they are kept as numbers.
var epoch = time.Now()

// madeRoom notes that room was given back.
func (f *FS) madeRoom() { f.freed.Store(int64(time.Since(epoch))) }

// makeRoom has all the room given back that can be. It reports whether there has been some since a time, which is when the request
// began that has just failed.
func (f *FS) makeRoom(since time.Time) bool {
	start := time.Now()
	f.helper.settle()
	for f.keeping.Load() > 0 && time.Since(start) < roomWait {
		time.Sleep(roomLook)
		f.helper.settle()
	}
	return f.freed.Load() > int64(since.Sub(epoch))
}
