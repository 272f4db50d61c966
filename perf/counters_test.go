package perf

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestCounters(t *testing.T) {
	m := mountMemFS(t, Config{})
	copies := int64(3)
	m.conn.Counters().Add(Value{Name: "copy_ups", Help: "Files copied up.", Cumulative: true, Read: func() int64 { return copies }})
	m.conn.Counters().Add(Value{Name: "copy_ups", Help: "Files copied up.", Cumulative: true, Read: func() int64 { return copies + 1 }})
	before := m.conn.Counters().Snapshot()
	for range 10 {
		if _, err := os.Stat(m.path("f")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(m.path("nothing")); err == nil {
			t.Fatal("a missing name was found")
		}
	}
	s := m.conn.Counters().Snapshot()
	lookups, old := s.Requests["LOOKUP"], before.Requests["LOOKUP"]
	if n := lookups.Count - old.Count; n != 20 {
		t.Errorf("%d look-ups counted, want 20", n)
	}
	if n := lookups.Errors - old.Errors; n != 10 {
		t.Errorf("%d failed look-ups counted, want 10", n)
	}
	if s.Requests["INIT"].Count != 1 || s.Total <= before.Total || s.BytesIn <= before.BytesIn || s.BytesOut <= before.BytesOut {
		t.Errorf("implausible counters: %+v", s)
	}
	if len(s.Values) != 1 || s.Values[0].Value != 4 {
		t.Errorf("values %+v, want one of 4", s.Values)
	}
}

func TestSnapshotRendering(t *testing.T) {
	s := Snapshot{
		Total: 5, Errors: 1,
		Requests: map[string]RequestCount{"GETATTR": {Count: 1}, "LOOKUP": {Count: 4, Errors: 1}},
		Values:   []ValueCount{{Name: "nodes", Value: 2}},
	}
	if got, want := s.String(), "requests=5 errors=1 LOOKUP=4(1 failed) GETATTR=1 bytes_in=0"; !strings.HasPrefix(got, want) {
		t.Errorf("text %q does not begin with %q", got, want)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"LOOKUP":{"count":4,"errors":1}`, `"values":[{"name":"nodes","value":2}]`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("JSON %s lacks %s", text, part)
		}
	}
}

func TestOpcodeNames(t *testing.T) {
	for opcode, name := range map[uint32]string{1: "LOOKUP", 44: "READDIRPLUS", 51: "TMPFILE", 7: "OPCODE_7", 4096: "OPCODE_4096"} {
		if got := opcodeName(opcode); got != name {
			t.Errorf("opcode %d is %s, want %s", opcode, got, name)
		}
	}
}
