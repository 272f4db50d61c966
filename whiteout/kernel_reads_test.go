package whiteout_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
	"golang.org/x/sys/unix"
)

// errnoOf returns the errno that err wraps, 0 for nil.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	errors.As(err, &errno)
	return errno
}

// TestKernelOpaque compares, value by value, whether the kernel merges the directory.
func TestKernelOpaque(t *testing.T) {
	u := newUnion(t)
	values := []string{"y", "x", "n", "", "yy", "y\x00", "Y"}
	for i, v := range values {
		write(t, fmt.Sprintf("%s/%d/below", u.lower, i), "")
		check(t, os.Mkdir(fmt.Sprintf("%s/%d", u.upper, i), 0o755))
		setXattr(t, fmt.Sprintf("%s/%d", u.upper, i), ns.Opaque(), []byte(v))
	}
	for _, options := range []string{"ro", "index=off"} {
		u.remount(options)
		for i, v := range values {
			_, err := os.Lstat(fmt.Sprintf("%s/%d/below", u.mount, i))
			if opaque := whiteout.ParseOpaque([]byte(v)) == whiteout.Opaque; opaque != os.IsNotExist(err) {
				t.Errorf("%s: opaque = %q: read as opaque: %v; the kernel's lstat below: %v", options, v, opaque, err)
			}
		}
	}
}

// TestKernelWhiteouts compares each kind of entry that may be a whiteout, by look-up and by reading the directory, with and
// without the mark "x" on the directory.
func TestKernelWhiteouts(t *testing.T) {
	u := newUnion(t)
	kinds := map[string]func(path string){
		"char00":   func(p string) { check(t, unix.Mknod(p, unix.S_IFCHR, 0)) },
		"mode00":   func(p string) { check(t, unix.Mknod(p, unix.S_IFCHR|0o644, 0)) },
		"char01":   func(p string) { check(t, unix.Mknod(p, unix.S_IFCHR, 1)) },
		"char10":   func(p string) { check(t, unix.Mknod(p, unix.S_IFCHR, int(unix.Mkdev(1, 0)))) },
		"block00":  func(p string) { check(t, unix.Mknod(p, unix.S_IFBLK, 0)) },
		"empty":    func(p string) { write(t, p, "") },
		"xattr":    func(p string) { write(t, p, ""); setXattr(t, p, ns.Whiteout(), nil) },
		"xattrY":   func(p string) { write(t, p, ""); setXattr(t, p, ns.Whiteout(), []byte("y")) },
		"notempty": func(p string) { write(t, p, "1"); setXattr(t, p, ns.Whiteout(), nil) },
		"dir":      func(p string) { check(t, os.Mkdir(p, 0o755)); setXattr(t, p, ns.Whiteout(), nil) },
		"fifo":     func(p string) { check(t, unix.Mknod(p, unix.S_IFIFO, 0)); setXattr(t, p, ns.Whiteout(), nil) },
	}
	for _, dir := range []string{"marked", "plain"} {
		check(t, os.Mkdir(u.inUpper(dir), 0o755))
		for kind, make := range kinds {
			write(t, u.inLower(dir+"/"+kind), "below")
			make(u.inUpper(dir + "/" + kind))
		}
	}
	compare := func(options, dir string, mark bool) {
		listed := strings.Fields(names(t, u.inMount(dir)))
		for kind := range kinds {
			path := dir + "/" + kind
			st := lstat(t, u.inUpper(path))
			present := slices.Contains(listXattr(t, u.inUpper(path)), ns.Whiteout())
			device, xattr := whiteout.IsDevice(st.Mode, st.Rdev), whiteout.IsXattrWhiteout(st.Mode, st.Size, present)
			if _, err := os.Lstat(u.inMount(path)); os.IsNotExist(err) != (device || xattr) {
				t.Errorf("%s %s, mark %v: read as a whiteout: %v; the kernel's lstat: %v", options, path, mark, device || xattr, err)
			}
			// The mark counts in lower layers only.
			hidden := device || xattr && mark && options == "ro"
			if slices.Contains(listed, kind) == hidden {
				t.Errorf("%s %s, mark %v: expected to be left out: %v; the kernel lists %v", options, path, mark, hidden, listed)
			}
		}
	}
	for _, options := range []string{"ro", "index=off"} {
		u.remount(options)
		compare(options, "marked", false)
		u.unmount()
		setXattr(t, u.inUpper("marked"), ns.Opaque(), whiteout.XattrWhiteouts.Bytes())
		u.remount(options)
		compare(options, "marked", true)
		compare(options, "plain", false)
		u.unmount()
		check(t, unix.Removexattr(u.inUpper("marked"), ns.Opaque()))
	}
}

// TestKernelRedirect compares the errno of look-up through each value, or what it finds.
func TestKernelRedirect(t *testing.T) {
	u := newUnion(t)
	long := strings.Repeat("n", 255)
	values := []string{
		"target", "/target", "/deep/target", "/deep//target", "/deep/target/", "/", "//", "//target", "", "deep/target", "target/",
		"..", ".", "/..", "/../target", "/deep/../target", "/deep/./target", "target\x00junk", "/deep/target\x00/junk", "\x00target", "/\x00",
		long, "/" + long, "new\nline", "/deep/new\nline", "\xff\xfe",
	}
	for i, v := range values {
		dir := fmt.Sprintf("%s/%d", u.upper, i)
		check(t, os.Mkdir(dir, 0o755))
		setXattr(t, dir, ns.Redirect(), []byte(v))
	}
	targets := []string{"target", "deep/target", long, "new\nline", "deep/new\nline", "\xff\xfe"}
	for _, target := range targets {
		write(t, u.inLower(target+"/found"), target)
	}
	u.remount("ro", "redirect_dir=follow")
	for i, v := range values {
		r, err := whiteout.ParseRedirect([]byte(v))
		content, kernel := os.ReadFile(fmt.Sprintf("%s/%d/found", u.mount, i))
		if errnoOf(err) != errnoOf(kernel) {
			t.Errorf("redirect %.40q: error %v, the kernel's %v", v, err, kernel)
		}
		if err == nil && string(content) != r.Path {
			t.Errorf("redirect %.40q: path %.40q, the kernel found %.40q", v, r.Path, content)
		}
	}
}

// TestKernelRedirectLimit renames until the kernel refuses to write the redirect.
func TestKernelRedirectLimit(t *testing.T) {
	u := newUnion(t)
	deep := strings.Repeat("d", 250)
	for _, name := range []string{"abcd", "abcde"} {
		check(t, os.MkdirAll(u.inLower(deep+"/"+name), 0o755))
	}
	check(t, os.Mkdir(u.inLower("to"), 0o755))
	u.remount("redirect_dir=on")
	for _, name := range []string{"abcd", "abcde"} {
		_, err := whiteout.NewRedirect("/" + deep + "/" + name)
		kernel := os.Rename(u.inMount(deep+"/"+name), u.inMount("to/"+name))
		if errnoOf(err) != errnoOf(kernel) {
			t.Errorf("redirect of %d bytes: error %v, the kernel's %v", len("/"+deep+"/"+name), err, kernel)
		}
	}
}

// TestKernelMetacopy compares whether a metacopy file can be looked up, and reads the data of one that this package wrote,
// from below and from a data-only layer.
func TestKernelMetacopy(t *testing.T) {
	u := newUnion(t)
	digest := whiteout.Metacopy{Algorithm: 1, Digest: make([]byte, 32)}.Bytes()
	values := [][]byte{{}, {0}, {0, 4, 0}, {0, 4, 0, 0}, {0, 5, 0, 0}, {1, 4, 0, 0}, {0, 4, 9, 0}, digest, make([]byte, 200)}
	for i, v := range values {
		write(t, fmt.Sprintf("%s/%d", u.lower, i), "data")
		write(t, fmt.Sprintf("%s/%d", u.upper, i), "")
		check(t, os.Truncate(fmt.Sprintf("%s/%d", u.upper, i), 4))
		setXattr(t, fmt.Sprintf("%s/%d", u.upper, i), ns.Metacopy(), v)
	}
	u.remount("ro", "metacopy=on")
	for i, v := range values {
		_, err := whiteout.ParseMetacopy(v)
		content, kernel := os.ReadFile(fmt.Sprintf("%s/%d", u.mount, i))
		if errnoOf(err) != errnoOf(kernel) || err == nil && string(content) != "data" {
			t.Errorf("metacopy %x: error %v; the kernel reads %q, error %v", v, err, content, kernel)
		}
	}
}

// TestKernelDataOnly gives a file its data from a data-only layer by what this package writes.
func TestKernelDataOnly(t *testing.T) {
	u := newUnion(t)
	write(t, u.inLower("objects/data"), "data")
	// A path that only a data-only layer resolves is an error that comes with the path.
	values := []struct {
		redirect string
		kernel   unix.Errno
	}{
		{"/objects/data", 0},
		{"/objects/../objects/data", 0},
		{"/objects/./data", 0},
		{"/../lower/objects/data", unix.EXDEV},
		{"objects", unix.EIO},
		{"/objects", unix.ENOENT},
		{"/none", unix.ENOENT},
	}
	for i, v := range values {
		path := fmt.Sprintf("%s/%d", u.upper, i)
		write(t, path, "")
		check(t, os.Truncate(path, 4))
		setXattr(t, path, ns.Metacopy(), whiteout.Metacopy{}.Bytes())
		setXattr(t, path, ns.Redirect(), []byte(v.redirect))
	}
	if err := unix.Mount("overlay", u.mount, "overlay", 0, "metacopy=on,lowerdir="+u.upper+"::"+u.lower); err != nil {
		t.Skipf("no data-only layers: %v", err)
	}
	u.mounted = true
	for i, v := range values {
		content, err := os.ReadFile(fmt.Sprintf("%s/%d", u.mount, i))
		if errnoOf(err) != v.kernel || err == nil && string(content) != "data" {
			t.Errorf("redirect %q: the kernel reads %q, error %v", v.redirect, content, err)
		}
		if r, _ := whiteout.ParseRedirect([]byte(v.redirect)); r.String() != v.redirect {
			t.Errorf("redirect %q is written again as %q", v.redirect, r)
		}
	}
}

// TestKernelEscape compares names of xattrs in the layer with those in the union, both ways and in both namespaces.
func TestKernelEscape(t *testing.T) {
	for _, ns := range []whiteout.Namespace{whiteout.Trusted, whiteout.User} {
		t.Run(strings.TrimSuffix(string(ns), "."), func(t *testing.T) {
			u := newUnion(t)
			write(t, u.inLower("file"), "")
			write(t, u.inLower("written"), "")
			escaped := ns.Escape(ns.Opaque())
			stored := []string{
				ns.Redirect(), escaped, ns.Escape(ns.Escape(ns.Whiteout())), string(ns) + "overlay", string(ns) + "overlayX",
				string(ns) + "overlay.", string(ns) + "x", "user.plain", "trusted.plain", "user.overlay.o", "trusted.overlay.o",
				"user.overlay.overlay.oo", "trusted.overlay.overlay.oo", "user.overlayed", "trusted.overlayed",
			}
			for _, name := range stored {
				setXattr(t, u.inLower("file"), name, []byte(name))
			}
			var want []string
			for _, name := range stored {
				if !ns.Private(name) {
					want = append(want, ns.Unescape(name))
				}
			}
			u.remount(map[whiteout.Namespace]string{whiteout.Trusted: "index=off", whiteout.User: "userxattr"}[ns])
			listed := listXattr(t, u.inMount("file"))
			slices.Sort(want)
			slices.Sort(listed)
			if !slices.Equal(want, listed) {
				t.Errorf("listed %q, the kernel lists %q", want, listed)
			}
			for _, name := range listed {
				if name == string(ns) {
					continue // listed, but no system call takes it
				}
				if value := string(getXattr(t, u.inMount("file"), name)); value != ns.Escape(name) {
					t.Errorf("%s is stored as %s, read from %s", name, ns.Escape(name), value)
				}
				setXattr(t, u.inMount("written"), name, []byte("v"))
				getXattr(t, u.inUpper("written"), ns.Escape(name))
			}
			name := string(ns) + strings.Repeat("n", whiteout.MaxXattrName-len(ns)-len("overlay."))
			setXattr(t, u.inMount("written"), name, []byte("v"))
			if err := unix.Lsetxattr(u.inMount("written"), name+"n", []byte("v"), 0); err != unix.EOPNOTSUPP || len(ns.Escape(name+"n")) <= whiteout.MaxXattrName {
				t.Errorf("name of %d bytes when escaped: the kernel's error %v", len(ns.Escape(name+"n")), err)
			}
		})
	}
}
