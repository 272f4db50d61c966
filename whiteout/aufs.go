package whiteout

import (
	"fmt"
	"strings"
	"syscall"
)

// Names by which AUFS, and container images after it, keep whiteouts in a plain tree of files. Kernel overlayfs gives them no
// meaning.
const (
	AUFSPrefix = ".wh."         // before the name that is hidden
	AUFSOpaque = ".wh..wh..opq" // an entry of a directory that is opaque
	aufsMeta   = ".wh..wh."     // before names that AUFS keeps for itself, such as .wh..wh.plnk
)

// AUFSKind is what a name says in a layer with AUFS whiteouts.
type AUFSKind int

const (
	AUFSNone      AUFSKind = iota // an ordinary name
	AUFSWhiteout                  // hides the entry target of the same directory, in the layers below
	AUFSDirOpaque                 // makes the directory that holds it opaque
	AUFSReserved                  // AUFS's own: not part of the tree, and hides nothing
)

// ParseAUFS tells what the name of a directory entry says in a layer with AUFS whiteouts. The target is the name that is
// hidden, and empty unless the kind is AUFSWhiteout; it is never ".", ".." or empty, so that no layer can hide a directory
// from within: such names are AUFSReserved.
func ParseAUFS(name string) (target string, kind AUFSKind) {
	rest, prefixed := strings.CutPrefix(name, AUFSPrefix)
	switch {
	case !prefixed:
		return "", AUFSNone
	case name == AUFSOpaque:
		return "", AUFSDirOpaque
	case strings.HasPrefix(name, aufsMeta), rest == "", rest == ".", rest == "..":
		return "", AUFSReserved
	default:
		return rest, AUFSWhiteout
	}
}

// AUFSWhiteoutName returns the name of the entry that hides target. The error wraps ENAMETOOLONG for a target longer than 251
// bytes, and EINVAL for one that cannot be hidden: empty, ".", "..", a path, or one of AUFS's own names.
func AUFSWhiteoutName(target string) (string, error) {
	name := AUFSPrefix + target
	if len(name) > maxName {
		return "", fmt.Errorf("AUFS whiteout of %s: the name would have %d bytes: %w", excerpt([]byte(target)), len(name), syscall.ENAMETOOLONG)
	}
	if _, kind := ParseAUFS(name); kind != AUFSWhiteout || strings.ContainsAny(target, "/\x00") {
		return "", fmt.Errorf("AUFS whiteout of %q: not a name that can be hidden: %w", target, syscall.EINVAL)
	}
	return name, nil
}
