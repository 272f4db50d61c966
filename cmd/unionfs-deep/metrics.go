package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
	"github.com/unionfs-deep/unionfs-deep/perf"
	"github.com/unionfs-deep/unionfs-deep/perf/metrics"
)

// metricsTimeout bounds how long a client of the metrics may take to ask.
const metricsTimeout = 10 * time.Second

// serveMetrics serves the counters of a union until it is unmounted.
func serveMetrics(e *env, address string, mounted *overlayfallback.Mounted) error {
	listener, err := listenAt("tcp", address)
	if err != nil {
		return fmt.Errorf("--metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(func() perf.Snapshot { return mounted.Stats().Requests }))
	server := &http.Server{Handler: mux, ReadTimeout: metricsTimeout}
	go closeWith(mounted, listener)
	go func() {
		if err := server.Serve(listener); !errors.Is(err, net.ErrClosed) {
			e.log.Error("metrics are no longer served", "error", err)
		}
	}()
	return nil
}
