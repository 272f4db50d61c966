// Package perf is the fast path between the kernel and a FUSE file system: the request loop on /dev/fuse, the cache
// profiles, the backing files of passthrough, and the counters that show what still reached the daemon. It knows nothing
// of unions.
//
// # The request loop
//
// What a FUSE request costs is mostly waking: the daemon on an idle processor, then the client on another. So a Conn
// serves each client on the client's own processor, where the two take turns, by as few threads as there are busy clients:
//
//	           reads (mostly one of them)
//	               |
//	loop 1 ---- read, handle, reply, read, handle ............ handler is slow
//	loop 2 ---- parked -------------------------------------- read, handle, reply ...
//	                                                          ^
//	monitor --- sleeps while there are requests, parked ------+ hands the reading on
//
// The parts, and what holds for them:
//
//   - A loop is a goroutine locked to an OS thread of its own, with its own buffers. Those that read are its readers: one,
//     or more while clients are at work on several processors. A loop handles what it reads itself, so that a short request
//     wakes nobody.
//   - A reader looks now and then on which processor its client runs, and invites a loop to read there. See beside.
//   - A reader beside its client, and the last reader, sleeps in read(2) when there is nothing to read. Others stop reading
//     then. A request never wakes two.
//   - A handler that has not returned after one to two ticks of the monitor loses the reading to another loop: no request,
//     and no INTERRUPT, waits behind a slow one. The loop that lost it finishes its request.
//   - Where several clients are at work and requests of a kind have lately been slow, as with a layer on a cold disk, the
//     reading is handed on before such a request is handled. A loop that does not read any more goes on with what is there
//     to be read before it parks, so that several loops stay at work without being woken for each request.
//   - All loops use the same two descriptors, one to sleep on and one to try on. The kernel takes the answer to a request only
//     on the descriptor that read it, and re-queues an interrupt that came too early only there too.
//   - An INTERRUPT is held back until the signal that it stands for kills its receiver. See holdBack.
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
// crew.mu guards the lists of readers and of parked loops, Backings.mu the registered files. Neither is held while another
// lock of this package is taken, nor while a handler, a ThreadInit or a system call runs. door.mu is held for reading
// during notifications and ioctls.
package perf
