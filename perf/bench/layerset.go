package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// filesInDirectory is how many files a directory of the merged tree shows.
const filesInDirectory = 100

// Spec says which layer set to make. Equal specs make equal layers, byte for byte.
type Spec struct {
	Depth int  // layers
	Files int  // small files that the merged tree shows
	Data  int  // size of one large file in the bottom layer, in MiB; 0: none
	Empty bool // the small files hold nothing: they are not read
}

// Directories is the number of directories that the merged tree shows below its root.
func (s Spec) Directories() int { return max(1, s.Files/filesInDirectory) }

// perLayer is the number of directories, below the root, that each layer holds. It keeps the number of directory instances
// over all layers, the roots counted, the same at every depth (as many as there are files), so that depth alone differs.
func (s Spec) perLayer() int {
	return min(s.Directories(), max(1, s.Files/s.Depth-1))
}

// Instances is the number of directories over all layers, the layers' roots counted.
func (s Spec) Instances() int { return s.Depth * (1 + s.perLayer()) }

func (s Spec) name() string {
	name := fmt.Sprintf("d%d-f%d-m%d", s.Depth, s.Files, s.Data)
	if s.Empty {
		name += "-empty"
	}
	return name
}

// LayerSet is a layer set on disk, and the same tree merged by hand.
type LayerSet struct {
	Spec
	Layers string   // the directory that holds the layers
	Names  []string // the layers' names in it, the topmost first: as short as can be, for programs that name all in one argument
	Merged string   // what the union should show, as a plain directory; it may be written to
	Small  []string // the small files, relative to the root of the union
}

// LargeFile is the name, in the root of the union, of the large file of a set that has one.
const LargeFile = "large"

// paths returns the layers' paths, the topmost first.
func (s *LayerSet) paths() []string {
	out := make([]string, len(s.Names))
	for i, name := range s.Names {
		out[i] = filepath.Join(s.Layers, name)
	}
	return out
}

// MakeLayers makes the layer set below dir, or finds it there when it was made before, and reads all of it once, so that the
// file system that holds it has it cached. opaque is the name of the xattr that marks opaque directories. Whiteouts
// are devices 0:0.
func MakeLayers(ctx context.Context, dir string, spec Spec, opaque string) (*LayerSet, error) {
	base := filepath.Join(dir, spec.name())
	set := &LayerSet{Spec: spec, Layers: filepath.Join(base, "l"), Merged: filepath.Join(base, "merged")}
	for i := range spec.Depth {
		set.Names = append(set.Names, strconv.Itoa(i))
	}
	plan := planLayers(spec)
	set.Small = plan.merged()
	complete := filepath.Join(base, "complete")
	if _, err := os.Stat(complete); err != nil {
		if err := os.RemoveAll(base); err != nil {
			return nil, err
		}
		if err := plan.write(ctx, set, opaque); err != nil {
			return nil, fmt.Errorf("make layer set %s: %w", base, err)
		}
		if err := os.WriteFile(complete, nil, 0o644); err != nil {
			return nil, err
		}
		settle(base)
	}
	return set, set.warm(ctx)
}

// write makes the layers and the merged tree.
func (p *layerPlan) write(ctx context.Context, set *LayerSet, opaque string) error {
	err := parallel(ctx, len(p.layers), func(i int) error {
		return p.writeTree(filepath.Join(set.Layers, set.Names[i]), p.layers[i], opaque)
	})
	if err != nil {
		return err
	}
	if err := p.writeTree(set.Merged, p.mergedTree(), opaque); err != nil || set.Data == 0 {
		return err
	}
	for _, root := range []string{set.Merged, filepath.Join(set.Layers, set.Names[set.Depth-1])} {
		if err := writeLarge(filepath.Join(root, LargeFile), set.Data); err != nil {
			return err
		}
	}
	return nil
}

func (p *layerPlan) writeTree(root string, tree map[int]*instance, opaque string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	for dir, in := range tree {
		path := filepath.Join(root, directoryName(dir))
		if err := in.mark(path, opaque); err != nil {
			return err
		}
		if err := p.writeFiles(path, dir, in.files); err != nil {
			return err
		}
	}
	return nil
}

// mark makes a layer's directory, with its whiteouts.
func (in *instance) mark(path, opaque string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	if in.opaque {
		if err := unix.Setxattr(path, opaque, []byte("y"), 0); err != nil {
			return fmt.Errorf("setxattr %s %s: %w", opaque, path, err)
		}
	}
	for _, name := range in.whiteouts {
		if err := unix.Mknod(filepath.Join(path, name), unix.S_IFCHR, 0); err != nil {
			return fmt.Errorf("mknod whiteout %s: %w", filepath.Join(path, name), err)
		}
	}
	return nil
}

// writeFiles writes files of the given versions into a directory.
func (p *layerPlan) writeFiles(path string, dir int, files map[string]int) error {
	for name, version := range files {
		var content []byte
		if !p.spec.Empty {
			content = smallContent(dir, name, version)
		}
		if err := os.WriteFile(filepath.Join(path, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeLarge makes a file of so many MiB that is neither sparse nor compressible to nothing.
func writeLarge(path string, mib int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	random := mix(uint64(mib))
	for i := range mib {
		for j := 0; j < len(block); j += 64 {
			random = mix(random + uint64(i))
			block[j] = byte(random) | 1
		}
		if _, err := f.Write(block); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return f.Sync()
}

// warm reads everything in the set once. The large file is left to the works that read it.
func (s *LayerSet) warm(ctx context.Context) error {
	roots := append(s.paths(), s.Merged)
	return parallel(ctx, len(roots), func(i int) error {
		return filepath.WalkDir(roots[i], func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || d.Name() == LargeFile {
				return err
			}
			return discardFile(path)
		})
	})
}

func discardFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

// parallel calls f for 0 to n-1 from a few goroutines and returns the first error.
func parallel(ctx context.Context, n int, f func(i int) error) error {
	const workers = 4
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := w; i < n && ctx.Err() == nil; i += workers {
				if err := f(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}
