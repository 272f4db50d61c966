package unionfs

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUpperInUse(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	m := mount(t, d.options(Options{}))
	before := fingerprint(t, d.upper)
	if _, err := tryMount(t, job{Options: d.options(Options{})}); err == nil || !strings.Contains(err.Error(), "another mount") {
		t.Errorf("a second mount of the same upper layer: %v", err)
	}
	if _, err := New(d.options(Options{})); !errors.Is(err, unix.EBUSY) {
		t.Errorf("New: %v, want EBUSY", err)
	}
	if after := fingerprint(t, d.upper); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	m.unmount()
	mount(t, d.options(Options{})).unmount()
}

// A union that cannot be made leaves no descriptor and no lock behind, and names the culprit.
func TestNewFails(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	write(t, d.lower+"/file", "x")
	for _, c := range []struct {
		change func(*Options)
		want   error
		names  string
	}{
		{func(o *Options) { o.Lower = append(o.Lower, d.lower+"/none") }, unix.ENOENT, "/none"},
		{func(o *Options) { o.Lower = append(o.Lower, d.lower+"/file") }, unix.ENOTDIR, "/file"},
		{func(o *Options) { o.Work = d.lower + "/none" }, unix.ENOENT, "/none"},
		{func(o *Options) { o.Upper = d.lower + "/none" }, unix.ENOENT, "/none"},
		{func(o *Options) { o.Work = "" }, nil, "work"},
		{func(o *Options) { o.Lower, o.Upper, o.Work = nil, "", "" }, nil, "no layers"},
		{func(o *Options) { o.RedirectDir = "maybe" }, nil, "redirect_dir=maybe"},
		{func(o *Options) { o.UserXattr, o.Metacopy = true, true }, nil, "metacopy"},
		{func(o *Options) { o.Upper, o.Work, o.Volatile = "", "", true }, nil, "volatile"},
	} {
		o := d.options(Options{})
		c.change(&o)
		before := descriptors(t)
		f, err := New(o)
		if err == nil {
			f.Close()
			t.Errorf("%s: made", c.names)
			continue
		}
		if c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: %v", c.names, err)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%s: %d descriptors before, %d after", c.names, before, after)
		}
	}
	mount(t, d.options(Options{})).unmount()
}

// descriptors counts those of this process but the Go runtime's.
func descriptors(t testing.TB) (count int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(target, "anon_inode:") {
			count++
		}
	}
	return count
}

// What a crash has left in the work directory is gone after the next mount, however deep it is.
func TestWorkDirectoryIsCleaned(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	write(t, d.work+"/work/#1", "half a copy")
	write(t, d.work+"/work/#2/a/b/c/d", "x")
	os.Chmod(d.work+"/work/#2/a", 0)
	unix.Mknod(d.work+"/work/#3", unix.S_IFCHR, 0)
	deep := d.work + "/work/#4" + strings.Repeat("/d", 150)
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	m := mount(t, d.options(Options{}))
	d.noLeftovers(t)
	write(t, m.p("f"), "x")
	m.unmount()
	d.noLeftovers(t)
}

// A server that is killed leaves a work directory from which the next mount goes on.
func TestMountAfterKill(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	write(t, d.lower+"/f", "lower")
	m := mount(t, d.options(Options{}))
	write(t, m.p("g"), "written")
	if err := os.Chmod(m.p("f"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.kill()
	again := mount(t, d.options(Options{}))
	if read(t, again.p("f"))+read(t, again.p("g")) != "lowerwritten" {
		t.Error("something is lost")
	}
	again.unmount()
	d.noLeftovers(t)
}

// A volatile mount marks its work directory, and neither the kernel nor the union mounts it again until the mark is gone.
func TestVolatile(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, "")
	o := d.options(Options{Volatile: true})
	m := mount(t, o)
	write(t, m.p("f"), "x")
	m.unmount()
	if _, err := os.Stat(d.work + "/work/incompat/volatile/dirty"); err != nil {
		t.Errorf("no mark: %v", err)
	}
	for _, volatile := range []bool{false, true} {
		o.Volatile = volatile
		if _, err := New(o); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "incompat/volatile") {
			t.Errorf("volatile %v: %v", volatile, err)
		}
	}
	kernel := func() error {
		at := t.TempDir()
		err := unix.Mount("overlay", at, "overlay", 0, "lowerdir="+d.lower+",upperdir="+d.upper+",workdir="+d.work)
		if err == nil {
			unix.Unmount(at, unix.MNT_DETACH)
		}
		return err
	}
	if err := kernel(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("the kernel: %v", err)
	}
	if err := os.RemoveAll(d.work + "/work/incompat"); err != nil {
		t.Fatal(err)
	}
	o.Volatile = false
	mount(t, o).unmount()
	if err := kernel(); err != nil {
		t.Errorf("the kernel, afterwards: %v", err)
	}
}

// What was written is on disk once the union has been unmounted, though nobody has synced: a snapshot of the disk taken at
// that moment holds it.
func TestWrittenIsDurable(t *testing.T) {
	needFUSE(t)
	for _, tool := range []string{"mkfs.ext4", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	image := t.TempDir() + "/disk"
	disk := loopDisk(t, image, 64<<20)
	d := makeDirs(t, disk)
	write(t, d.lower+"/lower", "lower")
	m := mount(t, d.options(Options{}))
	write(t, m.p("dir/new"), strings.Repeat("written", 10_000))
	if err := os.Chmod(m.p("lower"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.unmount()
	snapshot := t.TempDir() + "/snapshot"
	if out, err := exec.Command("cp", "--sparse=always", image, snapshot).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	at := mountLoop(t, snapshot)
	if got := read(t, at+"/upper/dir/new"); got != strings.Repeat("written", 10_000) {
		t.Errorf("%d bytes of the file are on disk", len(got))
	}
	if got := read(t, at+"/upper/lower"); got != "lower" {
		t.Errorf("the copied up file has %q", got)
	}
}

// loopDisk makes an ext4 file system in a file and mounts it for the time of the test.
func loopDisk(t testing.TB, image string, size int64) string {
	t.Helper()
	return formattedDisk(t, image, size, "mkfs.ext4", "-q")
}

// formattedDisk does so with the file system that a command makes.
func formattedDisk(t testing.TB, image string, size int64, mkfs ...string) string {
	t.Helper()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], image)...).CombinedOutput(); err != nil {
		t.Skipf("%s: %v: %s", mkfs[0], err, out)
	}
	return mountLoop(t, image)
}

// mountLoop mounts a file system that lies in a file.
func mountLoop(t testing.TB, image string) string {
	t.Helper()
	at := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", image, at).CombinedOutput(); err != nil {
		t.Skipf("no loop device: %v: %s", err, out)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}
