// Package perf is the fast path between the kernel and a FUSE file system: the request loop on /dev/fuse, the cache
// profiles, the backing files of passthrough, and the counters that show what still reached the daemon. It knows nothing
// of unions.
//
// # The request loop
//
// What a FUSE request costs is mostly waking: the daemon on an idle processor, then the client on another. So a Conn
// keeps the reading awake for a moment after each reply, and keeps it on one thread:
//
//	          turn to read (one of them at a time)
//	               |
//	loop 1 ---- read, handle, reply, wait actively, read, handle ........ handler is slow
//	loop 2 ---- parked ------------------------------------------------- read, handle, reply ...
//	                                                                     ^
//	monitor --- sleeps while there are requests, parked while idle ------+ hands the turn on
//
// The parts, and what holds for them:
//
//   - A loop is a goroutine locked to an OS thread of its own, with its own buffers. Exactly one loop has the turn to
//     read. It handles what it reads itself, so that a short request wakes nobody.
//   - A handler that has not returned after one to two ticks of the monitor loses the turn to another loop: no request,
//     and no INTERRUPT, waits behind a slow one. The loop that lost it finishes its request.
//   - Where several clients are at work and requests of a kind have lately been slow, as with a layer on a cold disk, the
//     turn is handed on before such a request is handled. A loop without the turn goes on with what is there to be read
//     before it parks, so that several loops stay at work without being woken for each request.
//   - After a reply the reader tries non-blocking reads, yielding the processor between them, before it sleeps in poll(2).
//     See waiter for when it does and when it stops.
//   - All loops use one descriptor. The kernel takes the answer to a request only on the descriptor that read it, and
//     re-queues an interrupt that came too early only there too.
//
// # Notifications
//
// InvalInode, InvalEntry and Delete make the kernel forget what it has cached. They may be called from any goroutine, but
// the kernel takes locks of its own before it answers (fuse_reverse_inval_inode and fuse_reverse_inval_entry in fs/fuse),
// which it also holds while it waits for the answers to certain requests. So the caller must hold no lock that a handler
// may want, and
//
//   - InvalEntry and Delete lock the parent directory (Delete the child as well): never call them in the handler of a
//     LOOKUP, READDIR or change of an entry in that directory, nor let its answer wait for them.
//   - InvalInode with an offset of 0 or more waits for the pages in its range: never call it in the handler of a READ or
//     WRITE of that inode, nor of a request before which the kernel flushes it. With a negative offset it only makes the
//     attributes stale and waits for nothing.
//
// In doubt call them in a goroutine of its own after the answer. What the kernel does not know needs no forgetting: its
// ENOENT is no error.
//
// # Lock order
//
// crew.mu guards the turn and the list of parked loops, Backings.mu the registered files. Neither is held while another
// lock of this package is taken, nor while a handler, a ThreadInit or a system call runs. door.mu is held for reading
// during notifications and ioctls.
package perf
