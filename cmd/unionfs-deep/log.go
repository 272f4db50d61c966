package main

import (
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"sync"

	"github.com/spf13/pflag"
)

// logFlags are the flags of every command that concern the log.
type logFlags struct {
	level, format string
}

func declareLogFlags(flags *pflag.FlagSet) *logFlags {
	var l logFlags
	flags.StringVar(&l.level, "log-level", "warn", "write log records of at least this `LEVEL`: debug, info, warn, error")
	flags.StringVar(&l.format, "log-format", "text", "write log records as `FORMAT`: text, json")
	return &l
}

// apply gives the environment the log that the flags ask for.
func (l *logFlags) apply(e *env) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return usagef("--log-level %q: use debug, info, warn or error", l.level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch l.format {
	case "text":
		e.log = slog.New(slog.NewTextHandler(e.logTo, options))
	case "json":
		e.log = slog.New(slog.NewJSONHandler(e.logTo, options))
	default:
		return usagef("--log-format %q: use text or json", l.format)
	}
	return nil
}

// logWriter is where log records go. It starts as standard error; a daemon moves it elsewhere before it gives standard
// error back to its caller.
type logWriter struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

func (l *logWriter) Write(record []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(record)
}

func (l *logWriter) redirect(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w = w
}

// openDaemonLog returns where a daemon logs: the file where one is named, else syslog, else nowhere, since a machine
// without syslog is no reason to refuse a mount.
func openDaemonLog(file string) (io.Writer, error) {
	if file != "" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("--log-file: %w", err)
		}
		return f, nil
	}
	w, err := syslog.New(syslog.LOG_NOTICE|syslog.LOG_DAEMON, "unionfs-deep")
	if err != nil {
		return io.Discard, nil
	}
	return w, nil
}
