package overlayfallback

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// setting is one parameter of a file system that is being configured: a string, a descriptor (isFD), or a bare flag.
type setting struct {
	key   string
	value string
	fd    int
	isFD  bool
}

func keyValue(key, value string) setting { return setting{key: key, value: value} }

func keyFD(key string, fd int) setting { return setting{key: key, fd: fd, isFD: true} }

// apply hands the setting to fsconfig(2).
func (s setting) apply(context int) error {
	switch {
	case s.isFD:
		return unix.FsconfigSetFd(context, s.key, s.fd)
	case s.value != "":
		return unix.FsconfigSetString(context, s.key, s.value)
	}
	return unix.FsconfigSetFlag(context, s.key)
}

// detachedMount makes a mount that is in no folder, by fsopen(2), fsconfig(2) and fsmount(2), and returns its descriptor. The
// mount lives as long as that is open, or until attach gives it a place. flags are those of mount(2).
func detachedMount(fsType string, flags uintptr, settings ...setting) (int, error) {
	context, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", fsType, err)
	}
	defer unix.Close(context)
	for _, s := range settings {
		if err := s.apply(context); err != nil {
			return -1, fmt.Errorf("fsconfig %s: %w", s.key, explained(context, err))
		}
	}
	return finishMount(context, flags)
}

// finishMount makes the mount of a file system whose own settings have all been given.
func finishMount(context int, flags uintptr) (int, error) {
	for _, s := range superSettings(flags) {
		if err := s.apply(context); err != nil {
			return -1, fmt.Errorf("fsconfig %s: %w", s.key, explained(context, err))
		}
	}
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, fmt.Errorf("fsconfig create: %w", explained(context, err))
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, mountAttributes(flags))
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", explained(context, err))
	}
	return mount, nil
}

// superSettings gives those of mount(2)'s flags that belong to the file system rather than to its place.
func superSettings(flags uintptr) []setting {
	var all []setting
	for _, f := range []flagWord{{unix.MS_RDONLY, "ro"}, {unix.MS_SYNCHRONOUS, "sync"}, {unix.MS_DIRSYNC, "dirsync"}, {unix.MS_LAZYTIME, "lazytime"}} {
		if flags&f.flag != 0 {
			all = append(all, setting{key: f.name})
		}
	}
	return all
}

// mountAttributes gives those of mount(2)'s flags that belong to the mount's place, as fsmount(2) knows them.
func mountAttributes(flags uintptr) int {
	attributes := 0
	for _, a := range []struct {
		flag      uintptr
		attribute int
	}{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY}, {unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID}, {unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
		{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC}, {unix.MS_NOATIME, unix.MOUNT_ATTR_NOATIME},
		{unix.MS_STRICTATIME, unix.MOUNT_ATTR_STRICTATIME}, {unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME},
		{unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW},
	} {
		if flags&a.flag != 0 {
			attributes |= a.attribute
		}
	}
	return attributes
}

// explained adds what the kernel said about a failure to it: a context keeps messages until they are read.
func explained(context int, err error) error {
	var said []string
	buf := make([]byte, 1024)
	for {
		n, e := unix.Read(context, buf)
		if e != nil || n <= 0 {
			break
		}
		// Each message begins with its weight: e, w or i, and a space.
		_, message, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
		said = append(said, message)
	}
	if len(said) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(said, "; "))
}

// attach gives a detached mount its place in the folder that target is a descriptor of.
func attach(mount, target int) error {
	err := unix.MoveMount(mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}
