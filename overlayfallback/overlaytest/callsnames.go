package overlaytest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The operations on names and directories.

func callMkdir(e *executor, op Op, _ Node) error { return unix.Mkdir(e.at(op.Path), op.Mode) }

func callMknod(e *executor, op Op, _ Node) error {
	return unix.Mknod(e.at(op.Path), op.Mode, int(op.Off))
}

func callSymlink(e *executor, op Op, _ Node) error { return unix.Symlink(op.Data, e.at(op.Path)) }

func callLink(e *executor, op Op, _ Node) error { return unix.Link(e.at(op.Path), e.at(op.Path2)) }

// callLinkSlot gives an open file, perhaps one made by O_TMPFILE, a name.
func callLinkSlot(e *executor, op Op, _ Node) error {
	from := fmt.Sprintf("/proc/self/fd/%d", e.fd(op))
	return unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, e.at(op.Path), unix.AT_SYMLINK_FOLLOW)
}

func callUnlink(e *executor, op Op, _ Node) error { return unix.Unlink(e.at(op.Path)) }

func callRmdir(e *executor, op Op, _ Node) error { return unix.Rmdir(e.at(op.Path)) }

func callRename(e *executor, op Op, _ Node) error {
	return unix.Renameat2(unix.AT_FDCWD, e.at(op.Path), unix.AT_FDCWD, e.at(op.Path2), uint(op.Flags))
}

func callReaddir(e *executor, op Op, result Node) error {
	fd, err := unix.Open(e.at(op.Path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return list(result, fd)
}

func callFreaddir(e *executor, op Op, result Node) error { return list(result, e.fd(op)) }

func callReadlink(e *executor, op Op, result Node) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(e.at(op.Path), buf)
	if err == nil {
		result["target"] = text(buf[:n])
	}
	return err
}
