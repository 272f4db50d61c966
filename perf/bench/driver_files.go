package bench

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// readBuffer is larger than any small file, in bytes: a file costs open, two reads (the second finds the end) and close, as
// it does for cat.
const readBuffer = 64 << 10

// readFiles reads each of the files below root whole, beginning with the one numbered first.
func readFiles(ctx context.Context, root int, files []*byte, first int) error {
	p := pace{ctx: ctx}
	buf := make([]byte, readBuffer)
	for i := range files {
		name := files[(first+i)%len(files)]
		if err := readFile(root, name, buf); err != nil {
			return fmt.Errorf("read %s: %w", unix.BytePtrToString(name), err)
		}
		if err := p.step(); err != nil {
			return err
		}
	}
	return nil
}

func readFile(root int, name *byte, buf []byte) error {
	fd, err := rawOpen(root, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer rawClose(fd)
	for {
		n, err := rawRead(fd, buf)
		if n == 0 || err != nil {
			return err
		}
	}
}

// createFiles makes each of the files below root, with the given content.
func createFiles(ctx context.Context, root int, files []*byte, content []byte) error {
	return eachFile(ctx, "create", files, func(name *byte) error {
		fd, err := rawOpen(root, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		defer rawClose(fd)
		_, err = rawWrite(fd, content)
		return err
	})
}

// unlinkFiles removes each of the files below root.
func unlinkFiles(ctx context.Context, root int, files []*byte) error {
	return eachFile(ctx, "unlink", files, func(name *byte) error { return rawUnlink(root, name) })
}

// chmodFiles gives each of the files below root the mode.
func chmodFiles(ctx context.Context, root int, files []*byte, mode uint32) error {
	return eachFile(ctx, "chmod", files, func(name *byte) error { return rawChmod(root, name, mode) })
}

// statFiles stats each of the files below root.
func statFiles(ctx context.Context, root int, files []*byte) error {
	var st unix.Statx_t
	return eachFile(ctx, "statx", files, func(name *byte) error { return rawStat(root, name, &st) })
}

func eachFile(ctx context.Context, op string, files []*byte, f func(name *byte) error) error {
	p := pace{ctx: ctx}
	for _, name := range files {
		if err := f(name); err != nil {
			return fmt.Errorf("%s %s: %w", op, unix.BytePtrToString(name), err)
		}
		if err := p.step(); err != nil {
			return err
		}
	}
	return nil
}
