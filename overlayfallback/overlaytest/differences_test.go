package overlaytest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDifferencesAreListed holds the excuses against the list that readers see.
func TestDifferencesAreListed(t *testing.T) {
	doc, err := os.ReadFile("../../docs/differences.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range Differences {
		if !strings.Contains(string(doc), e.Entry) {
			t.Errorf("docs/differences.md has no entry %q", e.Entry)
		}
	}
}

// TestDifferencesAreShown checks that each row of the list ends with the name of a test that there is.
func TestDifferencesAreShown(t *testing.T) {
	doc, err := os.ReadFile("../../docs/differences.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testFunctions(t, "../..")
	for row := range strings.Lines(string(doc)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), "|")
		name := strings.TrimSpace(cells[len(cells)-1])
		if !strings.HasPrefix(row, "| ") || name == "test" {
			continue
		}
		if function, _, _ := strings.Cut(name, "/"); !tests[function] {
			t.Errorf("%q is no test:\n%s", name, row)
		}
	}
}

// testFunctions finds the names of all test functions below a directory.
func testFunctions(t *testing.T, root string) map[string]bool {
	found := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, "_test.go") {
			return err
		}
		source, err := os.ReadFile(p)
		for _, m := range function.FindAllSubmatch(source, -1) {
			found[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
