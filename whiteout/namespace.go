package whiteout

import "strings"

// Namespace is the prefix under which a union keeps its own xattrs in the layers. A union uses one of them throughout.
type Namespace string

const (
	// Trusted is the usual prefix. Reading and writing it needs CAP_SYS_ADMIN in the initial user namespace.
	Trusted Namespace = "trusted.overlay."
	// User is the prefix with the mount option userxattr, for unions mounted inside a user namespace. Only regular files and
	// directories can carry it.
	User Namespace = "user.overlay."
)

// MaxXattrName is the longest xattr name, in bytes (XATTR_NAME_MAX). A name that [Namespace.Escape] makes longer cannot be
// stored: the kernel then answers EOPNOTSUPP.
const MaxXattrName = 255

// escapePrefix follows the prefix of an xattr that belongs to a union nested in this one (OVL_XATTR_ESCAPE_PREFIX).
const escapePrefix = "overlay."

// Opaque returns the name of the xattr read by [ParseOpaque].
func (ns Namespace) Opaque() string { return string(ns) + "opaque" }

// Redirect returns the name of the xattr read by [ParseRedirect].
func (ns Namespace) Redirect() string { return string(ns) + "redirect" }

// Metacopy returns the name of the xattr read by [ParseMetacopy].
func (ns Namespace) Metacopy() string { return string(ns) + "metacopy" }

// Origin returns the name of the xattr read by [ParseOrigin].
func (ns Namespace) Origin() string { return string(ns) + "origin" }

// Impure returns the name of the xattr read by [ParseImpure].
func (ns Namespace) Impure() string { return string(ns) + "impure" }

// Nlink returns the name of the xattr read by [ParseNlink].
func (ns Namespace) Nlink() string { return string(ns) + "nlink" }

// Upper returns the name of the xattr by which a directory of the index points to the upper directory; its value is that of
// an origin (see [ParseOrigin]).
func (ns Namespace) Upper() string { return string(ns) + "upper" }

// UUID returns the name of the xattr that holds the union's own UUID, 16 bytes, on the root of the upper layer.
func (ns Namespace) UUID() string { return string(ns) + "uuid" }

// Whiteout returns the name of the xattr that makes a whiteout of an empty regular file (see [IsXattrWhiteout]).
func (ns Namespace) Whiteout() string { return string(ns) + "whiteout" }

// Protattr returns the name of the xattr read by [ParseProtection].
func (ns Namespace) Protattr() string { return string(ns) + "protattr" }

// Private reports whether the xattr, named as in the layer, belongs to this union: such a one is neither listed nor copied up.
// An escaped one belongs to a union nested in this one and is ordinary data here (ovl_is_private_xattr).
func (ns Namespace) Private(xattr string) bool {
	return strings.HasPrefix(xattr, string(ns)) && !ns.escaped(xattr)
}

// Escape returns the name under which the layer stores an xattr that the union shows as xattr: one level of "overlay." is
// put in for names of this namespace, others stay as they are (ovl_xattr_escape_name). The caller refuses a result longer
// than [MaxXattrName] with EOPNOTSUPP, and the bare prefix as xattr with EINVAL.
func (ns Namespace) Escape(xattr string) string {
	rest, own := strings.CutPrefix(xattr, string(ns))
	if !own {
		return xattr
	}
	return string(ns) + escapePrefix + rest
}

// Unescape returns the name under which the union lists an xattr that the layer stores as xattr: one level of "overlay." is
// taken out, others stay as they are (ovl_listxattr). Names that are [Namespace.Private] are not to be listed at all.
func (ns Namespace) Unescape(xattr string) string {
	if !ns.escaped(xattr) {
		return xattr
	}
	return string(ns) + xattr[len(ns)+len(escapePrefix):]
}

// escaped tells the names that Escape made. Some kernels since 6.7 compare one byte less for Trusted, and then list
// "trusted.overlay.overlayX" under a mangled name; that is not copied.
func (ns Namespace) escaped(xattr string) bool {
	rest, own := strings.CutPrefix(xattr, string(ns))
	return own && strings.HasPrefix(rest, escapePrefix)
}
