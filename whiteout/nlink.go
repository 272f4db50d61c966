package whiteout

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// maxNlink is the longest value that the kernel reads, in bytes (the buffer of ovl_get_nlink).
const maxNlink = 12

// Nlink keeps the union's link count of an indexed file: so many more, or fewer, than the real file has.
type Nlink struct {
	Upper bool // relative to the file in the upper layer, else to that in the lower one
	Diff  int32
}

// ParseNlink reads the value of an nlink xattr. A malformed one gives an error that wraps EINVAL; the kernel then falls back
// to the real file's link count (ovl_get_nlink).
func ParseNlink(value []byte) (Nlink, error) {
	text, _, _ := strings.Cut(string(value[:min(len(value), maxNlink)]), "\x00")
	if len(value) > maxNlink || len(text) < 2 || !strings.Contains("LU", text[:1]) || !strings.Contains("+-", text[1:2]) {
		return Nlink{}, nlinkError(value)
	}
	// kstrtoint allows one newline at the end.
	diff, err := strconv.ParseInt(strings.TrimSuffix(text[1:], "\n"), 10, 32)
	if err != nil {
		return Nlink{}, nlinkError(value)
	}
	return Nlink{Upper: text[0] == 'U', Diff: int32(diff)}, nil
}

// String returns the value to store in the nlink xattr (ovl_set_nlink_common).
func (n Nlink) String() string {
	if n.Upper {
		return fmt.Sprintf("U%+d", n.Diff)
	}
	return fmt.Sprintf("L%+d", n.Diff)
}

func nlinkError(value []byte) error {
	return fmt.Errorf("overlay.nlink %s: want L or U and a signed number: %w", excerpt(bytes.TrimSpace(value)), syscall.EINVAL)
}
