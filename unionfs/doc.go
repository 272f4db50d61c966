// Package unionfs serves a union of layers through FUSE.
package unionfs
