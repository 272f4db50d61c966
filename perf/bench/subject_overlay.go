package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOverlayLayers is OVL_MAX_STACK, the number of lower layers that one kernel overlay mount takes.
const maxOverlayLayers = 500

// kernelOverlay is kernel overlayfs, mounted by this process through the new mount API, which has no page limit. It is what
// the others are compared to.
type kernelOverlay struct{ userXattr bool }

func (kernelOverlay) Name() string { return Overlayfs }

func (kernelOverlay) Version(context.Context) (string, error) { return kernelRelease() }

func kernelRelease() (string, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return "", err
	}
	return "Linux " + unix.ByteSliceToString(uts.Release[:]), nil
}

func (kernelOverlay) Able(r *Request) error {
	if r.Set.Depth > maxOverlayLayers {
		return fmt.Errorf("kernel overlayfs takes at most %d layers", maxOverlayLayers)
	}
	if r.Uncached {
		return errors.New("kernel overlayfs sends no requests")
	}
	return nil
}

func (o kernelOverlay) Mount(_ context.Context, r *Request) (*Mount, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	if err := o.configure(fs, r); err != nil {
		return nil, fmt.Errorf("kernel overlay: %w%s", err, kernelLog(fs))
	}
	flags := 0
	if r.Upper == "" {
		flags = unix.MOUNT_ATTR_RDONLY
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, flags)
	if err != nil {
		return nil, fmt.Errorf("fsmount overlay: %w", err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, r.Target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("move_mount %s: %w", r.Target, err)
	}
	return &Mount{Root: r.Target, target: r.Target}, nil
}

// configure sets the options one by one. Layers go in topmost first, in the order in which lowerdir+ takes them.
func (o kernelOverlay) configure(fs int, r *Request) error {
	for _, layer := range r.Set.paths() {
		if err := unix.FsconfigSetString(fs, "lowerdir+", layer); err != nil {
			return fmt.Errorf("lowerdir+=%s: %w", layer, err)
		}
	}
	if r.Upper != "" {
		if err := unix.FsconfigSetString(fs, "upperdir", r.Upper); err != nil {
			return fmt.Errorf("upperdir=%s: %w", r.Upper, err)
		}
		if err := unix.FsconfigSetString(fs, "workdir", r.Work); err != nil {
			return fmt.Errorf("workdir=%s: %w", r.Work, err)
		}
	}
	if r.Volatile && r.Upper != "" {
		if err := unix.FsconfigSetFlag(fs, "volatile"); err != nil {
			return fmt.Errorf("volatile: %w", err)
		}
	}
	if o.userXattr {
		if err := unix.FsconfigSetFlag(fs, "userxattr"); err != nil {
			return fmt.Errorf("userxattr: %w", err)
		}
	}
	return unix.FsconfigCreate(fs)
}

// kernelLog returns what the kernel says about the failure of a mount that is being configured.
func kernelLog(fs int) string {
	var out strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fs, buf)
		if n <= 0 || err != nil {
			return out.String()
		}
		out.WriteString(": " + strings.TrimSpace(string(buf[:n])))
	}
}
