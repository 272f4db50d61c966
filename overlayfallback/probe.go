package overlayfallback

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ability is the answer to one question about this kernel and this user: found by trying, never by reading a version.
type Ability struct {
	OK  bool   `json:"ok"`
	Why string `json:"why,omitempty"` // what the attempt ended with, if it failed
}

// Capabilities says what this process can do here and now.
type Capabilities struct {
	UserNamespace bool    `json:"user_namespace"`   // in a user namespace other than the first
	MountAPI      Ability `json:"mount_api"`        // fsopen, fsconfig, fsmount
	Overlay       Ability `json:"overlay"`          // kernel overlayfs can be mounted
	LowerPaths    Ability `json:"lowerdir_paths"`   // lowerdir+ takes a path (Linux 6.8)
	LowerFDs      Ability `json:"lowerdir_fds"`     // lowerdir+ takes an O_PATH descriptor (Linux 6.13)
	DataOnly      Ability `json:"data_only"`        // data-only layers without metacopy (Linux 6.16)
	Detached      Ability `json:"detached_layers"`  // a layer may lie on a mount that is in no folder
	OwnThread     Ability `json:"own_thread"`       // a thread may have a working directory of its own
	TrustedXattr  Ability `json:"trusted_xattr"`    // trusted.overlay.* can be set: if not, userxattr is needed
	UserXattr     Ability `json:"user_xattr"`       // overlayfs takes the option userxattr
	Labels        Ability `json:"security_labels"`  // context= is understood
	Device        Ability `json:"fuse_device"`      // /dev/fuse can be opened
	FUSEMount     Ability `json:"fuse_mount"`       // FUSE can be mounted without a helper
	Fusermount    Ability `json:"fusermount"`       // fusermount3, or fusermount, is installed
	Passthrough   Ability `json:"fuse_passthrough"` // the kernel may read backing files itself
	Openat2       Ability `json:"openat2"`          // paths are resolved beneath a folder by the kernel
	Descriptors   int     `json:"max_descriptors"`  // how many files this process may have open (RLIMIT_NOFILE)
}

func ability(err error) Ability {
	if err != nil {
		return Ability{Why: err.Error()}
	}
	return Ability{OK: true}
}

// canFUSE tells whether FUSE can be mounted, by this process or through a helper.
func (c *Capabilities) canFUSE() bool { return c.FUSEMount.OK || c.Fusermount.OK }

// Probe finds out what this process can do. It leaves nothing behind: what it mounts is in no folder, or in a mount namespace
// of its own. It takes some milliseconds; ctx ends it early, the abilities not yet looked at then being absent.
func Probe(ctx context.Context) Capabilities {
	var c Capabilities
	c.UserNamespace = inUserNamespace()
	for _, step := range []func(*Capabilities){probeOverlay, probeThread, probeOpenat2, probeFUSE, probeLabels} {
		if ctx.Err() != nil {
			break
		}
		step(&c)
	}
	return c
}

// inUserNamespace tells whether our users are not simply the machine's.
func inUserNamespace() bool {
	m, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(m)), " ") != "0 0 4294967295"
}

// probeOverlay mounts a tmpfs that is in no folder, and overlays on folders in it, which vanish with it.
func probeOverlay(c *Capabilities) {
	tmpfs, err := detachedMount("tmpfs", 0)
	c.MountAPI = ability(err)
	if err != nil {
		c.Overlay = ability(privateOverlay())
		c.LowerPaths, c.LowerFDs, c.DataOnly, c.Detached = c.MountAPI, c.MountAPI, c.MountAPI, c.MountAPI
		c.UserXattr = c.Overlay
		c.TrustedXattr = Ability{OK: c.Overlay.OK && !c.UserNamespace, Why: c.Overlay.Why}
		return
	}
	defer unix.Close(tmpfs)
	layers, err := trialLayers(tmpfs, "a", "b")
	if err != nil {
		c.Overlay = ability(err)
		return
	}
	defer closeAll(layers)
	a, b := layers[0], layers[1]
	byPath := func(fd int) string { return fmt.Sprintf("/proc/thread-self/fd/%d", fd) }

	c.TrustedXattr = ability(unix.Setxattr(byPath(a), "trusted.overlay.opaque", []byte("y"), 0))
	c.LowerPaths = overlayTakes(keyValue("lowerdir+", byPath(a)), keyValue("lowerdir+", byPath(b)))
	c.LowerFDs = overlayTakes(keyFD("lowerdir+", a), keyFD("lowerdir+", b))
	c.UserXattr = overlayTakes(keyValue("lowerdir", byPath(a)+":"+byPath(b)), setting{key: "userxattr"})
	c.Detached = overlayTakes(keyValue("lowerdir", byPath(a)+":"+byPath(b)))
	c.Overlay = c.Detached
	if !c.Detached.OK {
		c.Overlay = ability(privateOverlay())
	}
	namespaced := []setting{}
	if !c.TrustedXattr.OK {
		namespaced = append(namespaced, setting{key: "userxattr"})
	}
	c.DataOnly = overlayTakes(append(namespaced, keyValue("lowerdir+", byPath(a)), keyValue("datadir+", byPath(b)))...)
}

func overlayTakes(settings ...setting) Ability {
	mount, err := detachedMount("overlay", 0, settings...)
	if err == nil {
		unix.Close(mount)
	}
	return ability(err)
}

// trialLayers makes folders under a descriptor and opens them.
func trialLayers(at int, names ...string) ([]int, error) {
	var fds []int
	for _, n := range names {
		if err := unix.Mkdirat(at, n, 0o755); err != nil {
			return fds, err
		}
		fd, err := unix.Openat(at, n, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// privateOverlay tries mount(2) in a mount namespace of its own, for kernels that have no new mount interface, or whose
// overlayfs takes no layers from a mount that is in no folder.
func privateOverlay() error {
	return privately(func() error {
		tmp := os.TempDir()
		if err := unix.Mount("tmpfs", tmp, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount tmpfs: %w", err)
		}
		if err := unix.Chdir(tmp); err != nil {
			return err
		}
		for _, n := range []string{"a", "b", "m"} {
			if err := unix.Mkdir(n, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount("overlay", "m", "overlay", 0, "lowerdir=a:b"); err != nil {
			return fmt.Errorf("mount overlay: %w", err)
		}
		return nil
	})
}

// privately runs f in a mount namespace that nobody else sees and that ends with it.
func privately(f func() error) error {
	return onOwnThread(unix.CLONE_FS|unix.CLONE_NEWNS, func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		return f()
	})
}

func probeThread(c *Capabilities) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		c.Descriptors = int(min(limit.Cur, math.MaxInt32))
	}
	c.OwnThread = ability(onOwnThread(unix.CLONE_FS, func() error { return unix.Chdir(threadFDs) }))
}

func probeOpenat2(c *Capabilities) {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err == nil {
		unix.Close(fd)
	}
	c.Openat2 = ability(err)
}

// probeLabels asks the security module for the label that every policy has; nothing is mounted.
func probeLabels(c *Capabilities) {
	context, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err == nil {
		err = unix.FsconfigSetString(context, "context", "system_u:object_r:unlabeled_t:s0")
		unix.Close(context)
	}
	c.Labels = ability(err)
}

func probeFUSE(c *Capabilities) {
	_, err := lookFusermount()
	c.Fusermount = ability(err)
	dev, err := openDevice(unix.O_NONBLOCK)
	c.Device = ability(err)
	if err != nil {
		c.FUSEMount, c.Passthrough = c.Device, c.Device
		if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
			c.Fusermount = c.Device // the helper may open the device for us, if there is one
		}
		return
	}
	defer unix.Close(dev)
	mount, err := detachedMount("fuse", 0, fuseSettings(&Config{}, dev)...)
	c.FUSEMount = ability(err)
	if errors.Is(err, unix.ENOSYS) {
		c.FUSEMount = ability(privately(func() error { return mountFUSEBy2(&Config{}, dev, os.TempDir()) }))
	}
	if err != nil {
		c.Passthrough = c.FUSEMount
		return
	}
	defer unix.Close(mount)
	c.Passthrough = ability(tryPassthrough(dev))
}

// fuseDevice is where the kernel's FUSE client is reached.
const fuseDevice = "/dev/fuse"

// openDevice opens the FUSE device. A connection belongs to the user namespace of the process that opened it, and only a mount
// of that namespace takes it.
func openDevice(flags int) (int, error) {
	fd, err := unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", fuseDevice, err)
	}
	return fd, nil
}

// lookFusermount finds the set-user-id helper that mounts FUSE for ordinary users.
func lookFusermount() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", errors.New("neither fusermount3 nor fusermount is in PATH")
}

// From include/uapi/linux/fuse.h.
const (
	fuseInit         = 26
	fuseInitExt      = 1 << 30 // in flags: flags2 is there too
	fusePassthrough2 = 1 << (37 - 32)
	iocBackingOpen   = 0x4010e501 // _IOW(229, 1, struct fuse_backing_map)
)

// tryPassthrough answers the INIT of a fresh connection, asking for passthrough, and registers a file.
func tryPassthrough(dev int) error {
	request := make([]byte, 16<<10)
	n, err := unix.Read(dev, request)
	if err != nil {
		return fmt.Errorf("read INIT: %w", err)
	}
	const headerSize, flags2At = 40, 40 + 16
	order := binary.NativeEndian
	if n < flags2At+4 || order.Uint32(request[4:]) != fuseInit || order.Uint32(request[flags2At:])&fusePassthrough2 == 0 {
		return errors.New("the kernel does not offer it")
	}
	if _, err := unix.Write(dev, initReply(order.Uint64(request[8:]), request[headerSize+4:headerSize+8])); err != nil {
		return fmt.Errorf("answer INIT: %w", err)
	}
	file, err := unix.MemfdCreate("unionfs-deep-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(file)
	backing := struct {
		fd      int32
		flags   uint32
		padding uint64
	}{fd: int32(file)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dev), iocBackingOpen, uintptr(unsafe.Pointer(&backing))); errno != 0 {
		return fmt.Errorf("register a backing file: %w", errno)
	}
	return nil
}

// initReply makes struct fuse_out_header and struct fuse_init_out, in the kernel's own minor version.
func initReply(unique uint64, minor []byte) []byte {
	order := binary.NativeEndian
	b := make([]byte, 0, 80)
	b = order.AppendUint32(b, 80)
	b = order.AppendUint32(b, 0)
	b = order.AppendUint64(b, unique)
	b = order.AppendUint32(b, 7)
	b = append(b, minor...)
	b = order.AppendUint32(b, 0)           // max_readahead
	b = order.AppendUint32(b, fuseInitExt) // flags
	b = order.AppendUint32(b, 0)           // max_background, congestion_threshold
	b = order.AppendUint32(b, 4096)        // max_write
	b = order.AppendUint32(b, 1)           // time_gran
	b = order.AppendUint32(b, 0)           // max_pages, map_alignment
	b = order.AppendUint32(b, fusePassthrough2)
	b = order.AppendUint32(b, 1) // max_stack_depth
	return append(b, make([]byte, 80-len(b))...)
}
