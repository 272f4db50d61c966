package overlaytest

import "strings"

// SnapUpper records an upper directory as it lies on the disk, with what two right implementations may do differently made
// equal: the bytes of file handles (overlay.origin, overlay.upper) and UUIDs, and the link counts of whiteouts, which share
// an inode as it happens.
func SnapUpper(dir string, clock Clock) (Snapshot, error) {
	tree, err := Snap(dir, clock)
	for _, n := range tree {
		n.normalise()
	}
	return tree, err
}

// normalise makes a raw upper node comparable.
func (n Node) normalise() {
	for field := range n {
		name, isXattr := strings.CutPrefix(field, "xattr ")
		for _, prefix := range []string{TrustedOverlay, UserOverlay} {
			own, ok := strings.CutPrefix(name, prefix)
			if isXattr && ok && (own == "origin" || own == "upper" || own == "uuid") {
				if n[field] != text(nil) { // which stands for none
					n[field] = "present"
				}
			}
		}
	}
	if n["type"] == "char" && n["rdev"] == "0:0" {
		for _, field := range []string{"nlink", "inode", "mtime", "ctime", "btime", "mode"} {
			delete(n, field)
		}
	}
}
