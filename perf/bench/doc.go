// Package bench does the same work on several mounts side by side and says how they compare.
//
// # The model
//
// A Subject is something that can show a stack of layers as one tree: a plain directory that holds the merged tree
// (native), kernel overlayfs, each route and fast path profile of unionfs-deep, and the other FUSE unions that are
// installed. A Work is something to do in such a tree, such as a stat walk; it yields one or more Figures, each a
// number with a unit. A Target is a bound that a figure has to keep, mostly as a ratio to another subject.
//
// Run goes through the works and depths. For each it makes `Runs` rounds, and in each round every subject gets a mount of
// its own, freshly made, with an empty upper directory: so subjects are interleaved in time, a slow minute of the machine
// meets all of them, and nothing that one round left in a cache helps the next. The order of the subjects turns by one
// with each round. Medians are compared, and the spread (least and greatest) is shown with them.
//
// # What is warm and what is cold
//
// All layers are read once before anything is measured, so that their file system's own caches are warm for everyone;
// "cold" means that the mount is new: the union's own tables, and its dentries, inodes and pages, are empty. The one
// figure that reads from the disk drops the pages of its file with POSIX_FADV_DONTNEED, and checks with cachestat(2) that
// they are gone. That touches no other process's cache, and needs no privilege.
//
// # Honest numbers
//
// Every FUSE server runs as a process of its own, in the foreground below this one. The driver makes its system calls
// without the Go scheduler in between (see driver.go), on as many threads as the work says. Only the work is timed, not
// the mount. A daemon's CPU time is its process clock (clock_gettime), its memory VmRSS, its requests what it counts
// itself, where it does.
//
// A subject that is not installed, cannot take so many layers, or cannot do the work is left out with a message. A work
// gets a time budget for each subject and depth (Config.Limit): a run that exceeds it is cut and stands as a lower bound.
package bench
