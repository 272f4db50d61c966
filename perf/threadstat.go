package perf

import (
	"bytes"
	"strconv"
	"syscall"
	"unsafe"
)

// statFile is the stat file of the thread that was asked about last, kept open: opening it takes as long as reading it. The zero
// value is ready. It is read by bare system calls, since a loop waits for it.
type statFile struct {
	thread uint32 // 0: none is open
	fd     int
}

// read reads a number of what the kernel tells of a thread, by the number that proc_pid_stat(5) gives it, from 3 on. It reports
// false where that is not to be known.
func (f *statFile) read(thread uint32, field int) (int64, bool) {
	if thread == 0 || thread != f.thread && !f.open(thread) {
		return 0, false // 0 is a thread of another PID namespace
	}
	var buf [1024]byte
	n, err := syscall.Pread(f.fd, buf[:], 0)
	if err != nil { // the thread has ended, and its number may be another's by now
		f.close()
		return 0, false
	}
	return parseStat(buf[:n], field)
}

func (f *statFile) open(thread uint32) bool {
	f.close()
	var path [32]byte
	name := append(strconv.AppendUint(append(path[:0], "/proc/"...), uint64(thread), 10), "/stat\x00"...)
	fd, _, errno := syscall.Syscall6(syscall.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(&name[0])), syscall.O_RDONLY|syscall.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return false
	}
	f.thread, f.fd = thread, int(fd)
	return true
}

func (f *statFile) close() {
	if f.thread != 0 {
		syscall.Close(f.fd)
	}
	*f = statFile{}
}

// parseStat finds a field in a stat file, whose second one, in parentheses, may hold anything.
func parseStat(stat []byte, field int) (int64, bool) {
	const afterName = 3
	rest := stat[bytes.LastIndexByte(stat, ')')+1:]
	for i := afterName; ; i++ {
		rest = bytes.TrimLeft(rest, " ")
		word, more, found := bytes.Cut(rest, []byte(" "))
		if i == field {
			n, err := strconv.ParseInt(string(word), 10, 64)
			return n, err == nil
		}
		if !found {
			return 0, false
		}
		rest = more
	}
}
