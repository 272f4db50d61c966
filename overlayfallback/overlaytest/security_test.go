package overlaytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nsEnv carries the layers to the test binary when it runs in a user namespace.
const nsEnv = "OVERLAYTEST_NAMESPACE"

// TestUserNamespace runs cases in a user namespace that maps root alone: files of anybody else belong to nobody there.
func TestUserNamespace(t *testing.T) {
	if layers, inside := os.LookupEnv(nsEnv); inside {
		inNamespace(t, layers)
		return
	}
	if err := exec.Command("unshare", "-Urm", "true").Run(); err != nil {
		t.Skipf("no user namespaces here: unshare -Urm: %v", err)
	}
	dir, text := TempDir(t), []byte(nil)
	if os.Geteuid() == 0 {
		l, err := namespaceSet(namespaceLayer()).Build(dir)
		if err != nil {
			t.Fatal(err)
		}
		text, _ = json.Marshal(l)
	}
	for _, route := range routes("overlay", "fuse") {
		t.Run(route.Title(), func(t *testing.T) {
			if dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err == nil {
				dev.Close()
			} else if route.Name() == "fuse" {
				t.Skipf("FUSE cannot be mounted by this user: %v", err)
			}
			cmd := exec.Command("unshare", "-Urm", os.Args[0], "-test.run=^TestUserNamespace$", "-test.timeout=120s", "-routes="+string(route))
			cmd.Env = append(os.Environ(), nsEnv+"="+string(text), "TMPDIR="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func namespaceSet(top Layer) Set {
	return Set{Lower: []Layer{top, {file("below", "2"), file("d/below", "2")}}}
}

// buildable leaves of a layer what root of a user namespace can build by itself: for an ordinary user there is no other root.
func buildable(l Layer) Layer {
	return slices.DeleteFunc(l, func(e Entry) bool {
		foreign := slices.ContainsFunc(e.Xattrs, func(x Xattr) bool { return strings.HasPrefix(x.Name, "trusted.") })
		return e.UID != 0 || e.GID != 0 || e.Kind == CharDevice || foreign || e.Path == "closed/f"
	})
}

// namespaceLayer holds what an unprivileged mounter must not get a copy of with its rights.
func namespaceLayer() Layer {
	return Layer{
		{Path: "suid-of-another", Kind: File, Mode: 0o4755, UID: 1000, Seed: "s", Size: 100}, {Path: "sgid-of-another", Kind: File, Mode: 0o2755, GID: 1000, Seed: "s", Size: 100},
		{Path: "of-another", Kind: File, Mode: 0o644, UID: 1000, GID: 1000}, {Path: "private", Kind: File, Mode: 0o600, UID: 1000, Seed: "secret", Size: 50},
		{Path: "suid-of-root", Kind: File, Mode: 0o4755, Seed: "r", Size: 100}, {Path: "closed", Kind: Dir, Mode: 0o700, UID: 1000}, file("closed/f", "secret"),
		{Path: "capable", Kind: File, Mode: 0o755, Xattrs: []Xattr{{"security.capability", capability}}}, {Path: "open", Kind: Dir, Mode: 0o777, UID: 1000},
		{Path: "trusted", Kind: File, Xattrs: []Xattr{{"trusted.x", "1"}, {"user.x", "1"}}}, {Path: "device", Kind: CharDevice, Major: 1, Minor: 3, Mode: 0o666}, file("d/top", "1"),
		dir("u", Xattr{"user.overlay.opaque", "y"}), file("mine", "m"),
	}
}

// inNamespace is the part of the test that runs in the namespace, on layers built outside, or built here if there are none.
func inNamespace(t *testing.T, layers string) {
	names := []string{"suid-of-another", "sgid-of-another", "of-another", "private", "suid-of-root", "closed", "closed/f", "capable", "open", "trusted", "device", "mine", "d/below"}
	each := func(change func(*Run, string)) func(*Run) {
		return func(r *Run) {
			for _, name := range names {
				change(r, name)
				r.Stat(name)
			}
		}
	}
	bodies := map[string]func(*Run){
		"read": func(r *Run) {
			each((*Run).ReadFile)(r)
			r.GetXattr("capable", "security.capability")
			r.ListXattr("trusted")
		},
		"append":   each(func(r *Run, name string) { r.Append(name, "x") }),
		"chmod":    each(func(r *Run, name string) { r.Chmod(name, 0o777) }),
		"chown":    each(func(r *Run, name string) { r.Chown(name, 0, 0); r.Chown(name, 5, 5) }),
		"utimens":  each(func(r *Run, name string) { r.Utimens(name, unix.Timespec{Sec: 1}, unix.Timespec{Sec: 1}) }),
		"setxattr": each(func(r *Run, name string) { r.SetXattr(name, "user.y", "1", 0); r.SetXattr(name, "trusted.y", "1", 0) }),
		"rename":   each(func(r *Run, name string) { r.Rename(name, "moved", 0); r.Rename("moved", name, 0) }),
		"link":     each(func(r *Run, name string) { r.Link(name, "linked"); r.Unlink("linked") }),
		"create": func(r *Run) {
			for _, in := range []string{"open", "closed", "d", "."} {
				r.WriteFile(in+"/new", "x")
				r.Mkdir(in+"/dir", 0o755)
				r.Mknod(in+"/null", unix.S_IFCHR|0o666, 1, 3)
				r.Mknod(in+"/fifo", unix.S_IFIFO|0o666, 0, 0)
				r.Unlink(in + "/below")
			}
			r.SetXattr("new", "security.capability", capability, 0)
			r.GetXattr("new", "security.capability")
		},
		"unlink": func(r *Run) {
			for _, name := range []string{"suid-of-root", "capable", "trusted", "mine", "d/below", "d/top"} {
				r.Unlink(name)
			}
		},
		"unlink_of_another": each(func(r *Run, name string) { r.Unlink(name) }),
	}
	var cases []Case
	for _, name := range union(bodies, nil) {
		notOn := map[string]string{}
		if name == "unlink_of_another" {
			notOn["fuse"] = "FUSE hands on no owner outside of the user namespace, and the kernel lets nobody remove a file of no owner"
		}
		cases = append(cases, Case{Name: name, NotOn: notOn, Set: Set{Options: []string{"userxattr"}}, Run: bodies[name], Build: func(dir string) (l Layout, err error) {
			if layers == "" {
				l, err = namespaceSet(buildable(namespaceLayer())).Build(dir)
			} else {
				err = json.Unmarshal([]byte(layers), &l)
			}
			l.Options = []string{"userxattr"}
			return l, err
		}})
	}
	RunCases(t, cases, routes())
	set := Set{Options: []string{"userxattr"}, Lower: []Layer{{dir("d"), file("low", "old")}}}
	if route := routes()[0]; route.Name() == "fuse" {
		t.Run("linked_inode", listed{route: route, set: set, observe: linkedInode, kernel: "another", here: "the same"}.run)
	}
}

// TestSwappedForSymlink exchanges a directory of a layer for a symbolic link that leads out, again and again, while the union is
// read: nothing of the outside may be seen.
func TestSwappedForSymlink(t *testing.T) {
	for _, route := range routes("fuse", "fuse,fastpath=off") {
		t.Run(route.Title(), func(t *testing.T) {
			dir := TempDir(t)
			l, err := Set{Lower: []Layer{{file("d/sub/f", "inside")}, {file("x", "2")}}}.Build(dir)
			if err != nil {
				t.Fatal(err)
			}
			secret := filepath.Join(dir, "secret")
			if err := (Layer{file("sub/f", "SECRET")}).build(secret); err != nil {
				t.Fatal(err)
			}
			var stop atomic.Bool
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for !stop.Load() {
					d, aside := filepath.Join(l.Lower[0], "d"), filepath.Join(l.Lower[0], "aside")
					os.Rename(d, aside)
					os.Symlink(secret, d)
					os.Remove(d)
					os.Rename(aside, d)
				}
			}()
			for range 20 {
				m := Mount(t, route, l)
				Bound(t, caseTime, m)
				for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
					if bytes.Contains(readNoSymlinks(m.Root, "d/sub/f"), []byte("SECRET")) {
						t.Fatal("a symbolic link in a layer led out of it")
					}
				}
				if err := m.Unmount(); err != nil {
					t.Fatal(err)
				}
			}
			stop.Store(true)
			<-ended
		})
	}
}

// readNoSymlinks reads a file below root, following no symbolic link: what the union shows as a link the reader may follow
// where it likes.
func readNoSymlinks(root, name string) []byte {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	data, _ := readAll(fd)
	return data
}

// TestLayersBelowMountPoint mounts over the directory in which the layers lie.
func TestLayersBelowMountPoint(t *testing.T) {
	for _, route := range append([]Route{Kernel}, routes("overlay", "fuse", "fuse,fastpath=off")...) {
		t.Run(route.Title(), func(t *testing.T) {
			dir := TempDir(t)
			m := &Mounted{Route: route, Layout: mustBuild(t, writeSet(), dir), Root: dir}
			if err := m.start(); err != nil {
				t.Fatal(err)
			}
			defer m.Abort()
			Bound(t, caseTime, m)
			r := &Run{T: t, Root: dir, Mounted: m, open: map[int]bool{}}
			r.Append("low", "changed")
			r.Rename("top", "merged/moved", 0)
			r.Mkdir("new", 0o755)
			r.ReadFile("merged/low")
			mustSnap(t, dir, Clock{})
			for _, n := range r.notes {
				if n.value != "ok" && n.label[:4] != "writ" && n.label[:4] != "cont" {
					t.Errorf("%s: %s", n.label, n.value)
				}
			}
			if err := m.Unmount(); err != nil {
				t.Error(err)
			}
			if data, err := os.ReadFile(filepath.Join(dir, "u/low")); err != nil || !bytes.HasSuffix(data, []byte("changed")) {
				t.Errorf("the upper holds %q (%v)", data, err)
			}
		})
	}
}

// TestServerResources looks at what the server holds after much work: descriptors, memory, processor time while idle.
func TestServerResources(t *testing.T) {
	for _, route := range routes("fuse", "fuse,fastpath=off", "fuse,fastpath=passthrough") {
		t.Run(route.Title(), func(t *testing.T) {
			w := newWorkshop(t, route)
			if w.mounted.server == nil {
				t.Skip("no server")
			}
			pid := w.mounted.server.cmd.Process.Pid
			w.sh(`for i in $(seq 20); do echo x > warm$i; cat warm$i > /dev/null; rm warm$i; done; find . > /dev/null`)
			before := descriptors(t, pid)
			w.sh(`mkdir d; for i in $(seq 1500); do echo $i > d/f$i; done; cat d/* > /dev/null; for i in $(seq 700); do mv d/f$i d/g$i; done; chmod 600 d/*; find . -type f -exec stat {} + > /dev/null; rm -rf d`)
			(&Run{}).DropCaches()
			if after := descriptors(t, pid); after > before+60 {
				t.Errorf("the server has %d descriptors open, and had %d", after, before)
			}
			time.Sleep(300 * time.Millisecond)
			busy := processorTime(t, pid)
			time.Sleep(1500 * time.Millisecond)
			if busy = processorTime(t, pid) - busy; busy > 3 {
				t.Errorf("the idle server took %d ticks of processor time in 1.5 s", busy)
			}
		})
	}
}

// descriptors returns how many descriptors a process has open.
func descriptors(t *testing.T, pid int) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// processorTime returns the time that a process has used, in ticks of 10 ms.
func processorTime(t *testing.T, pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var user, system int
	_, after, _ := bytes.Cut(data, []byte(") "))
	fields := bytes.Fields(after)
	fmt.Sscan(string(fields[11]), &user)
	fmt.Sscan(string(fields[12]), &system)
	return user + system
}
