package main

import (
	"net"
	"os"
)

// notifySystemd sends a state such as "READY=1" to the service manager that started us, as sd_notify(3) describes;
// without NOTIFY_SOCKET in the environment it does nothing, as in every daemon (see adoptReadyPipe).
func notifySystemd(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// A name that begins with @ is an abstract one, to systemd as to package net.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
