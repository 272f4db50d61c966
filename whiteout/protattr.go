package whiteout

import (
	"fmt"
	"syscall"
)

// maxProtattr is the longest value that the kernel reads, in bytes (OVL_PROTATTR_MAX).
const maxProtattr = 32

// Protection is the part of a file's flags (chattr) that a union keeps in an xattr, since setting them on the upper file would
// stop the union itself from changing it.
type Protection struct {
	Append    bool // FS_APPEND_FL
	Immutable bool // FS_IMMUTABLE_FL
}

// ParseProtection reads the value of a protattr xattr. An empty one, one with other letters or one longer than 32 bytes gives
// an error that wraps EINVAL; the kernel then ignores it as a whole (ovl_check_protattr).
func ParseProtection(value []byte) (Protection, error) {
	var p Protection
	if len(value) == 0 || len(value) > maxProtattr {
		return p, protectionError(value)
	}
	for _, letter := range value {
		switch letter {
		case 'a':
			p.Append = true
		case 'i':
			p.Immutable = true
		default:
			return Protection{}, protectionError(value)
		}
	}
	return p, nil
}

// String returns the value to store in the protattr xattr (ovl_set_protattr). It is empty if there is nothing to protect:
// then there must be no such xattr.
func (p Protection) String() string {
	s := ""
	if p.Append {
		s += "a"
	}
	if p.Immutable {
		s += "i"
	}
	return s
}

func protectionError(value []byte) error {
	return fmt.Errorf("overlay.protattr %s: want letters a and i: %w", excerpt(value), syscall.EINVAL)
}
