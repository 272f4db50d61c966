package whiteout

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"syscall"
)

// OriginFlags are the OVL_FH_FLAG_ bits of an [Origin].
type OriginFlags uint8

const (
	// OriginBigEndian is set if a big-endian machine encoded the handle.
	OriginBigEndian OriginFlags = 1 << iota
	// OriginAnyEndian is set if the handle is the same on both kinds of machine.
	OriginAnyEndian
	// OriginUpper is set if the handle is that of a file of the upper layer.
	OriginUpper

	originFlags = OriginBigEndian | OriginAnyEndian | OriginUpper
)

// The header is struct ovl_fb without fid: version, magic, length, flags, type and the UUID.
const (
	originVersion = 0
	originMagic   = 0xfb
	originHeader  = 5 + 16
	// MaxOriginHandle is the longest handle in bytes: the length of header and handle is kept in one byte.
	MaxOriginHandle = 0xff - originHeader
)

// ErrOriginUnknown is wrapped by the errors for an origin that is well-formed but says nothing here: an empty value ("copied
// up, origin unknown"), a later version, unknown flags, or a handle for the other byte order. It is not a fault of the layer.
var ErrOriginUnknown = errors.New("origin unknown")

// Origin names a file of a lower layer, or with OriginUpper of the upper one, by its file system and file handle
// (struct ovl_fb).
type Origin struct {
	Flags   OriginFlags
	FIDType uint8    // type of Handle, as name_to_handle_at gives it
	UUID    [16]byte // of the file system; all zero with the mount option uuid=off, or if it has none
	Handle  []byte   // as name_to_handle_at gives it, at most MaxOriginHandle bytes
}

// NewOrigin returns the origin of a file from what name_to_handle_at says of it (fidType, handle) and the UUID of its file
// system. It fails for a handle longer than MaxOriginHandle or a type outside 0 to 255; the kernel's own never are. Without a
// handle there is still an origin to store, an empty value.
func NewOrigin(uuid [16]byte, fidType int32, handle []byte, upper bool) (Origin, error) {
	if len(handle) > MaxOriginHandle || fidType < 0 || fidType > 0xff {
		return Origin{}, originError("file handle of type %d with %d bytes cannot be stored: %w", fidType, len(handle), syscall.EOVERFLOW)
	}
	o := Origin{Flags: nativeEndian(), FIDType: uint8(fidType), UUID: uuid, Handle: handle}
	if upper {
		o.Flags |= OriginUpper
	}
	return o, nil
}

// ParseOrigin reads the value of an origin or upper xattr. Bytes after the length that the value states are left out, as the
// kernel does. The error wraps [ErrOriginUnknown] or, if the value is malformed, EINVAL; to the kernel both mean that the
// origin is not known (ovl_check_fb_len, ovl_get_fh).
func ParseOrigin(value []byte) (Origin, error) {
	if len(value) == 0 {
		return Origin{}, originError("empty: %w", ErrOriginUnknown)
	}
	if len(value) < originHeader {
		return Origin{}, originError("%d bytes, want at least %d: %w", len(value), originHeader, syscall.EINVAL)
	}
	// The kernel does not ask for length >= originHeader and would compute a negative size of the handle.
	if length := int(value[2]); value[1] != originMagic || length < originHeader || length > len(value) {
		return Origin{}, originError("magic %#x, length %d in %d bytes: %w", value[1], length, len(value), syscall.EINVAL)
	}
	o := Origin{Flags: OriginFlags(value[3]), FIDType: value[4]}
	if value[0] > originVersion || o.Flags&^originFlags != 0 {
		return Origin{}, originError("version %d, flags %#x: %w", value[0], o.Flags, ErrOriginUnknown)
	}
	if o.Flags&OriginAnyEndian == 0 && o.Flags&OriginBigEndian != nativeEndian() {
		return Origin{}, originError("handle for the other byte order: %w", ErrOriginUnknown)
	}
	o.UUID = [16]byte(value[5:originHeader])
	o.Handle = append([]byte(nil), value[originHeader:value[2]]...)
	return o, nil
}

// Bytes returns the value to store in an origin or upper xattr. A Handle longer than MaxOriginHandle is cut; [NewOrigin]
// refuses it.
func (o Origin) Bytes() []byte {
	handle := o.Handle[:min(len(o.Handle), MaxOriginHandle)]
	b := make([]byte, 0, originHeader+len(handle))
	b = append(b, originVersion, originMagic, byte(originHeader+len(handle)), byte(o.Flags), o.FIDType)
	b = append(b, o.UUID[:]...)
	return append(b, handle...)
}

// IndexName returns the name of the index entry for the file (ovl_get_index_name_fh).
func (o Origin) IndexName() string {
	return hex.EncodeToString(o.Bytes())
}

// ParseIndexName reads the name of an entry of the index directory (ovl_verify_index). Errors are those of [ParseOrigin];
// a name that is not hexadecimal, such as that of a leftover temporary file, which begins with '#', wraps EINVAL.
func ParseIndexName(name string) (Origin, error) {
	if len(name) > maxName {
		return Origin{}, originError("index name of %d bytes: %w", len(name), syscall.EINVAL)
	}
	value, err := hex.DecodeString(name)
	if err != nil {
		return Origin{}, originError("index name %s: %w", excerpt([]byte(name)), syscall.EINVAL)
	}
	return ParseOrigin(value)
}

// nativeEndian is OVL_FH_FLAG_CPU_ENDIAN.
func nativeEndian() OriginFlags {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return 0
	}
	return OriginBigEndian
}

func originError(format string, args ...any) error {
	return fmt.Errorf("overlay.origin: "+format, args...)
}
