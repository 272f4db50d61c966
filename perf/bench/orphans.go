package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// adoptOrphans makes daemons that a mount command leaves behind children of this process, so that none can be lost.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_CHILD_SUBREAPER: %w", err)
	}
	return nil
}

// reapOrphans waits until all adopted daemons have ended, and kills what is left after within. It must be called only while
// this process has no child that someone else waits for.
func reapOrphans(within time.Duration) error {
	deadline := time.Now().Add(within)
	var killed []int
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case err == unix.ECHILD && len(killed) > 0:
			return fmt.Errorf("processes %v had to be killed after their unmount", killed)
		case err == unix.ECHILD:
			return nil
		case err == nil && pid == 0 && time.Now().After(deadline) && len(killed) == 0:
			killed = children()
			for _, child := range killed {
				_ = unix.Kill(child, unix.SIGKILL)
			}
		case pid == 0:
			time.Sleep(time.Millisecond)
		}
	}
}

// children returns the processes whose parent this one is.
func children() []int {
	var out []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue
		}
		// The program's name, in parentheses, may hold anything; the fields begin after the last one.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			out = append(out, pid)
		}
	}
	return out
}
