package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// keepBusy gives every processor something to do, until the function that it returns is called.
func keepBusy(ctx context.Context) func() {
	var all []*exec.Cmd
	for range runtime.NumCPU() {
		cmd := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if cmd.Start() == nil {
			all = append(all, cmd)
		}
	}
	return func() {
		for _, cmd := range all {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
}

// anyProcessor leaves a thread where it is.
func anyProcessor() func() { return func() {} }

// onFirstProcessor calls f while all threads of a process are confined to the first processor.
func onFirstProcessor(pid int, f func(first unix.CPUSet) error) error {
	var first unix.CPUSet
	first.Set(0)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, task := range tasks {
		if tid, err := strconv.Atoi(task.Name()); err == nil {
			defer confine(tid, first)()
		}
	}
	return f(first)
}

// confine confines a thread, 0 for the calling one, to processors, and returns what undoes it.
func confine(tid int, to unix.CPUSet) func() {
	var before unix.CPUSet
	if unix.SchedGetaffinity(tid, &before) != nil || unix.SchedSetaffinity(tid, &to) != nil {
		return func() {}
	}
	return func() { _ = unix.SchedSetaffinity(tid, &before) }
}
