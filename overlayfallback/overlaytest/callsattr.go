package overlaytest

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The operations on attributes and xattrs.

func callStat(e *executor, op Op, result Node) error {
	return e.setStat(result, unix.AT_FDCWD, e.at(op.Path), 0)
}

func callLstat(e *executor, op Op, result Node) error {
	return e.setStat(result, unix.AT_FDCWD, e.at(op.Path), unix.AT_SYMLINK_NOFOLLOW)
}

func callFstat(e *executor, op Op, result Node) error {
	return e.setStat(result, e.fd(op), "", unix.AT_EMPTY_PATH)
}

func callAccess(e *executor, op Op, _ Node) error {
	return unix.Faccessat2(unix.AT_FDCWD, e.at(op.Path), uint32(op.Flags), unix.AT_EACCESS)
}

func callChmod(e *executor, op Op, _ Node) error { return unix.Chmod(e.at(op.Path), op.Mode) }

func callFchmod(e *executor, op Op, _ Node) error { return unix.Fchmod(e.fd(op), op.Mode) }

func callLchown(e *executor, op Op, _ Node) error {
	var st unix.Stat_t
	_, err := GetXattr(e.at(op.Path), capabilityXattr)
	if err == nil && unix.Lstat(e.at(op.Path), &st) == nil && op.toNobody(st.Mode) {
		return nil
	}
	return unix.Lchown(e.at(op.Path), op.UID, op.GID)
}

func callFchown(e *executor, op Op, _ Node) error {
	var st unix.Stat_t
	_, err := unix.Fgetxattr(e.fd(op), capabilityXattr, nil)
	if err == nil && unix.Fstat(e.fd(op), &st) == nil && op.toNobody(st.Mode) {
		return nil
	}
	return unix.Fchown(e.fd(op), op.UID, op.GID)
}

const capabilityXattr = "security.capability"

// toNobody tells a chown that names no owner, by root or of a file that its mode may let others write to. Of a file with capabilities
// it is left out: it is a listed difference (TestListed/chown_to_nobody_with_capabilities, chown_to_nobody_of_a_writable_file).
func (op Op) toNobody(mode uint32) bool {
	return op.UID == -1 && op.GID == -1 && (!op.User || mode&(unix.S_IWGRP|unix.S_IWOTH) != 0)
}

func callUtimens(e *executor, op Op, _ Node) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, e.at(op.Path), op.Times[:], unix.AT_SYMLINK_NOFOLLOW)
}

func callFutimens(e *executor, op Op, _ Node) error { return futimens(e.fd(op), op.Times) }

func callSetxattr(e *executor, op Op, _ Node) error {
	return unix.Lsetxattr(e.at(op.Path), op.Name, []byte(op.Data), op.Flags)
}

func callFsetxattr(e *executor, op Op, _ Node) error {
	return unix.Fsetxattr(e.fd(op), op.Name, []byte(op.Data), op.Flags)
}

func callGetxattr(e *executor, op Op, result Node) error {
	v, err := GetXattr(e.at(op.Path), op.Name)
	if err == nil {
		result["value"] = text(v)
	}
	return err
}

func callListxattr(e *executor, op Op, result Node) error {
	names, err := ListXattrs(e.at(op.Path))
	slices.Sort(names)
	result["names"] = strings.Join(names, " ")
	return err
}

func callRemovexattr(e *executor, op Op, _ Node) error {
	return unix.Lremovexattr(e.at(op.Path), op.Name)
}
