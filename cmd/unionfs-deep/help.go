package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

func helpCommand(e *env, args []string) error {
	if len(args) == 0 {
		mainHelp(e.out)
		return nil
	}
	c := commandNamed(args[0])
	if c == nil {
		return usagef("help: there is no command %q: see unionfs-deep --help", args[0])
	}
	c.help(e.out)
	return nil
}

func mainHelp(w io.Writer) {
	fmt.Fprint(w, mainSynopsis)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(table, "  %s\t%s\n", c.name, c.summary)
	}
	table.Flush()
	fmt.Fprint(w, mainDetails)
}

const mainSynopsis = `Usage: unionfs-deep COMMAND [FLAGS] [OPERANDS]
       unionfs-deep -o OPTS [SOURCE] MOUNTPOINT

Joins any number of read-only layers and, where wanted, one writable layer into
one directory tree, as overlayfs does: by the kernel where that can do it, and
by FUSE where it cannot.

Commands (unionfs-deep COMMAND --help has the details):
`

const mainDetails = `
Without a command it takes the place of fuse-overlayfs, as a mount program of
Podman or Docker: it mounts by FUSE always, honours .wh. files in layers, and
passes over options that it does not know with a warning. Flags of this form:
  -o OPTS   mount options, comma-separated; may be given again
  -f        stay in the foreground
  -d        stay in the foreground and log everything
  -s        accepted for compatibility
Under a name that begins with "mount." it is a helper of mount(8), and -f means
to mount nothing, as it does there.

Options:
` + optionsHelp + `
Examples:
  unionfs-deep mount -o lowerdir=/layers/2:/layers/1 /merged
  unionfs-deep mount -o lowerdir=/layers/1,upperdir=/up,workdir=/work /merged
  unionfs-deep mount --layers-file layers.txt /merged
  unionfs-deep umount /merged
  mount -t unionfs-deep overlay /merged -o lowerdir=/layers/2:/layers/1

Exit status:
  0    done; of a mount: the union answers
  1    it could not be done; one line on standard error says why
  2    the command line or an option is wrong; nothing was tried
  1, 32  under mount(8): the command line is wrong; it could not be done

Environment:
  NOTIFY_SOCKET   a mount in the foreground tells systemd here that it is ready

Files:
  /dev/fuse            opened by the fuse route
  /etc/fuse.conf       user_allow_other there lets users give -o allow_other
  fusermount3          mounts where this user may not
`

// optionsHelp is shown by the program's help and by that of mount.
const optionsHelp = `  lowerdir=A:B:C          read-only layers, the topmost first; A:B::D makes D a
                          data-only layer
  lowerdir+=A             one more read-only layer below those named so far
  datadir+=D              one more data-only layer
  upperdir=U,workdir=W    the writable layer, and an empty directory on the same
                          file system; without them the union is read-only
  ro                      write nothing, not even to the upper directory
  redirect_dir=on|follow|nofollow|off, metacopy=on|off, index=on|off,
  xino=on|auto|off, nfs_export=on|off, uuid=on|auto|null|off,
  verity=on|require|off, userxattr, volatile
                          as in the kernel's documentation of overlayfs
  context=LABEL           and fscontext, defcontext, rootcontext: SELinux labels
  nosuid, nodev, noexec, noatime, private, shared, ...
                          as for every mount, see mount(8)
  route=ROUTE             as --route of the command mount
  aufs=auto|on|off        whether .wh. files in lower layers are whiteouts
of the fuse route alone:
  fastpath=auto|cache|passthrough|off
                          how much the kernel answers by itself; off sends the
                          daemon one message an operation
  timeout=SECONDS         how long the kernel may keep names and attributes; 0 is
                          not at all, and without it until they change
  writeback               let the kernel gather writes
  allow_other             let other users in (where fusermount3 mounts)
  max_read=BYTES          the most that one read may ask for
  fsname=SOURCE           what the list of mounts shows as the source
In a path write \: for a colon, \, for a comma and \\ for a backslash. A file of
layers (--layers-file) needs no such thing.
`
