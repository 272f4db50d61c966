// Package overlayfallback mounts a union of any number of layers: by kernel overlayfs wherever that can do the job, and by
// the FUSE union of package unionfs where it cannot. It takes an ordinary overlay mount (type, source, options), or a Config,
// and needs no change on the caller's side.
//
// # Routes
//
//	route    layers     daemon  when it fits
//	overlay  500        no      kernel overlayfs can be mounted here and understands the layers
//	stacked  999 - D    no      likewise, and a layer may lie on a mount that is in no folder; D data-only layers
//	fuse     any        yes     /dev/fuse can be opened and mounted, by this process or through fusermount3
//
// Auto takes the first that fits, in this order, and the Plan holds the reason for each one that was passed over. What fits is
// found in three steps. Probe finds out what the machine and the user can do, by doing it on mounts that nobody sees. inspect
// opens each layer once, refuses what is wrong whatever the route, and gathers facts. choose, a pure function of the two, plans.
// A route that looks as if it fits and then fails gives way to the next one.
//
// What makes the planner pass over the kernel: more layers than it takes; AUFS whiteouts (`.wh.` names) in the layers, for
// which the topmost folders are searched (2,048 of them, so a layer whose only such name lies deep is not recognised: the option
// aufs=on is for that); a layer inside another; a file system that overlayfs does not stack on; options that it refuses in a
// user namespace.
//
// # How the kernel is told
//
// mount(2) takes a page of options. The ways to name the layers in it are tried in this order:
//
//	absolute  as the caller named them, if that fits in 4,095 bytes
//	relative  relative to a folder that they have in common
//	fd        by the numbers of O_PATH descriptors, relative to /proc/thread-self/fd: about 4 bytes a layer
//	fsconfig  not in a page at all, but one by one, by fsconfig(2)'s lowerdir+ (Linux 6.8)
//
// For the relative ones the working directory has to change, and it is the whole process's. So the mount is made on an OS
// thread that has unshared its working directory and ends afterwards. No program is started again, and nobody else ever sees
// another directory. Paths are never cleaned as text: l/ID/../diff goes through the symbolic link l/ID.
//
// A read-only union of a single layer, which overlayfs refuses, gets an empty second one. A read-only mount that names an upper
// layer takes that as the topmost lower one and leaves the work directory alone, which overlayfs would write to.
//
// # Stacked
//
// The lowest layers, up to 500, become a read-only overlay that is in no folder, and that overlay the lowest layer of another.
// It lives as long as the outer mount and leaves nothing behind. Only the lowest may be folded: a whiteout in a folded upper
// group would be lost. Both mounts hold all data-only layers, since a file in either may have its data there. Three differences
// from one overlay remain. Files of the folded layers get another inode number when they are copied up, unless
// redirect_dir=nofollow or userxattr holds (then the inner mount gives file handles); index and nfs_export need that too. xino
// is on unless it is set, lest the mount show several device numbers. And an overlay's own xattr that a folded layer holds in
// escaped form (overlay.overlay.whiteout, for an overlay nested in a layer) is unescaped once too often.
//
// # FUSE
//
// The union is served by goroutines of the process that calls Mount; unionfs-deep's own daemon is a process that does only
// that. The mount gets its place in the tree when it has answered, so that nobody sees one that does not, and goes when the
// server ends. A process should not keep files open in a mount that it serves itself: if it is killed, the kernel waits for
// it to answer the close, which nobody can undo but by /sys/fs/fuse/connections/N/abort.
//
// # What is refused
//
// Everything that is wrong is an *Error before anything is changed on disk: it names the culprit and says what to do. An upper
// layer in use is refused on every route. The kernel itself is asked about its own mounts, in whichever namespace they are, by
// an overlay mount with index=on that cannot come about (which leaves a line in the kernel's log); our own servers hold a lock
// on their work directory. A mount point may be a layer, or hold layers, for these are reached by descriptors taken before; it
// may not lie in a layer. A second union on the mount point of another is refused, while mounting over anything else is as
// ordinary as with mount(8).
package overlayfallback
