package layers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Kernel overlayfs judges Merge and Lookup: the same layers are walked through both.

// mountOverlay mounts layers with kernel overlayfs.
func mountOverlay(t testing.TB, cfg Config) string {
	t.Helper()
	at := t.TempDir()
	lower := strings.Join(cfg.Lower, ":")
	for _, d := range cfg.Data {
		lower += "::" + d
	}
	options := []string{"lowerdir=" + lower}
	if cfg.Upper != "" {
		options = append(options, "upperdir="+cfg.Upper, "workdir="+t.TempDir())
	}
	onOff := map[bool]string{true: "on", false: "off"}
	redirect := map[bool]string{true: "follow", false: "nofollow"}
	if cfg.Upper != "" && cfg.Metacopy {
		redirect[true] = "on"
	}
	options = append(options, "redirect_dir="+redirect[cfg.Redirect], "metacopy="+onOff[cfg.Metacopy], "index=off", "xino=off")
	if err := unix.Mount("overlay", at, "overlay", 0, strings.Join(options, ",")); err != nil {
		t.Fatalf("kernel overlayfs: %v (%s)", err, options)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// walkMount reads a mounted union as walkStack does.
func walkMount(root string) union {
	u := union{}
	walkMounted(u, root, "")
	return u
}

func walkMounted(u union, root, path string) {
	dir, err := os.Open(filepath.Join(root, path))
	if err != nil {
		u[path+"/"] = describeError(err)
		return
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		u[path+"/"] = describeError(err)
		return
	}
	for _, name := range names {
		child := JoinPath(path, name)
		st, err := os.Lstat(filepath.Join(root, child))
		switch {
		case err != nil:
			u[child] = describeError(err)
		case st.IsDir():
			u[child] = "directory"
			walkMounted(u, root, child)
		case st.Mode().IsRegular():
			u[child] = readMounted(filepath.Join(root, child))
		default:
			var sys unix.Stat_t
			unix.Lstat(filepath.Join(root, child), &sys)
			u[child] = fmt.Sprintf("type %o", sys.Mode&unix.S_IFMT)
		}
	}
}

// readMounted reads a file. Of data that is in no data-only layer the kernel says how far the way there goes in the last one;
// here it is missing.
func readMounted(path string) string {
	b, err := os.ReadFile(path)
	if errors.Is(err, unix.ENOTDIR) {
		err = unix.ENOENT
	}
	if err != nil {
		return describeError(err)
	}
	return fmt.Sprintf("file %q", b[:min(len(b), 256)])
}

// compareUnions returns where two walks differ. The kernel does not judge two things. It refuses (ESTALE) a directory or file
// that two names lead to, as no layers do that overlayfs itself has written, but these may. And of an upper directory it lists the
// whiteouts by xattr, which it then cannot find.
func compareUnions(kernel, ours union) error {
	var diffs []error
	for path := range merge(kernel, ours) {
		if kernel[path] != ours[path] && !refused(kernel, path) && !(kernel[path] == "error ENOENT" && ours[path] == "") {
			diffs = append(diffs, fmt.Errorf("%s: kernel %q, ours %q", path, kernel[path], ours[path]))
		}
	}
	slices.SortFunc(diffs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(diffs...)
}

// refused reports whether the kernel would not look at a path or a directory above it.
func refused(kernel union, path string) bool {
	for ; path != "." && path != "/"; path = filepath.Dir(path) {
		if kernel[path] == "error ESTALE" {
			return true
		}
	}
	return false
}

func merge(a, b union) map[string]bool {
	all := map[string]bool{}
	for _, u := range []union{a, b} {
		for path := range u {
			all[path] = true
		}
	}
	return all
}

func TestLookupAsTheKernel(t *testing.T) {
	needRoot(t)
	cases := []struct {
		name   string
		layers []string // topmost first
		data   string   // a data-only layer
	}{
		{name: "whiteouts", layers: []string{"w a\nw d/x\nf d/y 1", "f a 2\nf b 2\nf d/x 2\nf d/z 2"}},
		{name: "xattr whiteouts", layers: []string{"x d/x\nf d/y 1", "f d/x 2\nf d/z 2"}},
		{name: "opaque", layers: []string{"d d\no d\nf d/a 1", "f d/b 2"}},
		{name: "types replaced", layers: []string{"f d 1\nd f", "f d/x 2\nf f 2"}},
		{name: "directory file directory", layers: []string{"f d/a 1", "f d 2", "f d/c 3"}},
		{name: "relative redirect", layers: []string{"f n/a 1\nr n o\nw o", "f o/b 2"}},
		{name: "absolute redirect", layers: []string{"f n/a 1\nr n /p/o", "f p/o/b 2", "f p/o/c 3"}},
		{name: "redirect of a redirect", layers: []string{"d n\nr n /m", "d m\nr m o", "f o/x 3\nf m/y 3"}},
		{name: "redirect on the way relative", layers: []string{"d n\nr n /p/q", "f p/q/b 2\nr p s", "f s/q/c 3\nf p/q/d 3"}},
		{name: "redirect on the way absolute", layers: []string{"d n\nr n /p/q", "f p/q/b 2\nr p /s/t", "f s/t/q/c 3\nf p/q/d 3"}},
		{name: "redirect through an opaque directory", layers: []string{"d n\nr n /p/q", "f p/q/b 2\no p", "f p/q/c 3"}},
		{name: "redirect out of an opaque directory", layers: []string{"d n\nr n /p/q", "f p/q/b 2\no p\nr p/q /s", "f s/c 3\nf p/q/d 3"}},
		{name: "redirect through a whiteout", layers: []string{"d n\nr n /p/q", "w p\nf z 2", "f p/q/c 3"}},
		{name: "redirect through a file", layers: []string{"d n\nr n /p/q", "f p 2", "f p/q/c 3"}},
		{name: "redirect to nothing", layers: []string{"f n/a 1\nr n /none", "f p 2"}},
		{name: "redirect with dots", layers: []string{"f n/a 1\nr n /p/../q", "f q/b 2"}},
		{name: "malformed redirect", layers: []string{"f n/a 1\nr n a/b", "f q/b 2"}},
		{name: "metacopy", layers: []string{"m f 1", "f f 2"}},
		{name: "metacopy in the middle", layers: []string{"f g 1", "m f 1", "f f 2"}},
		{name: "metacopy of metacopy", layers: []string{"m f 1", "m f 1", "f f 2"}},
		{name: "metacopy redirected", layers: []string{"m f 1\nr f /d/g", "f d/g 2\nf f 3"}},
		{name: "metacopy redirected into an opaque directory", layers: []string{"m f 1\nr f /d/g", "f d/g 2\no d", "f d/g 3"}},
		{name: "metacopy of metacopy in an opaque directory", layers: []string{"m f 1\nr f /d/g", "m d/g 1\no d", "f d/g 3"}},
		{name: "metacopy on a directory", layers: []string{"m f 1", "f f/x 2"}},
		{name: "metacopy without data", layers: []string{"m f 1", "f g 2"}},
		{name: "data-only", layers: []string{"m f 1\nr f /d/g", "f x 2"}, data: "f d/g 3"},
		{name: "data-only relative", layers: []string{"m f 1\nr f g", "f x 2"}, data: "f g 3"},
		{name: "data-only nothing there", layers: []string{"m f 1\nr f /d/g", "f x 2"}, data: "f d/h 3"},
		{name: "data-only from below", layers: []string{"f x 1", "m f 1\nr f /d/g"}, data: "f d/g 3"},
		{name: "data-only a directory there", layers: []string{"m f 1\nr f /d/g", "f x 2"}, data: "f d/g/z 3"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, follow := range []bool{true, false} {
				for _, withUpper := range []bool{false, true} {
					cfg := Config{Lower: plantLayers(t, c.layers...), Redirect: follow, Metacopy: follow}
					if c.data != "" {
						cfg.Data = plantLayers(t, c.data)
					}
					if withUpper {
						cfg.Upper, cfg.Lower = cfg.Lower[0], cfg.Lower[1:]
					}
					kernel := walkMount(mountOverlay(t, cfg))
					if err := compareUnions(kernel, walkStack(openStack(t, cfg))); err != nil {
						t.Errorf("follow %v, upper %v:\n%v", follow, withUpper, err)
					}
				}
			}
		})
	}
}

// Random layers, full of redirects, metacopy files and whiteouts, are read as the kernel reads them.
func TestLookupRandomLayers(t *testing.T) {
	needRoot(t)
	seeds := 150
	if testing.Short() {
		seeds = 20
	}
	for seed := range uint64(seeds) {
		random := rand.New(rand.NewPCG(seed, 1))
		var trees []string
		for range 2 + random.IntN(3) {
			trees = append(trees, randomTree(random))
		}
		cfg := Config{Lower: plantLayers(t, trees...), Redirect: random.IntN(5) > 0}
		cfg.Metacopy = cfg.Redirect && random.IntN(5) > 0 // as the kernel wants it
		if random.IntN(3) == 0 {
			tree := randomTree(random)
			trees = append(trees, tree)
			cfg.Data = plantLayers(t, tree)
		}
		if random.IntN(2) == 0 {
			cfg.Upper, cfg.Lower = cfg.Lower[0], cfg.Lower[1:]
		}
		kernel := walkMount(mountOverlay(t, cfg))
		if err := compareUnions(kernel, walkStack(openStack(t, cfg))); err != nil {
			t.Fatalf("seed %d, upper %v, data %v:\n%s\n%v", seed, cfg.Upper != "", cfg.Data != nil, strings.Join(trees, "\n--\n"), err)
		}
	}
}

// randomTree makes a tree for plant, three levels of the names a, b and c.
func randomTree(random *rand.Rand) string {
	var b strings.Builder
	randomLevel(random, &b, "", 3)
	return b.String()
}

func randomLevel(random *rand.Rand, b *strings.Builder, dir string, depth int) {
	for _, name := range []string{"a", "b", "c"} {
		path := JoinPath(dir, name)
		switch n := random.IntN(100); {
		case n < 45 && depth > 1:
			fmt.Fprintf(b, "d %s\n", path)
			randomLevel(random, b, path, depth-1)
			switch random.IntN(8) {
			case 0:
				fmt.Fprintf(b, "o %s\n", path)
			case 1, 2:
				fmt.Fprintf(b, "r %s %s\n", path, randomRedirect(random))
			}
		case n < 60:
			fmt.Fprintf(b, "f %s %s%d\n", path, name, random.IntN(1000))
		case n < 75:
			fmt.Fprintf(b, "m %s %d\n", path, random.IntN(5))
			if random.IntN(2) == 0 {
				fmt.Fprintf(b, "r %s %s\n", path, randomRedirect(random))
			}
		case n < 83:
			fmt.Fprintf(b, "w %s\n", path)
		}
	}
}

func randomRedirect(random *rand.Rand) string {
	name := func() string { return string(rune('a' + random.IntN(3))) }
	switch random.IntN(4) {
	case 0:
		return name()
	case 1:
		return "/" + name()
	case 2:
		return "/" + name() + "/" + name()
	}
	return "/" + name() + "/" + name() + "/" + name()
}
