package main

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestListenAtAwaitsItsPredecessor(t *testing.T) {
	address := controlAddress(t.Name())
	first, err := listenAt("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { first.Close() })
	second, err := listenAt("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := listenAt("unix", address); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%v; want EADDRINUSE, and soon", err)
	}
}
