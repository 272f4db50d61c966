package unionfs

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A file handle finds its file after the kernel has forgotten that, also under another name, and no other file ever.
func TestFileHandles(t *testing.T) {
	eachProfile(t, func(t *testing.T, o Options) {
		needFUSE(t)
		if inUserNamespace() {
			t.Skip("open_by_handle_at takes root in the initial user namespace")
		}
		d := makeDirs(t, "")
		for i := range 20 {
			write(t, fmt.Sprintf("%s/d%d/e/lower", d.lower, i), fmt.Sprint("lower", i))
			write(t, fmt.Sprintf("%s/d%d/e/upper", d.upper, i), fmt.Sprint("upper", i))
		}
		m := mount(t, d.options(o))
		type handle struct {
			unix.FileHandle
			want string
		}
		var handles []handle
		for i := range 20 {
			for _, name := range []string{"lower", "upper"} {
				h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, m.p(fmt.Sprint("d", i), "e", name), 0)
				if err != nil {
					t.Skipf("no handles here: %v", err)
				}
				handles = append(handles, handle{h, fmt.Sprint(name, i)})
			}
		}
		// One file is changed, one moved, one removed and made again.
		if err := os.Chmod(m.p("d1/e/lower"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(m.p("d2/e/upper"), m.p("moved")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(m.p("d3/e/upper")); err != nil {
			t.Fatal(err)
		}
		write(t, m.p("d3/e/upper"), "another")
		dropCaches(t)
		if !eventually(func() bool { dropCaches(t); return m.state().Nodes < 10 }) {
			t.Logf("%d nodes are left", m.state().Nodes)
		}
		root, err := unix.Open(m.root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(root)
		for _, h := range handles {
			got, err := readHandle(root, h.FileHandle)
			switch h.want {
			case "upper3":
				if err == nil && got != "upper3" {
					t.Errorf("the handle of a removed file leads to %q", got)
				}
			case "upper2":
				if err == nil && got != "upper2" {
					t.Errorf("the handle of a moved file leads to %q", got)
				}
			default:
				if err != nil || got != h.want {
					t.Errorf("the handle of %s leads to %q, %v", h.want, got, err)
				}
			}
		}
	})
}

func readHandle(root int, h unix.FileHandle) (string, error) {
	fd, err := unix.OpenByHandleAt(root, h, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	b := make([]byte, 64)
	n, err := unix.Read(fd, b)
	return string(b[:max(n, 0)]), err
}

// The table of forgotten nodes stays within its bound, and the oldest go first.
func TestHandleTableIsBounded(t *testing.T) {
	var table handleTable
	parent := &node{id: 1}
	for i := range maxHandles + 5000 {
		n := &node{id: uint64(i + 2), parent: parent, name: fmt.Sprint("n", i)}
		table.remember(n)
	}
	if n := len(table.byID); n > maxHandles || len(table.byName) > maxHandles || table.inOrder() > maxHandles {
		t.Errorf("%d ids and %d names are remembered", n, len(table.byName))
	}
	if id := table.reuse(parent, "n0"); id != 0 {
		t.Errorf("the oldest is still there as %d", id)
	}
	last := maxHandles + 4999
	if id := table.reuse(parent, fmt.Sprint("n", last)); id != uint64(last+2) {
		t.Errorf("the latest is %d", id)
	}
	if id := table.reuse(parent, fmt.Sprint("n", last)); id != 0 {
		t.Errorf("its id was given twice, as %d", id)
	}
}

// A node that is forgotten and found again many times keeps its id, and does not fill the table with itself.
func TestHandleTableAndReturningNodes(t *testing.T) {
	var table handleTable
	parent := &node{id: 1}
	often := &node{id: 2, parent: parent, name: "often"}
	once := &node{id: 3, parent: parent, name: "once"}
	table.remember(once)
	for range maxHandles + 10 {
		table.remember(often)
		if id := table.reuse(parent, "often"); id != 2 {
			t.Fatalf("it has become %d", id)
		}
	}
	table.remember(often)
	if n := table.inOrder(); n != 2 || len(table.byID) != n {
		t.Errorf("%d are remembered", n)
	}
	for _, n := range []*node{often, once} {
		if id := table.reuse(parent, n.name); id != n.id {
			t.Errorf("in the end %s is %d", n.name, id)
		}
	}
}

// inOrder is how many stand in the order in which they were forgotten.
func (t *handleTable) inOrder() (n int) {
	for h := t.ends.newer; h != &t.ends; h = h.newer {
		n++
	}
	return n
}
