package overlayfallback

import (
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// naming is held while layers are named by descriptors, so that many mounts at once take no more of them than one.
var naming sync.Mutex

// mountOverlay makes a kernel overlay, named as the plan says.
func mountOverlay(c *Config, p *Plan) error {
	return withTarget(c, func(target int) error {
		switch p.Naming {
		case FSConfig:
			return overlayByFSConfig(c, target)
		case Absolute:
			return mountBy2(c, target, c.stack().optionString(kernelWords(c.Options)))
		case Descriptor:
			naming.Lock()
			defer naming.Unlock()
		}
		// The names are relative to a folder that a thread of its own goes to: the caller's working directory stays.
		return onOwnThread(unix.CLONE_FS, func() error {
			options, close, err := nameIt(c, p.Naming)
			defer close()
			if err != nil {
				return err
			}
			return mountBy2(c, target, options)
		})
	})
}

// withTarget runs f with a descriptor of the mount point.
func withTarget(c *Config, f func(target int) error) error {
	if c.MountPoint != nil {
		return f(int(c.MountPoint.Fd()))
	}
	target, err := openFolder(c.Target)
	if err != nil {
		return fmt.Errorf("mount point: %w", err)
	}
	defer unix.Close(target)
	return f(target)
}

// nameIt changes to the folder that the layers' names are to be relative to, and gives the options for mount(2). close lets go of the descriptors that are named.
func nameIt(c *Config, n Naming) (options string, close func(), err error) {
	named, fds := c.stack(), []int{}
	close = func() { closeAll(fds) }
	switch n {
	case Relative:
		var folder string
		folder, named = named.relativeTo()
		err = unix.Chdir(folder)
	case Descriptor:
		named, err = named.each(func(path string) (string, error) {
			fd, err := openFolder(path)
			if err != nil {
				return "", fmt.Errorf("%q: %w", path, err)
			}
			fds = append(fds, fd)
			return strconv.Itoa(fd), nil
		})
		if err == nil {
			err = unix.Chdir(threadFDs)
		}
	}
	return named.optionString(kernelWords(c.Options)), close, err
}

// mountBy2 calls mount(2). The mount point is named by its descriptor: it was resolved once, and the working directory may
// have changed since.
func mountBy2(c *Config, target int, options string) error {
	at := threadFDs + "/" + strconv.Itoa(target)
	if err := unix.Mount(c.source(), at, "overlay", c.Options.mountFlags(), options); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}

// overlayByFSConfig hands over the layers by descriptor, one by one.
func overlayByFSConfig(c *Config, target int) error {
	mount, err := detachedOverlay(c, c.stack(), c.Options)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	return attach(mount, target)
}

// detachedOverlay makes a kernel overlay that is in no folder. inner, if given, is a detached mount that becomes the lowest
// lower layer. overlayfs makes no read-only union of a single layer: that one gets an empty one below it, on a mount that is
// in no folder either and lives as long as the overlay does.
func detachedOverlay(c *Config, s stack, o Options, inner ...int) (int, error) {
	if s.upper == "" && len(s.lower)+len(s.data)+len(inner) < 2 {
		empty, err := detachedMount("tmpfs", 0, keyValue("size", "4k"))
		if err != nil {
			return -1, fmt.Errorf("empty layer: %w", err)
		}
		defer unix.Close(empty)
		inner = append(inner, empty)
	}
	context, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(context)
	if err := addStack(context, s, inner); err != nil {
		return -1, err
	}
	for _, setting := range append(kernelSettings(o), keyValue("source", c.source())) {
		if err := setting.apply(context); err != nil {
			return -1, fmt.Errorf("fsconfig %s: %w", setting.key, explained(context, err))
		}
	}
	return finishMount(context, o.mountFlags())
}

// addStack hands over the layers from the topmost down, data-only ones last.
func addStack(context int, s stack, inner []int) error {
	if err := addLayers(context, "lowerdir+", s.lower...); err != nil {
		return err
	}
	for _, mount := range inner {
		if err := addLayer(context, "lowerdir+", mount); err != nil {
			return fmt.Errorf("inner mount: %w", explained(context, err))
		}
	}
	if err := addLayers(context, "datadir+", s.data...); err != nil || s.upper == "" {
		return err
	}
	return firstError(addLayers(context, "upperdir", s.upper), addLayers(context, "workdir", s.work))
}

// addLayers hands over folders, each open no longer than that takes: with 500 of them RLIMIT_NOFILE would be in sight.
func addLayers(context int, key string, paths ...string) error {
	for _, p := range paths {
		fd, err := openFolder(p)
		if err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
		err = addLayer(context, key, fd)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("fsconfig %s %q: %w", key, p, explained(context, err))
		}
	}
	return nil
}

// addLayer hands over a folder by descriptor, or, before Linux 6.13, by the descriptor's name.
func addLayer(context int, key string, fd int) error {
	err := unix.FsconfigSetFd(context, key, fd)
	if err != nil {
		return unix.FsconfigSetString(context, key, threadFDs+"/"+strconv.Itoa(fd))
	}
	return nil
}

// source is what the mount shows as its source.
func (c *Config) source() string {
	if c.Source == "" {
		return "overlay"
	}
	return c.Source
}
