package perf

import (
	"bytes"
	"strconv"
	"syscall"
	"unsafe"
)

// threadStat reads a number of what the kernel tells of a thread in its stat file, by the number that proc_pid_stat(5) gives it,
// from 3 on. It reports false where that is not to be known. It is made of bare system calls, since a loop waits for it.
func threadStat(thread uint32, field int) (int64, bool) {
	var path [32]byte
	name := append(strconv.AppendUint(append(path[:0], "/proc/"...), uint64(thread), 10), "/stat\x00"...)
	fd, _, errno := syscall.Syscall6(syscall.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(&name[0])), syscall.O_RDONLY|syscall.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return 0, false
	}
	defer syscall.Close(int(fd))
	var buf [1024]byte
	n, err := syscall.Read(int(fd), buf[:])
	if err != nil {
		return 0, false
	}
	return parseStat(buf[:n], field)
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
