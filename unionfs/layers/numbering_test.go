package layers

import "testing"

func TestInodeNumbersOfOneFileSystemAreKept(t *testing.T) {
	s := &Stack{}
	for _, ino := range []uint64{1, 2, 1 << 40, 1<<64 - 1} {
		if got := s.Ino(7, ino); got != ino {
			t.Errorf("%d became %d", ino, got)
		}
	}
	if !s.SameFS() {
		t.Error("one file system is not the same one")
	}
}

// Numbers of different file systems part, also of more than the upper bits can number, and stay what they were.
func TestInodeNumbersOfManyFileSystems(t *testing.T) {
	s := &Stack{}
	type inode struct{ dev, ino uint64 }
	seen, given := map[uint64]inode{}, map[inode]uint64{}
	for round := range 2 {
		for dev := range uint64(3000) {
			for _, ino := range []uint64{1, 2, 256, 12345, 1 << 33} {
				n, of := s.Ino(dev+100, ino), inode{dev, ino}
				if round == 0 {
					if other, ok := seen[n]; ok {
						t.Fatalf("%v and %v both are %d", other, of, n)
					}
					seen[n], given[of] = of, n
				} else if given[of] != n {
					t.Fatalf("%v was %d and is %d", of, given[of], n)
				}
			}
		}
	}
	if s.SameFS() {
		t.Error("3,000 file systems are one")
	}
}
