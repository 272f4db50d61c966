package metrics

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/perf"
)

func TestHandler(t *testing.T) {
	server := httptest.NewServer(Handler(func() perf.Snapshot {
		return perf.Snapshot{
			Requests: map[string]perf.RequestCount{"LOOKUP": {Count: 7, Errors: 2}},
			BytesIn:  100,
			Loop:     perf.LoopCount{ActiveHits: 5},
			Values: []perf.ValueCount{
				{Name: "copy_ups", Help: "Files copied up.", Cumulative: true, Value: 3},
				{Name: "nodes", Help: "Nodes held.", Value: 11},
			},
		}
	}))
	defer server.Close()
	answer, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`unionfs_requests_total{kind="LOOKUP"} 7`,
		`unionfs_request_errors_total{kind="LOOKUP"} 2`,
		"unionfs_received_bytes_total 100",
		`unionfs_waits_total{kind="active_hit"} 5`,
		"# TYPE unionfs_copy_ups_total counter",
		"unionfs_copy_ups_total 3",
		"# TYPE unionfs_nodes gauge",
		"unionfs_nodes 11",
	} {
		if !strings.Contains(string(body), line+"\n") {
			t.Errorf("no line %q in\n%s", line, body)
		}
	}
}

func TestInvalidName(t *testing.T) {
	server := httptest.NewServer(Handler(func() perf.Snapshot {
		return perf.Snapshot{Values: []perf.ValueCount{{Name: "bad\xff", Value: 1}}}
	}))
	defer server.Close()
	answer, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 500 {
		t.Errorf("status %d for a name that is not allowed, want 500", answer.StatusCode)
	}
}
