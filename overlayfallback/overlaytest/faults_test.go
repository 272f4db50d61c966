package overlaytest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFaults lets the layers' file systems fail: the errors have to come back as themselves, with nothing lost or half done.
func TestFaults(t *testing.T) {
	big := writeSet()
	big.Lower[1] = append(big.Lower[1], Entry{Path: "big", Kind: File, Seed: "big", Size: 8 << 20}, file("merged/other", "2"))
	quota := on("disk_quota", diskQuota)
	quota.UpperOn = quotaDisk
	cases := []Case{
		{Name: "no_space", Set: big, UpperOn: tmpfs("size=2m"), Run: noSpace},
		withOptions(Case{Name: "no_space", Set: big, UpperOn: tmpfs("size=2m"), Run: noSpace}, "metacopy=on", "redirect_dir=on", "index=on"),
		{Name: "no_inodes", Set: big, UpperOn: tmpfs("nr_inodes=40"), Run: noInodes},
		{Name: "room_again_at_once", Set: writeSet(), UpperOn: tmpfs("size=2m"), Run: againAtOnce(64 << 10)},
		{Name: "inodes_again_at_once", Set: writeSet(), UpperOn: tmpfs("nr_inodes=40"), Run: againAtOnce(0)},
		{Name: "inodes_for_copy_ups", Set: manyFiles(), UpperOn: tmpfs("nr_inodes=40"), Run: inodesForCopyUps},
		quota,
		{Name: "subvolume_quota", Set: big, UpperOn: quotaSubvolume, Run: subvolumeQuota},
		{Name: "upper_turns_read_only", Set: big, UpperOn: tmpfs("size=40m"), Run: upperReadOnly,
			NotesOn: map[string]string{"fuse": "the origin of a directory is written when it is looked up, which may come after the change"}},
		{Name: "lower_cannot_be_read", Set: Set{Lower: []Layer{{file("top", "1")}, {file("first", "f"), {Path: "bad", Kind: File, Seed: "bad", Size: 8 << 20}}}},
			LayersOn: disk("48M"), Built: breakDisk, Run: ioError},
	}
	RunCases(t, cases, routes("fuse", "fuse,fastpath=passthrough", "fuse,fastpath=off"))
}

// tmpfs mounts a tmpfs with the options on the directory.
func tmpfs(options string) func(testing.TB, string) error {
	return func(t testing.TB, dir string) error {
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		return unix.Mount("tmpfs", dir, "tmpfs", 0, options)
	}
}

// disk mounts an ext4 image of the size, which lies beside the directory.
func disk(size string) func(testing.TB, string) error {
	return func(t testing.TB, dir string) error {
		script := fmt.Sprintf("truncate -s %s %[2]s.img && mkfs.ext4 -q -F -b 4096 %[2]s.img && mount -o loop %[2]s.img %[2]s", size, dir)
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		return run(script)
	}
}

// scripted has a shell script mount something on the directory. What it cannot mount this machine lacks.
func scripted(t testing.TB, dir, lack, script string) error {
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if err := run(script); err != nil {
		return Unsupported(lack + ": " + err.Error())
	}
	return nil
}

// run runs a shell script; the error holds what it printed.
func run(script string) error {
	out, err := exec.Command("bash", "-ec", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// breakDisk cuts the image's end off where the largest file lies, so that reading the file is EIO: the loop device ends there.
func breakDisk(_ testing.TB, dir string) error {
	return run(fmt.Sprintf(`sync -f %[1]s
		first=$(filefrag -s -v %[1]s/l1/bad | awk '$1 == "0:" {print $4 + 0}')
		echo 1 > /proc/sys/vm/drop_caches
		truncate -s $((first * 4096)) %[1]s.img
		! cat %[1]s/l1/bad > /dev/null 2>&1`, dir))
}

// fillUp writes files of a size until there is no room, and notes only how that ended: how much fits is the file system's business.
func fillUp(r *Run, size int) {
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = os.WriteFile(r.Path(fmt.Sprint("filler", i)), make([]byte, size), 0o644)
	}
	r.Err("fill up", err)
}

// removeFillers makes room again, and the tree comparable.
func removeFillers(r *Run) {
	names, _ := filepath.Glob(r.Path("filler*"))
	for _, n := range names {
		if err := os.Remove(n); err != nil {
			r.Err("remove", err)
		}
	}
}

func noSpace(r *Run) {
	r.Append("big", "x")
	r.Stat("big")
	fd := r.Open("big", unix.O_RDWR, 0)
	r.Chmod("big", 0o600)
	r.Rename("big", "big2", 0)
	if fd >= 0 {
		r.Close(fd)
	}
	fillUp(r, 64<<10)
	r.ReadFile("top")
	r.Unlink("upper")
	removeFillers(r)
	r.Append("low", "there is room again")
	r.ReadFile("low")
	r.List(".")
}

func noInodes(r *Run) {
	var err error
	made := 0
	for ; err == nil && made < 100; made++ {
		err = unix.Mkdir(r.Path(fmt.Sprint("filler", made)), 0o755)
	}
	r.Err("make directories", err)
	r.Chmod("low", 0o600)
	r.Unlink("rich")
	r.Rename("top", "merged/top2", 0)
	for i := range made {
		unix.Rmdir(r.Path(fmt.Sprint("filler", i)))
	}
	r.Chmod("low", 0o600)
}

// againAtOnce replaces files of a size on a full file system: what a file had is there for the next one as soon as it is removed.
func againAtOnce(size int) func(*Run) {
	return func(r *Run) {
		fillUp(r, size)
		r.Err("replace", replace(r, make([]byte, size)))
		removeFillers(r)
	}
}

// replace removes and makes again one file after another. A few may have to wait for their room, also on the kernel: whoever drops its
// caches just then holds on to each inode for a moment (drop_pagecache_sb).
func replace(r *Run, data []byte) error {
	const files, mayWait = 400, 8
	waited := 0
	for i := range files {
		name := r.Path(fmt.Sprint("filler", i%8))
		err := os.Remove(name)
		if err == nil {
			err = os.WriteFile(name, data, 0o644)
		}
		if errors.Is(err, unix.ENOSPC) && waited < mayWait {
			waited++
			time.Sleep(50 * time.Millisecond)
			err = os.WriteFile(name, data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// manyFiles is more files than an upper layer of 40 inodes can hold.
func manyFiles() Set {
	var lower Layer
	for i := range 60 {
		lower = append(lower, file(fmt.Sprint("f", i), "data"))
	}
	return Set{Lower: []Layer{lower}}
}

// inodesForCopyUps has as many files copied up as there are inodes for.
func inodesForCopyUps(r *Run) {
	for i := range 8 { // which the next mount will need
		r.WriteFile(fmt.Sprint("filler", i), "")
	}
	var err error
	made := 0
	for ; err == nil; made++ {
		err = os.Chmod(r.Path(fmt.Sprint("f", made)), 0o600)
	}
	r.Err(fmt.Sprint("copy-up ", made), err)
	var st unix.Statfs_t
	r.Err("statfs", unix.Statfs(r.Root, &st))
	r.Note("inodes left", st.Ffree)
	removeFillers(r)
}

func upperReadOnly(r *Run) {
	upper := filepath.Dir(r.Mounted.Layout.Upper)
	if err := unix.Mount("", upper, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		r.Skip("the upper's file system does not turn read-only: " + err.Error())
		return
	}
	r.ReadFile("low")
	r.WriteFile("new", "x")
	r.Append("upper", "x")
	r.Chmod("low", 0o600)
	r.Unlink("upper")
	r.Unlink("low")
	r.Rename("upper", "u2", 0)
	r.Mkdir("d", 0o755)
	r.List(".")
	r.Err("writable again", unix.Mount("", upper, "", unix.MS_REMOUNT, ""))
	r.WriteFile("new", "x")
	r.Chmod("low", 0o640)
}

func ioError(r *Run) {
	r.ReadFile("bad")
	r.ReadFile("first")
	r.Append("bad", "x")
	r.Chmod("bad", 0o600)
	r.Stat("bad")
	r.Rename("bad", "bad2", 0)
	r.WriteFile("bad", "a new one in its place")
	r.ReadFile("bad")
	r.List(".")
}

// quotaDisk mounts a disk with quotas, of which user 1000 has a little.
func quotaDisk(t testing.TB, dir string) error {
	return scripted(t, dir, "no disk quotas on this kernel", fmt.Sprintf(`truncate -s 48M %[1]s.img
		mkfs.ext4 -q -F -O quota %[1]s.img; mount -o loop,usrquota %[1]s.img %[1]s
		setquota -u 1000 200 200 0 0 %[1]s`, dir))
}

func diskQuota(r *Run) {
	r.Mkdir("d", 0o755)
	r.Chown("d", 1000, 1000)
	As(user, func() {
		r.Err("fill up", os.WriteFile(r.Path("d/f"), make([]byte, 1<<20), 0o644))
		r.Err("remove", os.Remove(r.Path("d/f")))
		r.WriteFile("d/g", "fits")
	})
}

// formatted mounts a file system that a program makes in a file.
func formatted(mkfs string) func(testing.TB, string) error {
	return func(t testing.TB, dir string) error {
		return scripted(t, dir, "no "+mkfs+" here",
			fmt.Sprintf("truncate -s 400M %[2]s.img; %[1]s -q %[2]s.img; mount -o loop %[2]s.img %[2]s", mkfs, dir))
	}
}

// squash mounts over layers an image of them, whose file system has no UUID.
func squash(t testing.TB, dir string) error {
	return scripted(t, dir, "no squashfs here",
		fmt.Sprintf("mksquashfs %[1]s %[1]s.sq -quiet -no-progress >/dev/null; mount -o loop %[1]s.sq %[1]s", dir))
}

// squashEach does so for each layer.
func squashEach(t testing.TB, dir string) error {
	layers, err := filepath.Glob(dir + "/l*")
	for _, l := range layers {
		err = errors.Join(err, squash(t, l))
	}
	return err
}

// quotaSubvolume mounts a subvolume of btrfs that may hold 6 MiB.
func quotaSubvolume(t testing.TB, dir string) error {
	return scripted(t, dir, "no btrfs with quotas here", fmt.Sprintf(`truncate -s 200M %[1]s.img
		mkfs.btrfs -q %[1]s.img; mount -o loop %[1]s.img %[1]s
		trap 'umount %[1]s' ERR
		btrfs quota enable %[1]s; btrfs subvolume create %[1]s/small; btrfs qgroup limit 6M %[1]s/small
		trap - ERR; umount %[1]s; mount -o loop,subvol=small %[1]s.img %[1]s`, dir))
}

func subvolumeQuota(r *Run) {
	r.Append("big", "x") // its copy-up takes more than there is
	r.Stat("big")
	r.Rename("big", "big2", 0)
	r.Err("fill up", os.WriteFile(r.Path("new"), make([]byte, 16<<20), 0o644))
	r.Unlink("new")
	r.Remount() // what was unlinked is forgotten, and
	unix.Sync() // given back
	r.Append("low", "x")
	r.ReadFile("low")
	r.List(".")
}
