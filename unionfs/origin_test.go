package unionfs

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// File systems tell their UUIDs by calls of their own as well, on which kernels before 6.9 depend, and btrfs always.
func TestUUIDOfFileSystems(t *testing.T) {
	const uuid = "01234567-89ab-cdef-0123-456789abcdef"
	for _, mkfs := range [][]string{
		{"mkfs.ext4", "-q", "-U", uuid}, {"mkfs.xfs", "-q", "-m", "uuid=" + uuid}, {"mkfs.btrfs", "-q", "-U", uuid},
	} {
		t.Run(mkfs[0], func(t *testing.T) {
			root, err := os.Open(formattedDisk(t, t.TempDir()+"/disk", 400<<20, mkfs...))
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			for name, ask := range map[string]func(int) ([16]byte, error){"fsUUID": fsUUID, "ownUUID": ownUUID} {
				got, err := ask(int(root.Fd()))
				if text := fmt.Sprintf("%x-%x-%x-%x-%x", got[:4], got[4:6], got[6:8], got[8:10], got[10:]); err != nil || text != uuid {
					t.Errorf("%s: %s, %v", name, text, err)
				}
			}
		})
	}
}

// Where all layers are on one file system, inode numbers stay though it has no UUID.
func TestInodeStaysWithoutUUID(t *testing.T) {
	needFUSE(t)
	d := makeDirs(t, formattedDisk(t, t.TempDir()+"/disk", 64<<20, "mkfs.ext4", "-q", "-U", "clear"))
	write(t, d.lower+"/file", "lower")
	var before, after unix.Stat_t
	m := mount(t, d.options(Options{}))
	err := errors.Join(os.Chmod(m.p("file"), 0o600), unix.Stat(m.p("file"), &before))
	m.unmount()
	m = mount(t, d.options(Options{}))
	if err = errors.Join(err, unix.Stat(m.p("file"), &after)); err != nil || after.Ino != before.Ino {
		t.Errorf("the inode number was %d and is %d, %v", before.Ino, after.Ino, err)
	}
}
