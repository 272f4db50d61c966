package whiteout

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
)

// MaxRedirect is the longest absolute redirect that is written, in bytes with the leading slash (ovl_redirect_max, a default
// of the overlay module). A rename that would need a longer one fails with EXDEV. Longer ones are read all the same.
const MaxRedirect = 256

const (
	maxName       = 255      // NAME_MAX, bytes
	maxXattrValue = 64 << 10 // XATTR_SIZE_MAX, bytes
)

// Redirect says where the layers below hold what a directory or a metacopy file stands for.
type Redirect struct {
	// Absolute redirects start at the root of the layers below; the others name an entry of the directory below that
	// corresponds to the parent.
	Absolute bool
	// Path is never empty and has no leading slash. It is one element if the redirect is not Absolute, and holds neither
	// empty elements nor zero bytes.
	Path string
}

// ParseRedirect reads the value of a redirect xattr. Like the kernel, which handles it as a C string, it stops at a zero byte.
//
// A malformed value gives an error that wraps EINVAL (ovl_get_redirect_xattr): empty, an empty path element, a trailing slash,
// a slash in a relative one. An element "." or ".." gives an error that wraps EACCES, which is what look-up in a layer
// answers (lookup_noperm_common), and the Redirect as well: only a data-only layer resolves such a path, beneath its root.
func ParseRedirect(value []byte) (Redirect, error) {
	if len(value) > maxXattrValue {
		return Redirect{}, redirectError(value, "longer than an xattr can be", syscall.EINVAL)
	}
	if end := bytes.IndexByte(value, 0); end == 0 {
		// Not empty for getxattr, but an empty name for look-up.
		return Redirect{}, redirectError(value, "empty name", syscall.EACCES)
	} else if end > 0 {
		value = value[:end]
	}
	path, absolute := strings.CutPrefix(string(value), "/")
	r := Redirect{Absolute: absolute, Path: path}
	if !absolute && strings.Contains(path, "/") {
		return Redirect{}, redirectError(value, "a relative redirect must be a single name", syscall.EINVAL)
	}
	dots := false
	for element := range strings.SplitSeq(path, "/") {
		if element == "" {
			return Redirect{}, redirectError(value, "empty path element", syscall.EINVAL)
		}
		dots = dots || element == "." || element == ".."
	}
	if dots {
		return r, redirectError(value, `element "." or ".."`, syscall.EACCES)
	}
	return r, nil
}

// NewRedirect returns the redirect to store for a path, which is absolute if it begins with a slash. The error wraps EXDEV if
// the path is longer than overlayfs writes (MaxRedirect, or 255 bytes for a name), as rename then fails and the caller's
// program falls back to copying; otherwise it is that of [ParseRedirect].
func NewRedirect(path string) (Redirect, error) {
	limit := maxName
	if strings.HasPrefix(path, "/") {
		limit = MaxRedirect
	}
	if len(path) > limit {
		return Redirect{}, redirectError([]byte(path), fmt.Sprintf("longer than %d bytes", limit), syscall.EXDEV)
	}
	if strings.IndexByte(path, 0) >= 0 {
		return Redirect{}, redirectError([]byte(path), "zero byte", syscall.EINVAL)
	}
	return ParseRedirect([]byte(path))
}

// String returns the value to store in the redirect xattr.
func (r Redirect) String() string {
	if r.Absolute {
		return "/" + r.Path
	}
	return r.Path
}

func redirectError(value []byte, why string, errno syscall.Errno) error {
	return fmt.Errorf("overlay.redirect %s: %s: %w", excerpt(value), why, errno)
}

// excerpt quotes the beginning of a value for an error message, so that a layer cannot fill the log.
func excerpt(value []byte) string {
	const most = 64
	if len(value) <= most {
		return fmt.Sprintf("%q", value)
	}
	return fmt.Sprintf("%q... (%d bytes)", value[:most], len(value))
}
