package whiteout_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
	"golang.org/x/sys/unix"
)

// TestKernelOriginValid changes a good origin and compares whether the kernel still follows it: then a copied-up file keeps
// the lower file's inode number.
func TestKernelOriginValid(t *testing.T) {
	u := newUnion(t)
	write(t, u.inLower("file"), "content")
	lower := lstat(t, u.inLower("file")).Ino
	u.remount("index=off")
	check(t, os.Chmod(u.inMount("file"), 0o600))
	good := getXattr(t, u.inUpper("file"), ns.Origin())
	changed := func(at int, to byte) []byte {
		v := append([]byte(nil), good...)
		v[at] = to
		return v
	}
	values := map[string][]byte{
		"good":         good,
		"empty":        {},
		"short":        good[:20],
		"cut":          good[:len(good)-1],
		"bytes after":  append(append([]byte(nil), good...), 1, 2, 3),
		"version":      changed(0, 1),
		"magic":        changed(1, 0),
		"length":       changed(2, byte(len(good)+1)),
		"upper":        changed(3, good[3]|byte(whiteout.OriginUpper)),
		"any endian":   changed(3, good[3]|byte(whiteout.OriginAnyEndian)),
		"other endian": changed(3, good[3]^byte(whiteout.OriginBigEndian)),
		"other, any":   changed(3, good[3]^byte(whiteout.OriginBigEndian)|byte(whiteout.OriginAnyEndian)),
		"unknown flag": changed(3, good[3]|0x10),
	}
	for name, value := range values {
		u.unmount()
		setXattr(t, u.inUpper("file"), ns.Origin(), value)
		u.remount("index=off")
		_, err := whiteout.ParseOrigin(value)
		if kept := lstat(t, u.inMount("file")).Ino == lower; kept != (err == nil) {
			t.Errorf("%s: origin %x: error %v; the kernel follows it: %v", name, value, err, kept)
		}
	}
}

// TestKernelNlink compares the link count that the kernel makes of each value.
func TestKernelNlink(t *testing.T) {
	u := newUnion(t)
	write(t, u.inLower("file"), "content")
	check(t, os.Link(u.inLower("file"), u.inLower("link")))
	u.remount("index=on")
	check(t, os.Chmod(u.inMount("file"), 0o600))
	u.unmount()
	upper, lower := lstat(t, u.inUpper("file")).Nlink, lstat(t, u.inLower("file")).Nlink
	values := []string{
		"U+5", "L+7", "U-1", "L+0", "U-0", "L+0012", "U+5\n", "U+5\n\n", "U+5\x00junk", "U+123456789", "U+1234567890", "U+12345678901",
		"U+2147483647", "U+2147483648", "U5", "+5", "U++5", "U+-5", "U-+5", "U+", "U", "", "X+5", "U+5 ", "U+ 5", "U+0x5", "u+5", "U+5_0",
	}
	for _, v := range values {
		setXattr(t, u.inUpper("file"), ns.Nlink(), []byte(v))
		u.remount("index=on")
		got := lstat(t, u.inMount("file")).Nlink
		u.unmount()
		n, err := whiteout.ParseNlink([]byte(v))
		want := int64(upper) // the fallback
		if err == nil {
			base := map[bool]uint64{true: upper, false: lower}[n.Upper]
			if sum := int64(base) + int64(n.Diff); sum > 0 && sum <= 1<<31-1 {
				want = sum
			}
		}
		if int64(got) != want {
			t.Errorf("nlink %q: %+v, %v: %d links; the kernel makes it %d (upper %d, lower %d)", v, n, err, want, got, upper, lower)
		}
	}
}

// TestKernelProtection compares the flags that the kernel makes of each value.
func TestKernelProtection(t *testing.T) {
	u := newUnion(t)
	values := []string{"a", "i", "ai", "ia", "aa", "", "ax", "x", "a\x00", "A", "aiaiaiaiaiaiaiaiaiaiaiaiaiaiaiai", "aiaiaiaiaiaiaiaiaiaiaiaiaiaiaiaia"}
	for i, v := range values {
		path := u.inUpper(fmt.Sprint(i))
		write(t, path, "")
		setXattr(t, path, ns.Protattr(), []byte(v))
	}
	u.remount("index=off")
	for i, v := range values {
		p, _ := whiteout.ParseProtection([]byte(v))
		f, err := os.Open(u.inMount(fmt.Sprint(i)))
		check(t, err)
		flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		check(t, f.Close())
		check(t, err)
		if p.Append != (flags&appendFlag != 0) || p.Immutable != (flags&immutableFlag != 0) {
			t.Errorf("protattr %q: %+v; the kernel's flags %#x", v, p, flags)
		}
	}
}
