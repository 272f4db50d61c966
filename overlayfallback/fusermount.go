package overlayfallback

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fusermount has fusermount3, which is set-user-id, mount a FUSE connection for an ordinary user, and returns its descriptor.
// It comes back over the socket that the environment names (libfuse's mount_util protocol).
func fusermount(ctx context.Context, c *Config) (int, error) {
	program, err := lookFusermount()
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "fusermount")
	cmd := exec.CommandContext(ctx, program, "-o", strings.Join(helperWords(c), ","), "--", c.Target)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3") // the first of ExtraFiles
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.CombinedOutput()
	theirs.Close()
	if err != nil {
		return -1, said(program, out, err)
	}
	return receive(pair[0])
}

// helperWords are the options for fusermount3, which knows those of FUSE and the flags of mount(8).
func helperWords(c *Config) []string {
	source := strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(c.source())
	words := append(c.Options.flagWords(), "fsname="+source, "subtype="+subtype, "default_permissions")
	if c.Options.AllowOther {
		words = append(words, "allow_other")
	}
	if c.Options.MaxRead > 0 {
		words = append(words, "max_read="+strconv.FormatUint(uint64(c.Options.MaxRead), 10))
	}
	return words
}

// receive takes the descriptor that fusermount3 has sent.
func receive(socket int) (int, error) {
	data, control := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("receive the FUSE connection: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) == 0 {
		return -1, errors.New("fusermount3 has mounted, but sent no connection")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.New("fusermount3 has mounted, but sent no connection")
	}
	return fds[0], nil
}

// fuserUnmount has fusermount3 unmount for an ordinary user. Of the flags of umount2(2) it knows MNT_DETACH, and it never follows a
// link.
func fuserUnmount(ctx context.Context, target string, flags int) error {
	program, err := lookFusermount()
	if err != nil {
		return err
	}
	words := []string{"-u", "--", target}
	if flags&unix.MNT_DETACH != 0 {
		words = slices.Insert(words, 1, "-z")
	}
	if out, err := exec.CommandContext(ctx, program, words...).CombinedOutput(); err != nil {
		return said(program, out, err)
	}
	return nil
}

// said gives a helper's failure in its own words, with the errno that they name.
func said(program string, out []byte, err error) error {
	text := strings.Join(strings.Fields(string(out)), " ")
	if text == "" {
		return fmt.Errorf("%s: %w", program, err)
	}
	for _, errno := range []unix.Errno{unix.EACCES, unix.EPERM, unix.EBUSY, unix.ENOENT, unix.ENODEV} {
		if strings.Contains(strings.ToLower(text), errno.Error()) {
			return fmt.Errorf("%s%w", text, silent{errno})
		}
	}
	return errors.New(text)
}
