package whiteout_test

import (
	"strings"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

func TestNamespaceNames(t *testing.T) {
	for ns, prefix := range map[whiteout.Namespace]string{whiteout.Trusted: "trusted.overlay.", whiteout.User: "user.overlay."} {
		got := []string{
			ns.Opaque(), ns.Redirect(), ns.Metacopy(), ns.Origin(), ns.Impure(), ns.Nlink(), ns.Upper(), ns.UUID(), ns.Whiteout(), ns.Protattr(),
		}
		want := strings.Fields("opaque redirect metacopy origin impure nlink upper uuid whiteout protattr")
		for i, name := range want {
			if got[i] != prefix+name || !ns.Private(got[i]) {
				t.Errorf("%s: want %s%s, private", got[i], prefix, name)
			}
		}
	}
}

func TestNamespaceEscape(t *testing.T) {
	for _, test := range []struct {
		ns             whiteout.Namespace
		union, layer   string
		privateInLayer bool
	}{
		{whiteout.Trusted, "trusted.overlay.opaque", "trusted.overlay.overlay.opaque", false},
		{whiteout.Trusted, "trusted.overlay.overlay.opaque", "trusted.overlay.overlay.overlay.opaque", false},
		{whiteout.Trusted, "trusted.overlay.", "trusted.overlay.overlay.", false},
		{whiteout.Trusted, "user.overlay.opaque", "user.overlay.opaque", false},
		{whiteout.User, "user.overlay.opaque", "user.overlay.overlay.opaque", false},
		{whiteout.User, "trusted.overlay.opaque", "trusted.overlay.opaque", false},
		{whiteout.User, "user.overlayed", "user.overlayed", false},
	} {
		if got := test.ns.Escape(test.union); got != test.layer {
			t.Errorf("%s Escape(%s) = %s, want %s", test.ns, test.union, got, test.layer)
		}
		if got := test.ns.Unescape(test.layer); got != test.union {
			t.Errorf("%s Unescape(%s) = %s, want %s", test.ns, test.layer, got, test.union)
		}
		if test.ns.Private(test.layer) {
			t.Errorf("%s is private to %s", test.layer, test.ns)
		}
	}
	for _, hidden := range []string{"trusted.overlay.overlay", "trusted.overlay.overlayX", "trusted.overlay.", "trusted.overlay.anything"} {
		if !whiteout.Trusted.Private(hidden) || whiteout.Trusted.Unescape(hidden) != hidden {
			t.Errorf("%s is not private", hidden)
		}
	}
}

// FuzzNamespace holds that a name written through a union is listed under that name, and never taken for the union's own.
func FuzzNamespace(f *testing.F) {
	f.Add("trusted.overlay.opaque")
	f.Fuzz(func(t *testing.T, name string) {
		for _, ns := range []whiteout.Namespace{whiteout.Trusted, whiteout.User} {
			stored := ns.Escape(name)
			if ns.Private(stored) {
				t.Errorf("%q is stored as %q, which is private", name, stored)
			}
			if back := ns.Unescape(stored); back != name {
				t.Errorf("%q is stored as %q and listed as %q", name, stored, back)
			}
			if !ns.Private(name) && ns.Escape(ns.Unescape(name)) != name {
				t.Errorf("%q is listed as %q, which is read from %q", name, ns.Unescape(name), ns.Escape(ns.Unescape(name)))
			}
		}
	})
}
