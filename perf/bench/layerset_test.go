package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// needRoot skips a test that mounts where that is not allowed.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 || inUserNamespace() {
		t.Skip("mounting and making whiteouts takes root in the initial user namespace")
	}
}

// TestKernelShowsMerged holds the generator against kernel overlayfs: the union is the merged tree, byte for byte.
func TestKernelShowsMerged(t *testing.T) {
	needRoot(t)
	set, err := MakeLayers(t.Context(), t.TempDir(), Spec{Depth: 60, Files: 600, Data: 1}, whiteout.Trusted.Opaque())
	if err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	m, err := kernelOverlay{}.Mount(t.Context(), &Request{Set: set, Target: target})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, root := range []string{m.Root, set.Merged} {
		n, err := walk(t.Context(), root)
		if want := set.Files + set.Directories() + 1; err != nil || n != want {
			t.Errorf("walk of %s: %d entries and %v, want %d", root, n, err, want)
		}
	}
	for _, name := range append(set.Small, LargeFile) {
		got, err := os.ReadFile(filepath.Join(m.Root, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(set.Merged, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from the merged tree's", name)
		}
	}
}

func TestMakeLayersFindsThemAgain(t *testing.T) {
	needRoot(t)
	dir, spec := t.TempDir(), Spec{Depth: 3, Files: 100}
	first, err := MakeLayers(t.Context(), dir, spec, whiteout.Trusted.Opaque())
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(first.Layers, "mark")
	if err := os.WriteFile(mark, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := MakeLayers(t.Context(), dir, spec, whiteout.Trusted.Opaque()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error("the layers were made anew:", err)
	}
}
