// Package unionfs serves a union of layers through FUSE, with the semantics and the on-disk format of Linux overlayfs: any
// number of lower layers, and one upper layer that may be written.
//
// # Concepts
//
// A node is an inode of the union that the kernel knows (node.go). It has a place in the upper layer, named by the inode
// number there, or a place in a lower layer, which never changes; copy-up moves it from the second to the first. A
// directory's node also has its merged listing, read once on first touch: from then on a look-up is one hash look-up,
// found or not, whatever the depth of the union.
//
// Files are served by node, not by open: an open file has no state here, and its data is read through a descriptor that
// the layers' cache keeps for a while. So the kernel can be told never to send OPEN, OPENDIR and FLUSH (see the package
// perf for the profiles), and the open files of all processes cost no descriptors. What an open file needs that the tree
// does not show any more, its last name gone, is kept until the kernel forgets it: open (pinned), or where there are many
// such under a name in the work directory (parked).
//
// Who may do what is decided by the kernel, by the modes and ACLs that the union shows (default_permissions). The server
// sees to ownership, set-id bits and what else a request does on the side.
//
// The kernel may keep names, attributes and pages without end: lower layers do not change, the upper one changes through
// the union alone, and where an operation changes what the kernel was told of another node, the kernel is told to ask
// again (attributesChanged). What is passed through changes by itself while it is open for writing (attrValidity).
//
// # Files, named after the kernel's own
//
//	namei.go     look-up, and the nodes that it makes       fs.go       the file system as a whole, serving
//	reach.go     how a node is reached in its layers        node.go     the inode table, names, FORGET
//	inode.go     attributes                                 handles.go  file handles of forgotten nodes
//	readdir.go   directories                                super.go    upper and work directory, statfs
//	ahead.go     directories before they are asked for      helper.go   what no request need wait for
//	room.go      room that is given back late
//	file.go      open, read, write                          creds.go    acting for the caller
//	dir.go       create, link                               remove.go   unlink, rmdir, whiteouts
//	keep.go      files without a name
//	rename.go    rename, redirects                          acl.go      default ACLs
//	copy_up.go   copy-up; copy_data.go its data             index.go    hard links over copy-up (index=on)
//	origin.go    inode numbers that stay                    xattrs.go   xattrs, those of nested overlays escaped
//	ioctl.go     file flags                                 passthrough.go  files handed to the kernel
//
// # Locks, in the order in which they are taken
//
//	helper.busy          a round of the helper. Nothing is locked by whoever waits for it.
//	node.mu              copy-up of the node; losing its last name; writing pages back. Two nodes: the lower node id first.
//	  directory.mu       reading the directory's layers; changing names in its upper directory. Two: the lower node id first.
//	    FS.tree          the inode table, names, listings: memory only, never while a system call runs
//	      layers.Cache, opens, perf.Backings, upperLayer.whiteoutMu, helper.mu   leaves
//
// A parent is copied up before its child's lock is taken. No lock is held while the kernel is notified, but those of the
// request itself, which the notification (attributes alone) does not wait for.
//
// The kernel's own locks carry the rest: it sends no two changes of one directory at a time, and none of a name while the
// inode under it is being changed. But a request without a directory's lock, such as GETATTR or READ, may meet a name that
// has just become another file's. It compares inode numbers and tries again (reach.go) rather than hold a lock over I/O.
//
// # Crash safety
//
// What the upper layer shows is changed by one system call at a time: what is built is built in the work directory, synced
// (unless volatile) and renamed into its place, whiteouts come with the rename that needs them. So a file is as it was or as
// it became, and what was left in the work directory is removed at the next mount.
package unionfs
