package whiteout

// Opaqueness is what a directory of one layer says about the directory of that name below it.
type Opaqueness byte

const (
	// NotOpaque directories are merged with what lies below.
	NotOpaque Opaqueness = 0
	// Opaque directories hide what lies below.
	Opaque Opaqueness = 'y'
	// XattrWhiteouts directories are merged and may hold xattr whiteouts, which reading the directory has to test for. It
	// counts in lower layers only; in an upper layer it means NotOpaque.
	XattrWhiteouts Opaqueness = 'x'
)

// ParseOpaque reads the value of the opaque xattr of a directory; nil stands for no xattr. Unknown letters and longer values
// are no mark, as in ovl_get_opaquedir_val. The xattr means nothing on other types of file.
func ParseOpaque(value []byte) Opaqueness {
	switch o := Opaqueness(letter(value)); o {
	case Opaque, XattrWhiteouts:
		return o
	default:
		return NotOpaque
	}
}

// Bytes returns the value to store in the opaque xattr. It is nil for NotOpaque: then there must be no such xattr.
func (o Opaqueness) Bytes() []byte {
	if o == NotOpaque {
		return nil
	}
	return []byte{byte(o)}
}

// ImpureValue is what the impure xattr holds on a directory of the upper layer with entries that came from below, so that
// reading it has to look up each entry's inode number.
const ImpureValue = "y"

// ParseImpure reports whether the value of the impure xattr of a directory marks it as impure (ovl_is_impuredir).
func ParseImpure(value []byte) bool {
	return letter(value) == ImpureValue[0]
}

// letter reads a value as ovl_get_dir_xattr_val does, into a buffer of one byte: anything longer is an error there, and no
// value here.
func letter(value []byte) byte {
	if len(value) != 1 {
		return 0
	}
	return value[0]
}
