package layers

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// openNull opens a descriptor to be given to a cache.
func openNull(t testing.TB) int {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// isOpen reports whether a descriptor is open.
func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

// openDescriptors counts those of the process but the runtime's own, which come with the first use.
func openDescriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(target, "anon_inode:") {
			count++
		}
	}
	return count
}

func TestCacheClosesTheLeastRecentlyUsed(t *testing.T) {
	c := NewCache(2)
	defer c.Close()
	var fds []int
	for ino := range uint64(3) {
		if ino == 2 {
			c.Get(Key{Ino: 0}).Release() // 1 is now the oldest
		}
		fds = append(fds, openNull(t))
		c.Put(Key{Ino: ino}, fds[ino], false).Release()
	}
	if c.Get(Key{Ino: 1}) != nil || isOpen(fds[1]) {
		t.Error("the least recently used file is still there")
	}
	for _, ino := range []uint64{0, 2} {
		f := c.Get(Key{Ino: ino})
		if f == nil || f.FD != fds[ino] || !isOpen(fds[ino]) {
			t.Errorf("file %d is gone", ino)
			continue
		}
		f.Release()
	}
}

func TestCacheKeepsWhatIsInUse(t *testing.T) {
	c := NewCache(1)
	var used []*File
	for ino := range uint64(10) {
		used = append(used, c.Put(Key{Ino: ino}, openNull(t), false))
	}
	for _, f := range used {
		if !isOpen(f.FD) {
			t.Fatalf("a descriptor was closed under its user")
		}
	}
	for _, f := range used {
		f.Release()
	}
	if n := c.Len(); n != 1 {
		t.Errorf("%d descriptors are held after the last use, the bound is 1", n)
	}
	c.Close()
	for _, f := range used {
		if isOpen(f.FD) {
			t.Errorf("a descriptor is open after Close")
		}
	}
}

func TestCachePutTwice(t *testing.T) {
	c := NewCache(4)
	defer c.Close()
	first := c.Put(Key{Ino: 1}, openNull(t), true)
	fd := openNull(t)
	second := c.Put(Key{Ino: 1}, fd, false)
	if second != first || isOpen(fd) {
		t.Error("the second descriptor of a key was not closed for the first")
	}
	first.Release()
	if !isOpen(first.FD) {
		t.Error("closed while it has a user")
	}
	second.Release()
}

func TestCacheDrop(t *testing.T) {
	c := NewCache(4)
	defer c.Close()
	used := c.Put(Key{Ino: 1}, openNull(t), false)
	c.Drop(Key{Ino: 1})
	c.Drop(Key{Ino: 1})
	if c.Get(Key{Ino: 1}) != nil {
		t.Error("a dropped file was found")
	}
	if !isOpen(used.FD) {
		t.Fatal("a dropped file was closed under its user")
	}
	// Another may take the key before the first is released.
	next := c.Put(Key{Ino: 1}, openNull(t), false)
	used.Release()
	if isOpen(used.FD) {
		t.Error("a dropped file is open after its last use")
	}
	if !isOpen(next.FD) || c.Len() != 1 {
		t.Error("the file that took the key went with it")
	}
	next.Release()
	c.Drop(Key{Ino: 1})
	if isOpen(next.FD) {
		t.Error("an unused file is open after Drop")
	}
}

func TestCacheShrink(t *testing.T) {
	c := NewCache(8)
	used := c.Put(Key{Ino: 100}, openNull(t), false)
	for ino := range uint64(7) {
		c.Put(Key{Ino: ino}, openNull(t), false).Release()
	}
	c.shrink(3)
	if n := c.Len(); n != 3 {
		t.Errorf("%d descriptors after shrink(3)", n)
	}
	c.shrink(0)
	if n := c.Len(); n != 1 || !isOpen(used.FD) {
		t.Errorf("%d descriptors after shrink(0), 1 is in use", n)
	}
	used.Release()
	c.Close()
}

func TestBorrowedIsNotClosed(t *testing.T) {
	fd := openNull(t)
	defer unix.Close(fd)
	f := Borrow(fd)
	f.Release()
	if !isOpen(fd) {
		t.Error("a borrowed descriptor was closed")
	}
}

// Many goroutines use few keys under a small bound: a descriptor that is in use always is open and leads to what its key
// says, and none is left in the end.
func TestCacheConcurrently(t *testing.T) {
	const keys, workers, rounds = 12, 8, 2000
	dir := t.TempDir()
	for i := range keys {
		if err := os.WriteFile(dir+"/"+strconv.Itoa(i), []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := openDescriptors(t)
	c := NewCache(4)
	var done sync.WaitGroup
	for w := range workers {
		done.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for range rounds {
				if err := useCached(c, dir, random.IntN(keys), random.IntN(10) == 0); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	if n := c.Len(); n > 4 {
		t.Errorf("%d descriptors are held, the bound is 4", n)
	}
	c.Close()
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors were open before, %d after", before, after)
	}
}

// useCached reads file i through the cache, and may then drop it.
func useCached(c *Cache, dir string, i int, drop bool) error {
	key := Key{Layer: 1, Path: strconv.Itoa(i)}
	f := c.Get(key)
	if f == nil {
		fd, err := unix.Open(dir+"/"+key.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = c.Put(key, fd, false)
	}
	defer f.Release()
	if drop {
		c.Drop(key)
	}
	var b [1]byte
	if _, err := unix.Pread(f.FD, b[:], 0); err != nil {
		return err
	}
	if int(b[0]) != i {
		return os.ErrInvalid
	}
	return nil
}
