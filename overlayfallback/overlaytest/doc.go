// Package overlaytest is the one suite that judges every way of mounting a union. Kernel overlayfs is its oracle: whatever
// is asked of a route is asked of a kernel mount of the same layers first, and the route has to give the same answer. A case
// that kernel overlayfs cannot mount judges nobody.
//
// # Concepts
//
//   - A [Set] describes layers as data: a list of layers, each a list of entries. It can be drawn at random from a seed
//     ([Generate]), built on disk ([Set.Build]), printed as a shell script that makes the same layers ([Set.Script]) and cut
//     down to the part that matters ([Shrink]).
//   - A [Route] names a way to mount: "kernel" is the oracle; "overlay", "stacked" and "fuse" are overlayfallback's; options
//     for the route alone follow a comma ("fuse,fastpath=off"); "program=PATH" runs a fuse-overlayfs kind of program.
//   - [Mount] mounts a built set by a route and undoes it at the end of the test, whatever the server does meanwhile. A FUSE
//     route is served by a process of its own (the test binary again, see [Main]), so that it can be killed, and so that
//     a fault of the server cannot hang the test's own garbage collector.
//   - [Snap] records all that a program can see of a tree; [Compare] lists what differs. [SnapUpper] does so for an upper
//     directory, with what cannot be equal (handles, temporary numbers) made so.
//   - A [Case] is a small program with observations; [RunCases] runs it on the kernel, then on each route, compares the
//     observations, the whole tree, the upper directory, and then both uppers mounted the other way about.
//   - A [Program] is a list of [Op]s, drawn at random from a seed, that [Differential] runs on two mounts in lock step.
//   - [Differences] is the short list of what may differ, each by its entry in docs/differences.md.
//
// # Who runs where
//
// Everything needs root, /dev/fuse and kernel overlayfs with trusted xattrs; a missing oracle is a failure, never a skip.
// Operations run on OS threads of their own ([Actor]), because umask, fsuid, fsgid and groups belong to the thread.
package overlaytest
