package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// entry is what the union must show of one name of the original tree.
type entry struct {
	path   string // relative to the root, which is "."
	mode   fs.FileMode
	size   int64  // of regular files
	sum    string // SHA-256 of a regular file's content
	target string // of symbolic links
}

// errFull ends a walk that has taken as much as it may.
var errFull = errors.New("limit reached")

// bounds limit how much of a tree is taken.
type bounds struct {
	entries int
	bytes   int64
}

// readTree describes the tree below root in the order of a walk, parents first, up to the bounds. Names that this user
// cannot read, and devices, sockets and pipes, are left out and counted in skipped.
func readTree(root string, limit bounds, each func()) (tree []entry, skipped int, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if len(tree) >= limit.entries || limit.bytes <= 0 {
			return errFull
		}
		rel, _ := filepath.Rel(root, path)
		if err == nil {
			var e entry
			if e, err = describe(path, rel); err == nil {
				limit.bytes -= e.size
				tree = append(tree, e)
				each()
				return nil
			}
		}
		skipped++
		if d != nil && d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if errors.Is(err, errFull) {
		err = nil
	}
	return tree, skipped, err
}

// describe reads everything about path that the demonstration compares.
func describe(path, rel string) (entry, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return entry{}, err
	}
	e := entry{path: rel, mode: info.Mode()}
	switch info.Mode().Type() {
	case 0:
		e.size = info.Size()
		e.sum, err = checksum(path)
	case fs.ModeSymlink:
		e.target, err = os.Readlink(path)
	case fs.ModeDir:
		err = readable(path)
	default:
		err = fmt.Errorf("%s: neither file, directory nor symbolic link", path)
	}
	return e, err
}

func readable(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return f.Close()
}

func checksum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return string(hash.Sum(nil)), nil
}
