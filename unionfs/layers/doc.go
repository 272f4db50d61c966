// Package layers is the layer stack of a union: the door through which each access to a layer goes, the look-up of a name
// through the stack, and directories merged once. There is no FUSE in it.
//
// # Concepts
//
// A Layer is one directory tree. A Stack is an optional upper layer, which may be written, on any number of lower layers,
// topmost first, on any number of data-only layers, whose files are reached by a redirect alone. A Place is a directory in
// a layer; a merged directory has a list of places, topmost first, and a name is looked for in them in that order until a
// non-directory, a whiteout or an opaque directory ends it (ovl_lookup in the kernel's fs/overlayfs/namei.c).
//
// # The door
//
// What a layer holds is not trusted. A Dir is an open directory of a layer, and the only thing that is ever done to a
// layer is an operation on (Dir, name), where name is one path component. A Dir is opened with openat2(2) from the
// layer's root with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS, or a component at a time with
// O_NOFOLLOW where a sandbox forbids openat2: a symbolic link in a layer, also one that was swapped in a moment ago, leads
// nowhere.
//
// # Descriptors
//
// No descriptor is held for good. Open directories and files live in one Cache with a bound on their number; a layer's root
// is opened again by the path by which it was named, and must still be the same directory (device and inode).
package layers
