package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCreateReadDelete(t *testing.T) {
	dir := t.TempDir()
	names, err := newNames(dir)
	if err != nil {
		t.Fatal(err)
	}
	root, err := openRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	files := cstrings(names)
	_, err = pinned(1, func(int) error { return createFiles(t.Context(), root, files, []byte("content")) })
	if err != nil {
		t.Fatal(err)
	}
	if n, err := walk(t.Context(), dir); err != nil || n != createdFiles+createdFiles/filesInDirectory {
		t.Errorf("walk: %d entries, %v", n, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, names[7])); string(got) != "content" || err != nil {
		t.Errorf("%s holds %q, %v", names[7], got, err)
	}
	_, err = pinned(2, func(i int) error { return readFiles(t.Context(), root, files, i*1000) })
	if err != nil {
		t.Error(err)
	}
	if err := chmodFiles(t.Context(), root, files[:1], 0o600); err != nil {
		t.Error(err)
	}
	if err := unlinkFiles(t.Context(), root, files); err != nil {
		t.Error(err)
	}
	if err := statFiles(t.Context(), root, files[:1]); !errors.Is(err, unix.ENOENT) {
		t.Errorf("stat of a removed file: %v", err)
	}
}

func TestDriverEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	if _, err := newNames(dir); err != nil {
		t.Fatal(err)
	}
	root, err := openRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	files := cstrings(make([]string, 2*deadlineEvery))
	err = eachFile(ctx, "nothing", files, func(*byte) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled driver says %v", err)
	}
}
