package main

import (
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

// serveMetrics serves the counters of a union until the process ends.
func serveMetrics(e *env, address string, mounted *overlayfallback.Mounted) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("--metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(func() perf.Snapshot { return mounted.Stats().Requests }))
	server := &http.Server{Handler: mux, ReadTimeout: metricsTimeout}
	go func() { e.log.Error("metrics are no longer served", "error", server.Serve(listener)) }()
	return nil
}
