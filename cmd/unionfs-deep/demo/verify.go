package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
)

// maxReported bounds the differences that are printed; a union that is wrong is often wrong everywhere.
const maxReported = 10

// differences compares a mounted union with the original, both ways: every name of the original must be there with its
// type, mode, size, content and target, and no other name may be.
func differences(union string, tree []entry, each func()) ([]string, error) {
	want := make(map[string]entry, len(tree))
	for _, e := range tree {
		want[e.path] = e
	}
	var found []string
	seen := 0
	err := filepath.WalkDir(union, func(path string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(union, path)
		if err != nil {
			return fmt.Errorf("read the union: %w", err)
		}
		e, ok := want[rel]
		if !ok {
			found = append(found, rel+": not in the original")
			return nil
		}
		seen++
		each()
		if d := difference(path, e); d != "" {
			found = append(found, rel+": "+d)
		}
		return nil
	})
	if err == nil && seen < len(tree) {
		found = append(found, fmt.Sprintf("%d names of the original are missing", len(tree)-seen))
	}
	return found, err
}

// difference says how what lies at path differs from what the original has there; empty: not at all.
func difference(path string, want entry) string {
	got, err := describe(path, want.path)
	switch {
	case err != nil:
		return err.Error()
	case got.mode != want.mode:
		return fmt.Sprintf("mode %v, want %v", got.mode, want.mode)
	case got.size != want.size:
		return fmt.Sprintf("%d bytes, want %d", got.size, want.size)
	case got.sum != want.sum:
		return "other content"
	case got.target != want.target:
		return fmt.Sprintf("leads to %q, want %q", got.target, want.target)
	}
	return ""
}
