package layers

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// eachXattr runs a test by the calls that take (directory, name) and by the way round through /proc.
func eachXattr(t *testing.T, f func(t *testing.T)) {
	probeXattrat()
	before := noXattrat.Load()
	defer noXattrat.Store(before)
	for name, without := range map[string]bool{"xattrat": false, "through proc": true} {
		if before && !without {
			continue // not known here
		}
		t.Run(name, func(t *testing.T) {
			noXattrat.Store(without)
			f(t)
		})
	}
}

// places are how an inode is reached: by a name in a directory, by an open file, by one opened with O_PATH.
func eachPlace(t *testing.T, dir string, f func(t *testing.T, fd int, name string)) {
	at := openRootOf(t, dir)
	t.Run("by name", func(t *testing.T) { f(t, at, "file") })
	t.Run("directory itself", func(t *testing.T) { f(t, at, "") })
	for _, flags := range []int{unix.O_RDONLY, unix.O_PATH} {
		fd, err := unix.Openat(at, "file", flags|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(map[int]string{unix.O_RDONLY: "open file", unix.O_PATH: "O_PATH"}[flags], func(t *testing.T) { f(t, fd, "") })
		unix.Close(fd)
	}
}

func TestXattrsByEachWay(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "f file 1")
	eachXattr(t, func(t *testing.T) {
		eachPlace(t, dir, func(t *testing.T, fd int, name string) {
			const attr = "user.layers.test"
			for _, size := range []int{0, 1, 255, 256, 257, 3000} {
				value := bytes.Repeat([]byte{7}, size)
				if err := Setxattr(fd, name, attr, value, 0); err != nil {
					t.Fatalf("set %d bytes: %v", size, err)
				}
				got, err := ReadXattr(fd, name, attr)
				if err != nil || !bytes.Equal(got, value) {
					t.Errorf("of %d bytes %d were read: %v", size, len(got), err)
				}
				if n, err := GetxattrFD(fd, name, attr, nil); err != nil || n != size {
					t.Errorf("size of %d: %d, %v", size, n, err)
				}
			}
			if err := Setxattr(fd, name, attr, nil, unix.XATTR_CREATE); err != unix.EEXIST {
				t.Errorf("XATTR_CREATE of one that is there: %v", err)
			}
			if names, err := Listxattr(fd, name); err != nil || !slices.Contains(names, attr) {
				t.Errorf("listed %v, %v", names, err)
			}
			if err := Removexattr(fd, name, attr); err != nil {
				t.Errorf("remove: %v", err)
			}
			if _, err := ReadXattr(fd, name, attr); err != unix.ENODATA {
				t.Errorf("after removal: %v", err)
			}
		})
	})
}

// A symbolic link is never followed: its target must not be seen or changed.
func TestXattrsDoNotFollow(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	plant(t, dir, "f file 1\nl link file")
	at := openRootOf(t, dir)
	eachXattr(t, func(t *testing.T) {
		const attr = "trusted.layers.test"
		if err := Setxattr(at, "link", attr, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadXattr(at, "file", attr); err != unix.ENODATA {
			t.Errorf("the link's target has the xattr: %v", err)
		}
		if got, err := ReadXattr(at, "link", attr); err != nil || string(got) != "1" {
			t.Errorf("of the link: %q, %v", got, err)
		}
		if names, err := Listxattr(at, "link"); err != nil || !slices.Contains(names, attr) {
			t.Errorf("of the link %v are listed, %v", names, err)
		}
		if err := Removexattr(at, "link", attr); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
}

func TestListxattrOfMany(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "f file 1")
	at := openRootOf(t, dir)
	eachXattr(t, func(t *testing.T) {
		const count = 20 // names of more than the first buffer's 1,024 bytes
		for i := range count {
			attr := "user." + strings.Repeat("n", 80) + string(rune('a'+i))
			if err := Setxattr(at, "file", attr, nil, 0); err != nil {
				t.Skipf("set number %d: %v", i, err)
			}
		}
		if names, err := Listxattr(at, "file"); err != nil || len(names) < count {
			t.Errorf("%d names, %v", len(names), err)
		}
	})
}

func TestXattrErrors(t *testing.T) {
	dir := t.TempDir()
	at := openRootOf(t, dir)
	eachXattr(t, func(t *testing.T) {
		if _, err := ReadXattr(at, "none", "user.a"); err != unix.ENOENT {
			t.Errorf("of nothing: %v", err)
		}
		if _, err := Listxattr(at, "none"); err != unix.ENOENT {
			t.Errorf("list of nothing: %v", err)
		}
		if err := Setxattr(at, "a\x00b", "user.a", nil, 0); err == nil {
			t.Error("a name with a zero byte was taken")
		}
		var small [1]byte
		if err := Setxattr(at, "", "user.a", []byte("abc"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := GetxattrFD(at, "", "user.a", small[:]); err != unix.ERANGE {
			t.Errorf("into a small buffer: %v", err)
		}
	})
}
