package overlaytest

import (
	"os"
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
