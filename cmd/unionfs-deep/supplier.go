package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// supplier says which layers a name of a union comes from.
type supplier struct {
	Path  string   `json:"path"`            // relative to the union's root, which is "."
	Type  string   `json:"type"`            // file, directory, symlink or special
	Layer string   `json:"layer"`           // the topmost layer that has the name
	Merge []string `json:"merge,omitempty"` // of a directory: the layers merged below that one, the topmost first
	Data  string   `json:"data,omitempty"`  // of a file with its content in another layer than its metadata: that layer
}

// lookupDescriptors is how many descriptors a look-up for inspect may keep open.
const lookupDescriptors = 16

// findSupplier looks a path up in the layers, as the union does but beside it, so that it works for each route and asks no
// daemon that may hang. name is slash-separated and relative to the union's root.
func findSupplier(cfg *overlayfallback.Config, name string) (*supplier, error) {
	stack, err := layers.Open(stackConfig(cfg))
	if err != nil {
		return nil, err
	}
	defer stack.Close()
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	found := &layers.Found{Mode: unix.S_IFDIR, Places: stack.Roots()}
	for component := range strings.SplitSeq(name, "/") {
		if component == "" {
			break // the root itself
		}
		dir := &layers.Dir{Places: found.Places, Origin: found.Origin}
		if found, err = stack.Lookup(dir, component, everywhere(dir)); err != nil {
			return nil, fmt.Errorf("look up %q: %w", name, err)
		}
	}
	return describeSupplier(name, found), nil
}

// stackConfig takes the upper layer for the topmost of the lower ones: to a look-up they are the same.
func stackConfig(cfg *overlayfallback.Config) layers.Config {
	c := layers.Config{
		Lower: slices.Clone(cfg.Lower), Data: cfg.Data, MountPoint: cfg.MountPoint, Descriptors: lookupDescriptors,
		Namespace: whiteout.Trusted, AUFS: cfg.Options.AUFS == "on", Metacopy: true,
		Redirect: cfg.Options.RedirectDir != "off" && cfg.Options.RedirectDir != "nofollow",
	}
	if cfg.Upper != "" {
		c.Lower = slices.Insert(c.Lower, 0, cfg.Upper)
	}
	if cfg.Options.UserXattr {
		c.Namespace = whiteout.User
	}
	return c
}

// everywhere are the candidates of a look-up that no merge has narrowed down.
func everywhere(dir *layers.Dir) layers.Candidates {
	all := layers.Candidates{Places: make([]int32, len(dir.Places))}
	for i := range all.Places {
		all.Places[i] = int32(i)
	}
	return all
}

func describeSupplier(name string, found *layers.Found) *supplier {
	s := &supplier{Path: path.Join(".", name), Type: typeName(found.Mode)}
	if found.Mode == unix.S_IFDIR {
		s.Layer = found.Places[0].Layer.Path()
		for _, place := range found.Places[1:] {
			s.Merge = append(s.Merge, place.Layer.Path())
		}
		return s
	}
	s.Layer = found.Lower.Layer.Path()
	if found.Data != nil {
		s.Data = found.Data.Layer.Path()
	}
	return s
}

func typeName(mode uint32) string {
	switch mode {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFREG:
		return "file"
	case unix.S_IFLNK:
		return "symlink"
	}
	return "special"
}
