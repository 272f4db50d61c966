package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"
)

// fioJob is one run of fio on one file.
type fioJob struct {
	File   string
	Mode   string // "read", "randread", "write"
	Engine string // "psync", "mmap"
	Block  string // bytes in one call, as fio writes it: "128k"
	MiB    int
	Loops  int // passes over the file
}

// run returns how long one pass took by fio's own clock, which leaves out starting it.
func (j fioJob) run(ctx context.Context) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "fio", "--name=bench", "--thread", "--output-format=json", "--filename="+j.File,
		"--rw="+j.Mode, "--ioengine="+j.Engine, "--bs="+j.Block, fmt.Sprintf("--size=%dm", j.MiB),
		fmt.Sprintf("--loops=%d", max(1, j.Loops)), "--invalidate=0", "--fallocate=none", "--create_on_open=1")
	var stderr tail
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("fio %s: %w%s", j.Mode, err, stderr.text())
	}
	return j.parse(out)
}

type fioSide struct {
	Bytes   int64   `json:"io_bytes"`
	Runtime float64 `json:"runtime"` // in milliseconds
}

func (j fioJob) parse(out []byte) (time.Duration, error) {
	var report struct {
		Jobs []struct {
			Read  fioSide `json:"read"`
			Write fioSide `json:"write"`
		} `json:"jobs"`
	}
	// fio writes its warnings before the JSON.
	if at := bytes.IndexByte(out, '{'); at > 0 {
		out = out[at:]
	}
	if err := json.Unmarshal(out, &report); err != nil || len(report.Jobs) != 1 {
		return 0, fmt.Errorf("fio's report of one job is not understood: %w", err)
	}
	side := report.Jobs[0].Read
	if j.Mode == "write" {
		side = report.Jobs[0].Write
	}
	if side.Bytes == 0 {
		return 0, fmt.Errorf("fio moved no bytes of %s", j.File)
	}
	passes := float64(side.Bytes) / float64(j.MiB<<20)
	return time.Duration(side.Runtime / passes * float64(time.Millisecond)), nil
}
