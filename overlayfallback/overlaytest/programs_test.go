package overlaytest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

var slow = flag.Bool("slow", false, "run also the programs that take minutes: debootstrap, and stress-ng for a minute")

// TestPrograms runs real programs in the union: first on the kernel, and what fails there judges nobody.
func TestPrograms(t *testing.T) {
	programs := []struct {
		name string
		run  func(t *testing.T, w *workshop)
	}{
		{"git", gitProgram}, {"tar", tarProgram}, {"rsync", rsyncProgram}, {"go_build", goBuild}, {"sqlite", sqliteProgram},
		{"dpkg", dpkgProgram}, {"debootstrap", debootstrapProgram}, {"fio", fioProgram}, {"stress_ng", stressProgram},
	}
	for _, route := range routes("fuse") {
		t.Run(route.Title(), func(t *testing.T) {
			for _, p := range programs {
				t.Run(p.name, func(t *testing.T) { p.run(t, newWorkshop(t, route)) })
			}
		})
	}
}

// kernelFails names the tests of posixtest that kernel overlayfs does not pass, on ext4.
var kernelFails = map[string]string{"FcntlFlockLocksFile": "wants flock and record locks to exclude each other, as they do nowhere on Linux"}

// TestPosixtest runs go-fuse's own suite of tests in the union.
func TestPosixtest(t *testing.T) {
	for _, route := range append([]Route{Kernel}, routes("fuse", "fuse,fastpath=off")...) {
		t.Run(route.Title(), func(t *testing.T) {
			for _, name := range union(posixtest.All, nil) {
				t.Run(name, func(t *testing.T) {
					if why := kernelFails[name]; why != "" {
						t.Skip(why)
					}
					w := newWorkshopOn(t, route, Set{Lower: []Layer{nil, nil}})
					posixtest.All[name](t, w.root)
				})
			}
		})
	}
}

// workshop is a union for a program to work in, with an empty place outside of it.
type workshop struct {
	t       *testing.T
	route   Route
	root    string
	outside string
	mounted *Mounted
}

// programsTime bounds one program.
const programsTime = 150 * time.Second

// newWorkshop mounts a union over a small tree.
func newWorkshop(t *testing.T, route Route) *workshop {
	t.Helper()
	return newWorkshopOn(t, route, writeSet("redirect_dir=on"))
}

func newWorkshopOn(t *testing.T, route Route, s Set) *workshop {
	t.Helper()
	l := mustBuild(t, s, TempDir(t))
	w := &workshop{t: t, route: route, outside: TempDir(t)}
	w.mounted = Mount(t, route, l)
	w.root = w.mounted.Root
	Bound(t, 2*programsTime, w.mounted)
	return w
}

// remount unmounts and mounts again.
func (w *workshop) remount() {
	w.t.Helper()
	if err := w.mounted.Unmount(); err != nil {
		w.t.Fatal(err)
	}
	w.mounted = Mount(w.t, w.route, w.mounted.Layout)
	w.root = w.mounted.Root
}

// sh runs a script in the union, with the place outside as $OUT, and returns what it printed. It fails the test if the script
// fails or takes too long.
func (w *workshop) sh(script string) string {
	w.t.Helper()
	out, err := w.try(script)
	if err != nil {
		w.t.Fatalf("%v\n%s", err, tail(out))
	}
	return out
}

func (w *workshop) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), programsTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = w.root
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "OUT="+w.outside, "HOME="+w.outside, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// need skips the test where a program is missing.
func (w *workshop) need(programs ...string) {
	w.t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			w.t.Skipf("%s is not installed", p)
		}
	}
}

func gitProgram(t *testing.T, w *workshop) {
	w.need("git")
	w.sh(`git config --global user.email t@example.org; git config --global user.name t; git config --global init.defaultBranch main
		git init -q $OUT/origin; cd $OUT/origin
		for i in $(seq 150); do mkdir -p d$((i % 7)); seq $i > d$((i % 7))/f$i; done
		git add -A; git commit -qm first
		git checkout -qb side; for i in $(seq 50); do echo side >> d$((i % 7))/f$i; git rm -q d$(((i + 50) % 7))/f$((i + 50)); done
		git commit -qam second; git checkout -q main`)
	w.sh(`git clone -q file://$OUT/origin clone; cd clone
		git checkout -q side; test "$(git status --porcelain | wc -l)" = 0
		git checkout -q main; git merge -q side; git checkout -q side
		for i in $(seq 30); do echo $i > new$i; git add new$i; git commit -qm $i; done
		git gc -q --aggressive --prune=now; git fsck --strict; git status --porcelain; git stash list
		mv .git/packed-refs x; mv x .git/packed-refs; git worktree add -q ../tree main; git worktree remove ../tree`)
	w.remount()
	w.sh(`cd clone; git fsck --strict; test "$(git status --porcelain | wc -l)" = 0; git log --oneline | wc -l; git diff --quiet main side && exit 1
		rm -rf .git/index; git reset -q --hard; git clean -qfdx; cd ..; rm -rf clone; test ! -e clone`)
}

// richTree makes a tree of every kind of file below $OUT/src.
func (w *workshop) richTree() string {
	src := filepath.Join(w.outside, "src")
	s := Generate(7)
	l := append(writeSet().Lower[0], accessSet().Lower[0]...)
	for _, layer := range s.Lower {
		for _, e := range layer {
			e.Xattrs = slices.DeleteFunc(slices.Clone(e.Xattrs), func(x Xattr) bool { return strings.HasPrefix(x.Name, "trusted.") })
			if e.Kind != Whiteout && e.Kind != EmptyWhiteout {
				l = append(l, e)
			}
		}
	}
	if err := l.build(src); err != nil {
		w.t.Fatal(err)
	}
	return src
}

// same compares two trees as an archiver has to keep them.
func (w *workshop) same(a, b string) {
	w.t.Helper()
	want, got := mustSnap(w.t, a, Clock{}), mustSnap(w.t, b, Clock{})
	delete(want, ".")
	delete(got, ".")
	diffs := Compare(want, got, func(p, field string) bool {
		return slices.Contains([]string{"ctime", "btime", "d_ino", "d_ino .", "inode"}, field) || (field == "size" || field == "nlink" || field == "mtime") && want[p]["type"] == "dir" ||
			field == "mtime" && want[p]["type"] == "symlink"
	})
	if len(diffs) > 0 {
		w.t.Errorf("%s and %s differ:\n%s", a, b, List(diffs, 20))
	}
}

func tarProgram(t *testing.T, w *workshop) {
	w.need("tar")
	src := w.richTree()
	w.sh(`mkdir plain xattrs
		tar --format=pax -C $OUT/src -cf - . | tar -C plain -xpf -
		tar --format=pax --xattrs --xattrs-include='*' --acls --sparse -C $OUT/src -cf $OUT/a.tar . 2>/dev/null
		tar --xattrs --xattrs-include='*' --acls -C xattrs -xpf $OUT/a.tar
		mkdir $OUT/back; tar --format=pax --xattrs --xattrs-include='*' --acls -C xattrs -cf - . 2>/dev/null | tar --xattrs --xattrs-include='*' --acls -C $OUT/back -xpf -`)
	w.same(src, filepath.Join(w.root, "xattrs"))
	w.same(src, filepath.Join(w.outside, "back"))
	w.remount()
	w.same(src, filepath.Join(w.root, "xattrs"))
}

func rsyncProgram(t *testing.T, w *workshop) {
	w.need("rsync")
	src := w.richTree()
	w.sh(`rsync -aHAX $OUT/src/ there/; rsync -aHAX there/ $OUT/back/
		test -z "$(rsync -aHAXnci --delete $OUT/src/ there/)"; test -z "$(rsync -aHAXnci --delete there/ $OUT/src/)"`)
	w.same(src, filepath.Join(w.root, "there"))
	w.same(src, filepath.Join(w.outside, "back"))
	w.sh(`rm -rf there; test ! -e there; rsync -aHAX --inplace $OUT/src/ there/; echo more >> $OUT/src/f; rsync -aHAX --inplace --delete $OUT/src/ there/
		test -z "$(rsync -aHAXnci --delete $OUT/src/ there/)"`)
}

// goBuild builds a package of this project and what it needs of the standard library, all of it in the union.
func goBuild(t *testing.T, w *workshop) {
	w.need("go")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	w.sh(fmt.Sprintf(`mkdir cache tmp src; cp %s/go.mod src/; [ -e %[1]s/go.sum ] && cp %[1]s/go.sum src/; cp -r %[1]s/whiteout src/; rm -f src/whiteout/*_test.go
		printf 'package main\nimport ("fmt"; _ "github.com/unionfs-deep/unionfs-deep/whiteout")\nfunc main() { fmt.Println("built") }\n' > src/main.go
		cd src; export GOCACHE=$PWD/../cache GOTMPDIR=$PWD/../tmp GOFLAGS=-mod=mod GOPROXY=off GOMODCACHE=$(cd %[1]s && HOME=%[2]s go env GOMODCACHE)
		go build -o prog . ; test "$(./prog)" = built; go vet . ; go build -o prog2 .; cmp prog prog2
		find ../cache -type f | wc -l; go clean -cache`, root, os.Getenv("HOME")))
}

// sqliteProgram kills sqlite at work, and then the server below it.
func sqliteProgram(t *testing.T, w *workshop) {
	w.need("sqlite3")
	w.sh(`sqlite3 db 'PRAGMA journal_mode=WAL; CREATE TABLE t(n INTEGER PRIMARY KEY, s TEXT)' > /dev/null`)
	insert := `i=%d; while :; do i=$((i + 1)); echo "INSERT INTO t(s) VALUES (hex(randomblob(300))); SELECT 'done';"; done | sqlite3 -cmd '.timeout 5000' db > $OUT/acked%[1]d & pid=$!
		sleep 0.%d; kill -9 $pid; wait $pid || true`
	for i := range 6 {
		w.try(fmt.Sprintf(insert, i, 1+i%5))
		w.sh(`test "$(sqlite3 -cmd '.timeout 5000' db 'PRAGMA integrity_check')" = ok
			acked=$(cat $OUT/acked* | grep -c done || true); rows=$(sqlite3 db 'SELECT count(*) FROM t'); test $rows -ge $acked`)
	}
	if w.mounted.server != nil {
		cmd := exec.Command("bash", "-c", fmt.Sprintf("cd %s && "+insert, w.root, 9, 9))
		cmd.Env = append(os.Environ(), "OUT="+w.outside)
		cmd.Start()
		time.Sleep(300 * time.Millisecond)
		w.mounted.Kill()
		cmd.Wait()
		w.mounted.Clear()
		w.mounted = Mount(t, w.route, w.mounted.Layout)
		w.root = w.mounted.Root
		w.sh(`test "$(sqlite3 db 'PRAGMA integrity_check')" = ok`)
	}
}

// dpkgProgram installs, upgrades and removes a package made for it, in a root of its own in the union.
func dpkgProgram(t *testing.T, w *workshop) {
	w.need("dpkg", "dpkg-deb")
	w.sh(`mkdir -p root/var/lib/dpkg/{info,updates,triggers} root/usr/share; touch root/var/lib/dpkg/{status,available}
		for v in 1 2; do
			p=$OUT/pkg$v; mkdir -p $p/DEBIAN $p/usr/share/thing/sub $p/usr/bin
			printf "Package: thing\nVersion: $v\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: a thing\n" > $p/DEBIAN/control
			for i in $(seq 60); do echo "$v $i" > $p/usr/share/thing/sub/f$i; done; echo only$v > $p/usr/share/thing/only$v
			ln -s ../share/thing/sub/f1 $p/usr/bin/thing; ln $p/usr/share/thing/sub/f2 $p/usr/share/thing/hard
			dpkg-deb --root-owner-group -b $p $OUT/thing$v.deb > /dev/null
		done
		opts="--root=$PWD/root --force-script-chrootless"
		dpkg $opts -i $OUT/thing1.deb; test "$(cat root/usr/share/thing/sub/f7)" = "1 7"
		dpkg $opts -i $OUT/thing2.deb; test "$(cat root/usr/share/thing/sub/f7)" = "2 7"; test ! -e root/usr/share/thing/only1
		dpkg $opts --verify thing; dpkg $opts -r thing; test ! -e root/usr/share/thing`)
}

func debootstrapProgram(t *testing.T, w *workshop) {
	if !*slow {
		t.Skip("takes minutes: run with -slow")
	}
	w.need("debootstrap", "chroot")
	if _, err := w.try(`timeout 20 curl -sfI http://deb.debian.org/debian/dists/stable/Release`); err != nil {
		t.Skip("debootstrap cannot run: no Debian mirror can be reached")
	}
	w.sh(`debootstrap --variant=minbase --include=hello stable root > $OUT/log 2>&1 || { tail -20 $OUT/log; exit 1; }; chroot root hello; chroot root dpkg --verify; chroot root dpkg -P hello`)
}

func fioProgram(t *testing.T, w *workshop) {
	w.need("fio")
	for _, job := range []string{"--rw=randrw --ioengine=psync", "--rw=randwrite --ioengine=libaio --direct=1 --iodepth=8", "--rw=randwrite --ioengine=mmap",
		"--rw=write --ioengine=psync --fsync=16", "--rw=randwrite --ioengine=psync --numjobs=2"} {
		w.sh("fio --name=v --directory=$PWD --size=8m --bs=4k --verify=crc32c --verify_fatal=1 --do_verify=1 --fallocate=none --output=$OUT/fio.log " + job + " || { tail -30 $OUT/fio.log; exit 1; }; rm -f v.*")
	}
}

// failedStressor finds what stress-ng says of a stressor that failed.
var failedStressor = regexp.MustCompile(`(?m)fail: +\[\d+\] ([a-z-]+):`)

// stressors are those of stress-ng's filesystem class that work in one directory.
var stressors = strings.Fields(`access chattr chdir chmod chown copy-file dentry dir dirdeep dnotify fallocate fcntl fiemap file-ioctl filename flock
	fpunch fstat getdent handle inode-flags inotify iomix lease link locka lockf lockofd mknod open rename symlink touch utime xattr`)

// stressProgram runs them all at once. Which of them fail on the kernel is asked first.
func stressProgram(t *testing.T, w *workshop) {
	w.need("stress-ng")
	seconds := 6
	if *slow {
		seconds = 60
	}
	args := ""
	for _, s := range stressors {
		args += " --" + s + " 1"
	}
	failing := func(w *workshop) []string {
		out, _ := w.try(fmt.Sprintf("stress-ng %s --timeout %d --temp-path $PWD --verify --oomable 2>&1", args, seconds))
		var names []string
		for _, m := range failedStressor.FindAllStringSubmatch(out, -1) {
			if !slices.Contains(names, m[1]) {
				names = append(names, m[1])
			}
		}
		if !strings.Contains(out, "run completed") {
			names = append(names, "stress-ng itself: "+tail(out))
		}
		return names
	}
	excused := failing(newWorkshop(t, Kernel))
	for _, name := range failing(w) {
		if !slices.Contains(excused, name) {
			t.Errorf("stress-ng: %s fails, and does not on the kernel", name)
		}
	}
	left, _ := os.ReadDir(w.root)
	for _, e := range left {
		if strings.HasPrefix(e.Name(), "tmp-stress-ng") || strings.HasPrefix(e.Name(), "stress-ng") {
			t.Errorf("stress-ng left %s", e.Name())
		}
	}
}
