package overlaytest

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// mountKernel makes the oracle: fsopen, one fsconfig a layer, fsmount, move_mount. It shares no code with the product on
// purpose, and has no limit on the length of the options.
func mountKernel(l Layout, target string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	if err := configure(fs, l); err != nil {
		return err
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount: %w%s", err, kernelLog(fs))
	}
	defer unix.Close(mnt)
	return unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// configure hands the layout to the file system context fs and creates the superblock.
func configure(fs int, l Layout) error {
	type setting struct{ key, value string }
	var all []setting
	for _, d := range l.Lower {
		all = append(all, setting{"lowerdir+", d})
	}
	for _, d := range l.Data {
		all = append(all, setting{"datadir+", d})
	}
	if l.Upper != "" {
		all = append(all, setting{"upperdir", l.Upper}, setting{"workdir", l.Work})
	}
	for _, o := range l.Options {
		k, v, _ := strings.Cut(o, "=")
		all = append(all, setting{k, v})
	}
	for _, s := range all {
		if err := set(fs, s.key, s.value); err != nil {
			return fmt.Errorf("fsconfig %s=%s: %w%s", s.key, s.value, err, kernelLog(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("fsconfig create: %w%s", err, kernelLog(fs))
	}
	return nil
}

// set sets one option; a word without a value is a flag.
func set(fs int, key, value string) error {
	if value == "" {
		return unix.FsconfigSetFlag(fs, key)
	}
	return unix.FsconfigSetString(fs, key, value)
}

// kernelLog returns what the kernel has to say about the context, in brackets.
func kernelLog(fs int) string {
	buf := make([]byte, 4096)
	n, err := unix.Read(fs, buf)
	if err != nil || n <= 0 {
		return ""
	}
	return " (" + strings.TrimSpace(string(buf[:n])) + ")"
}
