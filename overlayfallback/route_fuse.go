package overlayfallback

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs"
)

// server is a FUSE union that is being served by this process.
type server struct {
	union *unionfs.FS
	at    *os.File      // the mount point as it was before, to reach layers that lie on it
	dev   *os.File      // the connection; nil before it is served
	ended chan struct{} // closed when serving has ended and everything is let go
	err   error         // why serving ended; valid once ended is closed
}

// mountFUSE serves the union and mounts it. It returns once the mount answers; on failure no mount is left.
func mountFUSE(ctx context.Context, c *Config, p *Plan) (*server, error) {
	at, err := mountPoint(c)
	if err != nil {
		return nil, err
	}
	s := &server{at: at, ended: make(chan struct{})}
	if at == c.MountPoint {
		s.at = nil // the caller's, who closes it
	}
	if s.union, err = newUnion(c, p, at); err != nil {
		return nil, errors.Join(err, s.letGo())
	}
	mounted := *c
	mounted.Options.ReadOnly = p.ReadOnly // the kernel refuses writes without asking the union
	if err := s.connect(ctx, &mounted, at); err != nil {
		return nil, err
	}
	return s, nil
}

// letGo closes all but the connection.
func (s *server) letGo() error {
	var err error
	if s.union != nil {
		err = s.union.Close()
	}
	if s.at != nil {
		s.at.Close()
	}
	return err
}

// mountPoint opens the folder to mount on; there is none if a connection is served that is mounted already.
func mountPoint(c *Config) (*os.File, error) {
	if _, served := servedDescriptor(c.Target); served || c.MountPoint != nil {
		return c.MountPoint, nil
	}
	fd, err := openFolder(c.Target)
	if err != nil {
		return nil, fmt.Errorf("mount point: %w", err)
	}
	return os.NewFile(uintptr(fd), c.Target), nil
}

// connect brings the union and the kernel together in the way that the user's rights allow. On failure the server has ended.
func (s *server) connect(ctx context.Context, c *Config, at *os.File) error {
	if fd, served := servedDescriptor(c.Target); served {
		connection := connectionOf(os.Getpid(), strconv.Itoa(fd))
		s.serve(fd)
		return s.settleServed(ctx, connection)
	}
	err := s.connectSelf(ctx, c, at)
	if s.dev == nil && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) {
		err = s.connectHelped(ctx, c)
	}
	if err != nil && s.dev == nil {
		err = errors.Join(err, s.letGo())
	}
	return err
}

// serve starts answering the requests of a mounted connection.
func (s *server) serve(dev int) {
	s.dev = os.NewFile(uintptr(dev), fuseDevice)
	go func() {
		defer close(s.ended)
		s.err = s.union.Serve(s.dev)
		// All else is let go before the descriptor closes: whoever waits for that may use the folders at once.
		s.err = errors.Join(s.err, s.letGo())
		s.dev.Close()
	}()
}

// connectSelf mounts without a helper. The mount gets its place only when it has answered, so nobody ever sees one that does
// not; and if it never does, closing its descriptor ends it, and with it the server.
func (s *server) connectSelf(ctx context.Context, c *Config, at *os.File) error {
	target := int(at.Fd())
	dev, err := openDevice(0)
	if err != nil {
		return err
	}
	mount, err := detachedMount("fuse", c.Options.mountFlags(), fuseSettings(c, dev)...)
	switch {
	case errors.Is(err, unix.ENOSYS):
		return s.connectBy2(ctx, c, dev, threadFDs+"/"+strconv.Itoa(target))
	case err != nil:
		unix.Close(dev)
		return err
	}
	s.serve(dev)
	if err = s.awaitReady(ctx); err == nil {
		err = s.answers(ctx, threadFDs+"/"+strconv.Itoa(mount))
	}
	if err == nil {
		err = attach(mount, target)
	}
	unix.Close(mount)
	if err != nil {
		<-s.ended
	}
	return err
}

// connectBy2 mounts by mount(2), where there is no new mount interface: in its place first, served then.
func (s *server) connectBy2(ctx context.Context, c *Config, dev int, target string) error {
	if err := mountFUSEBy2(c, dev, target); err != nil {
		unix.Close(dev)
		return err
	}
	s.serve(dev)
	return s.settleOr(ctx, c, func() error { return unix.Unmount(c.Target, unix.MNT_DETACH) })
}

// mountFUSEBy2 calls mount(2) with the settings that the new mount interface would get.
func mountFUSEBy2(c *Config, dev int, target string) error {
	var options []string
	for _, s := range fuseSettings(c, dev) {
		switch {
		case s.key == "source" || s.key == "subtype":
		case s.value == "":
			options = append(options, s.key)
		default:
			options = append(options, s.key+"="+s.value)
		}
	}
	if err := unix.Mount(c.source(), target, FSType, c.Options.mountFlags(), strings.Join(options, ",")); err != nil {
		return fmt.Errorf("mount %s: %w", FSType, err)
	}
	return nil
}

// settleOr waits until a mount that is in its place answers, and undoes it if it does not.
func (s *server) settleOr(ctx context.Context, c *Config, undo func() error) error {
	err := s.awaitReady(ctx)
	if err == nil {
		err = s.answers(ctx, c.Target)
	}
	if err != nil {
		err = errors.Join(err, undo())
		<-s.ended
	}
	return err
}

// settleServed waits until a connection that someone else has mounted is ready, and settles the mount where this process sees it.
// Before Linux 6.16 nothing says which mount that is.
func (s *server) settleServed(ctx context.Context, connection string) error {
	if err := s.awaitReady(ctx); err != nil {
		return err
	}
	if m, found := mountOfConnection(connection); found {
		_ = s.answers(ctx, m.Point) // it may be another user's alone: then this process cannot open files there either
	}
	return ctx.Err()
}

// fuseSettings are the FUSE client's own options. The kernel checks all access by the modes that the union shows. Without
// allow_other nobody but the mounter could enter, unlike in a kernel overlay; who may mount by itself may let others in.
func fuseSettings(c *Config, dev int) []setting {
	all := []setting{
		keyValue("source", c.source()), keyValue("subtype", subtype), keyValue("fd", strconv.Itoa(dev)), keyValue("rootmode", "40000"),
		keyValue("user_id", strconv.Itoa(os.Getuid())), keyValue("group_id", strconv.Itoa(os.Getgid())),
		{key: "default_permissions"}, {key: "allow_other"},
	}
	if c.Options.MaxRead > 0 {
		all = append(all, keyValue("max_read", strconv.FormatUint(uint64(c.Options.MaxRead), 10)))
	}
	for _, l := range c.Options.Labels {
		all = append(all, keyValue(l.Name, l.Value))
	}
	return all
}

// connectHelped mounts through fusermount3, which gives back the connection it has mounted.
func (s *server) connectHelped(ctx context.Context, c *Config) error {
	dev, err := fusermount(ctx, c)
	if err != nil {
		return err
	}
	s.serve(dev)
	return s.settleOr(ctx, c, func() error { return fuserUnmount(context.WithoutCancel(ctx), c.Target, 0) })
}

// awaitReady waits until the union has agreed with the kernel on how to talk.
func (s *server) awaitReady(ctx context.Context) error {
	select {
	case <-s.union.Ready():
		return nil
	case <-s.ended:
		return firstError(s.err, errors.New("the FUSE connection ended before it was ready"))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answerTime is how long a union may take for its first answer.
const answerTime = 20 * time.Second

// answers asks a mount for its state and its root folder, as its first user will, and has the kernel learn what it must know
// before a program that serves the mount itself opens a file in it.
func (s *server) answers(ctx context.Context, path string) error {
	return within(ctx, func() error {
		var fs unix.Statfs_t
		var st unix.Stat_t
		return firstError(unix.Statfs(path, &fs), unix.Stat(path, &st), s.union.SettlePoll(path))
	})
}

// within gives up on a call that may hang in the kernel. The call itself ends when the mount does.
func within(ctx context.Context, call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("the mount does not answer: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(answerTime):
		return fmt.Errorf("the mount does not answer: %w", unix.ETIMEDOUT)
	}
}
