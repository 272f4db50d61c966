package whiteout

import (
	"fmt"
	"syscall"
)

const (
	// MinMetacopy is the shortest value that is not empty, in bytes: version, size, flags, algorithm.
	MinMetacopy = 4
	// MaxDigest is the longest fs-verity digest, in bytes (FS_VERITY_MAX_DIGEST_SIZE).
	MaxDigest = 64
)

// Metacopy is the value of the metacopy xattr of a regular file whose data lies below (struct ovl_metacopy). The zero value,
// stored as an empty xattr, says no more than that.
type Metacopy struct {
	Version   uint8  // 0; see Check
	Size      uint8  // what the value that was read says its size is, in bytes; not looked at when writing
	Flags     uint8  // none is defined
	Algorithm uint8  // FS_VERITY_HASH_ALG_* of Digest, 0 for no digest
	Digest    []byte // fs-verity digest that the data must have, or nil
}

// ParseMetacopy reads the value of a metacopy xattr, which is empty or has at least 4 bytes. Otherwise the error wraps EIO.
//
// Look-up asks for no more than that (ovl_check_metacopy_xattr without a buffer), so neither does this; before a digest is
// trusted, [Metacopy.Check] applies the other rules.
func ParseMetacopy(value []byte) (Metacopy, error) {
	if len(value) == 0 {
		return Metacopy{}, nil
	}
	if len(value) < MinMetacopy {
		return Metacopy{}, metacopyError("%d bytes, want none or at least %d", len(value), MinMetacopy)
	}
	m := Metacopy{Version: value[0], Size: value[1], Flags: value[2], Algorithm: value[3]}
	if len(value) > MinMetacopy {
		m.Digest = append([]byte(nil), value[MinMetacopy:]...)
	}
	return m, nil
}

// Check reports why the digest of a Metacopy that was read cannot be relied on: another version, a digest that is too long,
// or a size that is not that of the value (ovl_check_metacopy_xattr with a buffer, used for the mount option verity). The
// error wraps EIO.
func (m Metacopy) Check() error {
	if m.empty() && m.Digest == nil && m.Size == 0 {
		return nil
	}
	switch size := MinMetacopy + len(m.Digest); {
	case m.Version != 0:
		return metacopyError("unsupported version %d", m.Version)
	case len(m.Digest) > MaxDigest:
		return metacopyError("digest of %d bytes, want at most %d", len(m.Digest), MaxDigest)
	case int(m.Size) != size:
		return metacopyError("%d bytes that say they are %d", size, m.Size)
	}
	return nil
}

// Bytes returns the value to store in the metacopy xattr. Without version, flags and algorithm it is empty, which older
// kernels understand too (ovl_set_metacopy_xattr); it is never nil. A digest longer than MaxDigest is cut.
func (m Metacopy) Bytes() []byte {
	if m.empty() {
		return []byte{}
	}
	digest := m.Digest[:min(len(m.Digest), MaxDigest)]
	return append([]byte{m.Version, byte(MinMetacopy + len(digest)), m.Flags, m.Algorithm}, digest...)
}

func (m Metacopy) empty() bool {
	return m.Version == 0 && m.Flags == 0 && m.Algorithm == 0
}

func metacopyError(format string, args ...any) error {
	return fmt.Errorf("overlay.metacopy: %s: %w", fmt.Sprintf(format, args...), syscall.EIO)
}
