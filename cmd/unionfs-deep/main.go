// Command unionfs-deep joins any number of read-only layers and, where wanted, one writable layer into one directory tree.
//
// It has three faces, told apart by its name and its first operand:
//
//	unionfs-deep COMMAND ...                   a command, see commands
//	unionfs-deep -o OPTS [SOURCE] MOUNTPOINT   in the place of fuse-overlayfs: always FUSE
//	mount.NAME SOURCE MOUNTPOINT -o OPTS       under mount(8), whose flags then have mount(8)'s meaning
//
// The program only reads the command line, keeps the daemon and shows what it is told; how a union is mounted is
// package overlayfallback's business, and how it is served package unionfs's.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// version is set by the Makefile; a build by `go install` takes it from the module.
var version string

// Exit statuses of every form but mount.NAME.
const (
	exitOK     = 0
	exitFailed = 1 // what was asked for could not be done
	exitUsage  = 2 // the command line is wrong; nothing was tried
)

// Exit statuses of mount.NAME, which mount(8) hands on as its own.
const (
	mountHelperUsage  = 1
	mountHelperFailed = 32
)

// env is what a command may use of its surroundings: the standard streams and a log.
type env struct {
	in       io.Reader
	out, err io.Writer
	log      *slog.Logger
	logTo    *logWriter // where log writes, for a daemon to redirect
}

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// silentError ends the program with its value as exit status when everything has been said already.
type silentError int

func (e silentError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	name := filepath.Base(os.Args[0])
	err := dispatch(ctx, newEnv(os.Stdin, os.Stdout, os.Stderr), name, os.Args[1:])
	if err != nil && !errors.As(err, new(silentError)) {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, oneLine(err))
	}
	os.Exit(exitStatus(name, err))
}

func newEnv(in io.Reader, out, err io.Writer) *env {
	e := &env{in: in, out: out, err: err, logTo: &logWriter{w: err}}
	e.log = slog.New(slog.NewTextHandler(e.logTo, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return e
}

func exitStatus(name string, err error) int {
	var silent silentError
	usage := errors.As(err, &usageError{})
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &silent):
		return int(silent)
	case isMountHelper(name) && usage:
		return mountHelperUsage
	case isMountHelper(name):
		return mountHelperFailed
	case usage:
		return exitUsage
	}
	return exitFailed
}

// oneLine keeps a path with a newline in it from breaking one message into two.
func oneLine(err error) string {
	return strings.NewReplacer("\n", `\n`, "\r", `\r`).Replace(err.Error())
}

func dispatch(ctx context.Context, e *env, name string, args []string) error {
	if isMountHelper(name) {
		return mountHelper(ctx, e, args)
	}
	if len(args) == 0 {
		mainHelp(e.err)
		return usageError{errors.New("no command")}
	}
	if cmd := commandNamed(args[0]); cmd != nil {
		return cmd.execute(ctx, e, args[1:])
	}
	switch args[0] {
	case "help":
		return helpCommand(e, args[1:])
	case "-h", "--help":
		mainHelp(e.out)
		return nil
	case "-V", "--version":
		fmt.Fprintln(e.out, versionLine())
		return nil
	}
	if !namesOptions(args) {
		return usagef("%q is no command and there is no -o OPTIONS: see unionfs-deep --help", args[0])
	}
	return dropIn(ctx, e, args)
}

// namesOptions tells the fuse-overlayfs form from a mistyped command: the one has options, the other does not.
func namesOptions(args []string) bool {
	return slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "-") })
}

func versionLine() string {
	v := version
	if info, ok := debug.ReadBuildInfo(); ok && v == "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("unionfs-deep version %s (%s, %s/%s)", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
