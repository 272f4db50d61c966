package perf

import (
	"fmt"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// The request kinds, by the numbers of enum fuse_opcode in include/uapi/linux/fuse.h, that the loop itself knows.
const (
	opLookup      = 1
	opForget      = 2
	opGetAttr     = 3
	opSetAttr     = 4
	opMknod       = 8
	opUnlink      = 10
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opGetXAttr    = 22
	opListXAttr   = 23
	opInit        = 26
	opReadDir     = 28
	opCreate      = 35
	opInterrupt   = 36
	opIoctl       = 39
	opNotifyReply = 41
	opBatchForget = 42
	opReadDirPlus = 44
)

// minReadBuffer is FUSE_MIN_READ_BUFFER: the kernel refuses a read into less.
const minReadBuffer = 8192

// replySlack is more than the fixed part of any reply.
const replySlack = 1024

var opcodeNames = [...]string{
	1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 4: "SETATTR", 5: "READLINK", 6: "SYMLINK", 8: "MKNOD", 9: "MKDIR", 10: "UNLINK",
	11: "RMDIR", 12: "RENAME", 13: "LINK", 14: "OPEN", 15: "READ", 16: "WRITE", 17: "STATFS", 18: "RELEASE", 20: "FSYNC",
	21: "SETXATTR", 22: "GETXATTR", 23: "LISTXATTR", 24: "REMOVEXATTR", 25: "FLUSH", 26: "INIT", 27: "OPENDIR", 28: "READDIR",
	29: "RELEASEDIR", 30: "FSYNCDIR", 31: "GETLK", 32: "SETLK", 33: "SETLKW", 34: "ACCESS", 35: "CREATE", 36: "INTERRUPT",
	37: "BMAP", 38: "DESTROY", 39: "IOCTL", 40: "POLL", 41: "NOTIFY_REPLY", 42: "BATCH_FORGET", 43: "FALLOCATE",
	44: "READDIRPLUS", 45: "RENAME2", 46: "LSEEK", 47: "COPY_FILE_RANGE", 48: "SETUPMAPPING", 49: "REMOVEMAPPING",
	50: "SYNCFS", 51: "TMPFILE", 52: "STATX", 53: "COPY_FILE_RANGE_64",
}

// opcodeName returns the kernel's name for a request kind, without "FUSE_".
func opcodeName(opcode uint32) string {
	if int(opcode) < len(opcodeNames) && opcodeNames[opcode] != "" {
		return opcodeNames[opcode]
	}
	return fmt.Sprintf("OPCODE_%d", opcode)
}

func wantsReply(opcode uint32) bool {
	switch opcode {
	case opForget, opBatchForget, opNotifyReply, opInterrupt:
		return false
	}
	return true
}

// replyRoom returns the bytes that the largest reply to a request takes. The request must be whole, as the kernel sends it.
func replyRoom(in *fuse.InHeader) int {
	body := unsafe.Pointer(in)
	switch in.Opcode {
	case opRead, opReadDir, opReadDirPlus:
		return replySlack + int((*fuse.ReadIn)(body).Size)
	case opGetXAttr, opListXAttr:
		return replySlack + int((*fuse.GetXAttrIn)(body).Size)
	case opIoctl:
		return replySlack + int((*fuse.IoctlIn)(body).OutSize)
	}
	return replySlack
}
