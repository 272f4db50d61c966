package layers

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Key names an open file in a Cache. A lower directory is named by its layer and path, which never change; a directory or
// file of the upper layer by its inode number, which the open descriptor itself keeps from being used again.
type Key struct {
	Layer  int    // index of the layer
	Ino    uint64 // inode number in the upper layer, else 0
	Path   string // path in a lower layer, else empty
	File   bool   // a file opened for its data, not a directory
	Direct bool   // opened with O_DIRECT; Drop of the key without it drops this one too
}

// File is an open descriptor that is shared by its users. It is closed when the cache has dropped it and the last user
// has released it.
type File struct {
	FD       int  // the descriptor; valid until Release
	Writable bool // it was opened for writing too

	cache   *Cache // nil for one that was borrowed
	key     Key
	refs    int   // users; guarded by Cache.mu
	dropped bool  // no longer in Cache.files; guarded by Cache.mu
	older   *File // neighbours in the ring of idle files, nil while not in it; guarded by Cache.mu
	newer   *File
}

// Cache holds open descriptors, with a bound on those that nobody uses: the least recently used is closed first. Its lock
// is a leaf: nothing else is locked, and no file is opened or closed, while it is held.
type Cache struct {
	mu    sync.Mutex
	max   int           // guarded by mu
	files map[Key]*File // guarded by mu
	idle  File          // head of the ring of files that nobody uses: newer is the oldest; guarded by mu
}

// NewCache makes a cache that closes idle files as soon as it holds more than max descriptors.
func NewCache(max int) *Cache {
	c := &Cache{max: max, files: make(map[Key]*File)}
	c.idle.older, c.idle.newer = &c.idle, &c.idle
	return c
}

// Get returns the open file of a key, to be released by the caller, or nil.
func (c *Cache) Get(key Key) *File {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[key]
	if f != nil {
		f.useLocked()
	}
	return f
}

// Has reports whether the file of a key is held.
func (c *Cache) Has(key Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.files[key] != nil
}

// Put adds a descriptor that was just opened and returns it in use. Where another was added under the key meanwhile, that
// one is returned and fd closed.
func (c *Cache) Put(key Key, fd int, writable bool) *File {
	f, surplus := c.put(key, fd, writable)
	if surplus >= 0 {
		unix.Close(surplus)
	}
	return f
}

// put returns the descriptor to close, -1 for none.
func (c *Cache) put(key Key, fd int, writable bool) (f *File, surplus int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.files[key]; f != nil {
		f.useLocked()
		return f, fd
	}
	f = &File{FD: fd, Writable: writable, cache: c, key: key, refs: 1}
	c.files[key] = f
	return f, c.evictLocked()
}

// evictLocked drops the oldest idle file where the bound is exceeded, and returns its descriptor to close, or -1. One is
// enough: each call that can exceed the bound does so by one.
func (c *Cache) evictLocked() int {
	oldest := c.idle.newer
	if len(c.files) <= c.max || oldest == &c.idle {
		return -1
	}
	c.dropLocked(oldest)
	return oldest.FD
}

// dropLocked makes a file unknown to the cache.
func (c *Cache) dropLocked(f *File) {
	delete(c.files, f.key)
	f.dropped = true
	f.unlinkLocked()
}

// useLocked counts one more user.
func (f *File) useLocked() {
	f.refs++
	f.unlinkLocked()
}

// unlinkLocked takes a file out of the ring of idle files, if it is in it.
func (f *File) unlinkLocked() {
	if f.newer != nil {
		f.older.newer, f.newer.older = f.newer, f.older
		f.older, f.newer = nil, nil
	}
}

// restLocked puts a file that nobody uses into the ring, as the one used last.
func (c *Cache) restLocked(f *File) {
	f.older, f.newer = c.idle.older, &c.idle
	f.older.newer, c.idle.older = f, f
}

// Borrow wraps a descriptor that somebody else keeps open, so that it serves as a File. Release does nothing to it.
func Borrow(fd int) *File { return &File{FD: fd} }

// Release ends a use of the file.
func (f *File) Release() {
	if f.cache == nil {
		return
	}
	if fd := f.cache.release(f); fd >= 0 {
		unix.Close(fd)
	}
}

// release returns the descriptor to close, or -1.
func (c *Cache) release(f *File) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.refs--
	switch {
	case f.refs > 0:
		return -1
	case f.dropped:
		return f.FD
	}
	c.restLocked(f)
	return c.evictLocked()
}

// DirectKey is the key of the same file opened with O_DIRECT.
func (f *File) DirectKey() Key {
	key := f.key
	key.Direct = true
	return key
}

// Drop forgets the file of a key. Who uses it still may go on; the next Get finds nothing.
func (c *Cache) Drop(key Key) {
	c.mu.Lock()
	unused := c.forgetLocked(key)
	direct := -1
	if key.File {
		key.Direct = true
		direct = c.forgetLocked(key)
	}
	c.mu.Unlock()
	for _, fd := range []int{unused, direct} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// forgetLocked drops the file of a key and returns its descriptor to close, or -1.
func (c *Cache) forgetLocked(key Key) int {
	f := c.files[key]
	if f == nil {
		return -1
	}
	c.dropLocked(f)
	if f.refs > 0 {
		return -1
	}
	return f.FD
}

// Len returns how many descriptors the cache holds.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.files)
}

// shrink closes descriptors that nobody uses, the oldest first, until at most keep are held.
func (c *Cache) shrink(keep int) {
	for _, fd := range c.dropIdle(keep) {
		unix.Close(fd)
	}
}

// dropIdle is shrink that leaves the descriptors to be closed by the caller.
func (c *Cache) dropIdle(keep int) (fds []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.files) > keep && c.idle.newer != &c.idle {
		oldest := c.idle.newer
		c.dropLocked(oldest)
		fds = append(fds, oldest.FD)
	}
	return fds
}

// Close closes every descriptor that nobody uses and lets the others be closed by their last user.
func (c *Cache) Close() {
	c.mu.Lock()
	c.max = 0
	c.mu.Unlock()
	c.shrink(0)
}
