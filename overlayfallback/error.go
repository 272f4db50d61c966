package overlayfallback

import (
	"errors"
	"strconv"
	"strings"
)

// Error is the one kind of error that this package returns from its entry points: what was tried, on what, why it failed, and
// what the user can do. errors.Is and errors.As see Err, which wraps the errno of the failing call wherever there is one.
type Error struct {
	Op      string // what was tried: "parse options", "check", "plan", "mount", "remount" or "unmount"
	Source  string // the mount's source, empty where it does not matter
	Target  string // the mount point, empty where it does not matter
	Options string // the option at fault, as written
	Path    string // the file at fault: a layer, the upper or work directory, a program, a device
	Hint    string // what the user can do about it
	Err     error  // the cause
}

// Error gives one line: operation, culprit, cause, what to do. Paths are quoted, so that a newline in one does not break it.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Target != "" {
		b.WriteString(" " + strconv.Quote(e.Target))
	}
	if e.Options != "" {
		b.WriteString(": option " + strconv.Quote(shorten(e.Options)))
	}
	if e.Path != "" {
		b.WriteString(": " + strconv.Quote(e.Path))
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// shorten keeps an option that names thousands of layers from filling the terminal.
func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// fault makes an Error about one path.
func fault(op, path string, err error, hint string) *Error {
	return &Error{Op: op, Path: path, Err: err, Hint: hint}
}

// about fills in the mount that an error belongs to, where it does not say so itself.
func about(c *Config, err error) error {
	var e *Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	if e.Target == "" {
		e.Target = c.Target
	}
	if e.Source == "" {
		e.Source = c.Source
	}
	return err
}
