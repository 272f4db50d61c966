package overlaytest

import (
	"context"
	"log/slog"
	"os"
	"strings"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// mountProduct mounts a job by the code under test.
func mountProduct(ctx context.Context, j job) (*overlayfallback.Mounted, error) {
	c := overlayfallback.Config{
		Source: "overlay", Target: j.Target, Route: overlayfallback.Route(j.Route.Name()),
		Lower: j.Layout.Lower, Data: j.Layout.Data, Upper: j.Layout.Upper, Work: j.Layout.Work,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	c.Options.AUFS = "off" // to the oracle .wh. names are names like any other
	for _, o := range append(append([]string{}, j.Layout.Options...), j.Route.Options()...) {
		if err := c.Set(strings.ReplaceAll(o, ",", `\,`)); err != nil {
			return nil, err
		}
	}
	return overlayfallback.Mount(ctx, c)
}
