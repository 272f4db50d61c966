package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// A daemon answers `inspect` on an abstract socket that is named after the device number of its union: found from the mount
// alone, gone with the daemon, and no file that could be left behind. Anybody may bind and connect to such a name, so each
// side asks the kernel who the other one is.

// controlTimeout bounds an inspection, so that neither side waits for a peer that hangs.
const controlTimeout = 5 * time.Second

func controlAddress(device string) string { return "@unionfs-deep/" + device }

// question is what inspect sends: one JSON object.
type question struct {
	// Path is asked about: relative to the root of the union, empty for none.
	Path string `json:"path"`
}

// listenAt takes an address over from a daemon whose union was just unmounted: the kernel gives its device number to the next one
// at once, and who mounts anew gives the same address for the metrics.
func listenAt(network, address string) (net.Listener, error) {
	const handover = time.Second // a moment does, but no stranger who holds the address may hold up the mount
	for deadline := time.Now().Add(handover); ; time.Sleep(5 * time.Millisecond) {
		listener, err := net.Listen(network, address)
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(deadline) {
			return listener, err
		}
	}
}

// closeWith gives a listener up as soon as the union is unmounted, before what was written is synced.
func closeWith(mounted *overlayfallback.Mounted, listener net.Listener) {
	<-mounted.Unmounted()
	listener.Close()
}

// serveInspection answers questions about a union until it is unmounted.
func serveInspection(e *env, cfg *overlayfallback.Config, mounted *overlayfallback.Mounted) error {
	entry, err := overlayfallback.MountAt(cfg.Target)
	if err != nil {
		return err
	}
	listener, err := listenAt("unix", controlAddress(entry.Device))
	if err != nil {
		return err
	}
	go closeWith(mounted, listener)
	go func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				e.log.Error("inspect no longer works", "error", err)
				return
			}
			go func() {
				defer conn.Close()
				if err := answer(conn.(*net.UnixConn), cfg, mounted); err != nil {
					e.log.Warn("inspection failed", "error", err)
				}
			}()
		}
	}()
	return nil
}

func answer(conn *net.UnixConn, cfg *overlayfallback.Config, mounted *overlayfallback.Mounted) error {
	if err := requirePeer(conn, 0, os.Geteuid()); err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(controlTimeout))
	var q question
	if err := json.NewDecoder(conn).Decode(&q); err != nil {
		return err
	}
	return json.NewEncoder(conn).Encode(inspectServed(cfg, mounted, q.Path))
}

// ask puts a question to the daemon that serves the union with the given device number. The daemon has to belong to root,
// to this user or to owner, the user who made the mount.
func ask(device string, owner int, q question) (inspection, error) {
	var reply inspection
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: controlAddress(device), Net: "unix"})
	if err != nil {
		return reply, fmt.Errorf("its daemon does not answer: %w", err)
	}
	defer conn.Close()
	if err := requirePeer(conn, 0, os.Geteuid(), owner); err != nil {
		return reply, err
	}
	conn.SetDeadline(time.Now().Add(controlTimeout))
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return reply, err
	}
	err = json.NewDecoder(conn).Decode(&reply)
	return reply, err
}

var errStranger = errors.New("another user is at the other end of the socket")

// requirePeer fails unless the process at the other end runs as one of the users.
func requirePeer(conn *net.UnixConn, users ...int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var failure error
	err = raw.Control(func(fd uintptr) {
		peer, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failure); err != nil {
		return err
	}
	if !slices.Contains(users, int(peer.Uid)) {
		return fmt.Errorf("user %d: %w", peer.Uid, errStranger)
	}
	return nil
}
