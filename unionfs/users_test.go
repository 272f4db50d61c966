package unionfs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
)

// someUser is an ordinary user's number.
const someUser = 1000

// runAs runs a shell script as an ordinary user, below dir.
func runAs(t testing.TB, user int, dir, script string) (output string, err error) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", "umask 022\n"+script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}}
	var b strings.Builder
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	return strings.TrimSpace(b.String()), err
}

// needUsers skips a test that acts for several users.
func needUsers(t testing.TB) {
	t.Helper()
	needFUSE(t)
	if inUserNamespace() {
		t.Skip("acts for several users, whom this user namespace does not have")
	}
}

// openDirs makes directories for a union that an ordinary user can reach and owns.
func ownedDirs(t testing.TB, user int) (dirs, string) {
	t.Helper()
	base, err := os.MkdirTemp("", "unionfs-user")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	os.Chmod(base, 0o755)
	d := makeDirs(t, base)
	target := base + "/mnt"
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{base, d.lower, d.upper, d.work, target} {
		if err := os.Chown(dir, user, user); err != nil {
			t.Fatal(err)
		}
	}
	return d, target
}

// An ordinary user serves a union without any capability: all that such a user can do on a disk works, with the errors of
// a disk for the rest.
func TestServedByOrdinaryUser(t *testing.T) {
	needUsers(t)
	for _, profile := range []perf.Profile{perf.Off, perf.Cache} {
		t.Run(string(profile), func(t *testing.T) {
			d, target := ownedDirs(t, someUser)
			if out, err := runAs(t, someUser, d.lower, `
				mkdir d empty; echo lower >f; echo lower >d/f; echo x >d/g; ln -s f link; mkfifo fifo; echo ro >readonly; chmod 444 readonly
				mkdir closed; echo x >closed/f; chmod 555 closed`); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			o := d.options(Options{Fastpath: profile, UserXattr: true})
			m, err := tryMount(t, job{Options: o, Target: target, User: someUser})
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range []string{
				"echo new >new; cat new; mkdir newdir; echo y >newdir/y",
				"echo more >>f; test \"$(cat f)\" = 'lower\nmore'",
				"chmod 640 d/f; test \"$(stat -c %a d/f)\" = 640",
				"rm d/g; ! test -e d/g; echo again >d/g; cat d/g",
				"mv f moved; cat moved; ! test -e f",
				"ln moved linked; rm moved; cat linked",
				"rm -r newdir; rmdir empty; mkdir empty; test -z \"$(ls empty)\"",
				"rm link fifo; mkfifo fifo; ln -s g link",
				"touch -d 2001-01-01 d/f; test \"$(stat -c %Y d/f)\" = \"$(date -d 2001-01-01 +%s)\"",
				// A file that is made read-only is still written by who made it, as git and install(1) do.
				"exec 3>made; chmod 444 made; echo written >&3; exec 3>&-; test \"$(cat made)\" = written",
				"(umask 0333; echo written >0444); test \"$(cat 0444)\" = written",
				"dd if=/dev/zero of=big bs=64k count=16 status=none; chmod 400 big; cat big | wc -c",
				"rm -f readonly; ! test -e readonly",
				"! rm closed/f 2>/dev/null; ! touch closed/x 2>/dev/null; chmod 755 closed; rm closed/f",
				"mkdir secret; chmod 0 secret; rmdir secret",
				"! chown 0 linked 2>/dev/null; ! mknod dev c 1 3 2>/dev/null",
			} {
				if out, err := runAs(t, someUser, m.root, step); err != nil {
					t.Errorf("%s: %v\n%s", step, err, out)
				}
			}
			m.unmount()
			d.noLeftovers(t)
			filepath.WalkDir(d.upper, func(path string, e os.DirEntry, err error) error {
				var st unix.Stat_t
				if unix.Lstat(path, &st) == nil && (st.Uid != someUser || st.Gid != someUser) {
					t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
				}
				return nil
			})
		})
	}
}

// What is made belongs to who makes it, and nobody gets a right that the modes withhold.
func TestActsAsTheCaller(t *testing.T) {
	needUsers(t)
	eachProfile(t, func(t *testing.T, o Options) {
		d, target := ownedDirs(t, 0)
		os.Mkdir(d.lower+"/open", 0o755)
		os.Chmod(d.lower+"/open", 0o777)
		os.Mkdir(d.lower+"/shared", 0o755)
		os.Chown(d.lower+"/shared", 0, 50)
		unix.Chmod(d.lower+"/shared", 0o2777)
		write(t, d.lower+"/open/theirs", "theirs")
		write(t, d.lower+"/private", "private")
		os.Chmod(d.lower+"/private", 0o600)
		m, err := tryMount(t, job{Options: d.options(o), Target: target})
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []string{
			"echo x >open/mine; mkdir open/dir; ln -s x open/link; mkfifo open/fifo; test \"$(stat -c %u:%g open/mine open/dir open/link open/fifo | sort -u)\" = 1000:1000",
			"echo x >shared/f; mkdir shared/d; test \"$(stat -c %u:%g shared/f shared/d | sort -u)\" = 1000:50; test \"$(stat -c %a shared/d)\" = 2755",
			"! cat private 2>/dev/null; ! echo x 2>/dev/null >private; ! chmod 644 private 2>/dev/null; ! rm -f private 2>/dev/null",
			"! echo x 2>/dev/null >>open/theirs; ! chown 1000 open/theirs 2>/dev/null; ! setfattr -n user.x -v 1 open/theirs 2>/dev/null",
			"! mknod open/null c 1 3 2>/dev/null",
			"rm open/theirs; echo mine >open/theirs; test \"$(stat -c %u open/theirs)\" = 1000",
		} {
			if out, err := runAs(t, someUser, m.root, step); err != nil {
				t.Errorf("%s: %v\n%s", step, err, out)
			}
		}
		if err := os.WriteFile(m.p("open/roots"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(m.p("open/roots"), &st); err != nil || st.Uid != 0 || st.Gid != 0 {
			t.Errorf("root's file belongs to %d:%d, %v", st.Uid, st.Gid, err)
		}
	})
}

// A thread is its own again also when what it did for a caller has failed by a panic.
func TestCredentialsComeBack(t *testing.T) {
	needUsers(t)
	c := newCredentials()
	done := make(chan struct{})
	go func() { // on a thread of its own, which ends with it
		defer close(done)
		runtime.LockOSThread()
		if err := c.initThread(); err != nil {
			t.Error(err)
			return
		}
		func() {
			defer func() { recover() }()
			c.as(&fuse.Caller{Owner: fuse.Owner{Uid: someUser, Gid: someUser}}, func() error { panic("in a handler") })
		}()
		path := filepath.Join(t.TempDir(), "f")
		var st unix.Stat_t
		if fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY, 0o600); err != nil || unix.Fstat(fd, &st) != nil || st.Uid != 0 {
			t.Errorf("the thread still acts for %d: %v", st.Uid, err)
		}
		want := errors.New("failed")
		if err := c.as(&fuse.Caller{Owner: fuse.Owner{Uid: someUser, Gid: someUser}}, func() error { return want }); err != want {
			t.Error(err)
		}
	}()
	<-done
}

// Which set-id bits a write or truncation drops: root here is one of a user namespace.
func TestWithoutSetID(t *testing.T) {
	const foreign = 4242 // a group that nobody is in
	for _, c := range []struct {
		mode     uint16
		uid, gid uint32 // of the caller
		want     uint32
	}{
		{0o6755, 0, 0, 0o755},
		{0o2644, 0, 0, 0o2644},
		{0o2644, 1000, 1000, 0o644},
		{0o2644, 1000, foreign, 0o2644},
		{0o2755, 1000, foreign, 0o755},
		{0o755, 1000, 1000, 0o755},
	} {
		caller := fuse.Caller{Owner: fuse.Owner{Uid: c.uid, Gid: c.gid}, Pid: uint32(os.Getpid())}
		if got := withoutSetID(&unix.Statx_t{Mode: c.mode, Gid: foreign}, &caller); got != c.want {
			t.Errorf("%o of %d:%d becomes %o, want %o", c.mode, c.uid, c.gid, got, c.want)
		}
	}
}
