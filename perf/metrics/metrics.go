// Package metrics shows the counters of a FUSE connection in the Prometheus text format, for those who run many mounts.
// It is apart from package perf so that only a program that serves metrics links Prometheus's library.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/unionfs-deep/unionfs-deep/perf"
)

// prefix begins the name of each metric.
const prefix = "unionfs_"

var (
	requests = describe("requests_total", "Requests that reached the daemon, by kind.", "kind")
	failures = describe("request_errors_total", "Requests answered with an error (missing names included), by kind.", "kind")
	bytesIn  = describe("received_bytes_total", "Bytes of requests read from /dev/fuse.")
	bytesOut = describe("sent_bytes_total", "Bytes of replies written to /dev/fuse.")
	waits    = describe("waits_total", "How requests were waited for: active_hit, active_miss or sleep.", "kind")
	handover = describe("handovers_total", "Slow requests, beside which another thread took over the reading.")
	panics   = describe("panics_total", "Request handlers that panicked.")
	notices  = describe("notifications_total", "Invalidations sent to the kernel.")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prefix+name, help, labels, nil)
}

// collector makes metrics of a Snapshot.
type collector struct {
	snapshot func() perf.Snapshot
}

// NewCollector returns a Collector whose metrics are read by snapshot, which is called once for each scrape. A value that
// the file system has added appears as unionfs_NAME, or unionfs_NAME_total if it is cumulative.
func NewCollector(snapshot func() perf.Snapshot) prometheus.Collector {
	return collector{snapshot}
}

// Handler returns an HTTP handler that shows the metrics of snapshot and nothing else.
func Handler(snapshot func() perf.Snapshot) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(NewCollector(snapshot))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// Describe sends nothing, which tells a registry that the metrics depend on what the file system counts.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of one snapshot.
func (c collector) Collect(to chan<- prometheus.Metric) {
	s := c.snapshot()
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for kind, r := range s.Requests {
		count(requests, r.Count, kind)
		count(failures, r.Errors, kind)
	}
	count(bytesIn, s.BytesIn)
	count(bytesOut, s.BytesOut)
	count(waits, s.Loop.ActiveHits, "active_hit")
	count(waits, s.Loop.ActiveMisses, "active_miss")
	count(waits, s.Loop.Sleeps, "sleep")
	count(handover, s.Loop.Handovers)
	count(panics, s.Loop.Panics)
	count(notices, s.Loop.Notifications)
	for _, v := range s.Values {
		to <- valueMetric(v)
	}
}

// valueMetric is one figure of the file system. A name that Prometheus does not allow shows as an error in the scrape.
func valueMetric(v perf.ValueCount) prometheus.Metric {
	name, kind := v.Name, prometheus.GaugeValue
	if v.Cumulative {
		name, kind = v.Name+"_total", prometheus.CounterValue
	}
	m, err := prometheus.NewConstMetric(describe(name, v.Help), kind, float64(v.Value))
	if err != nil {
		return prometheus.NewInvalidMetric(describe("invalid", "A value with a name that is not allowed."), err)
	}
	return m
}
