package overlaytest

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

var (
	routeList = flag.String("routes", os.Getenv("OVERLAYTEST_ROUTES"), "routes to judge, separated by semicolons")
	seedCount = flag.Int("seeds", 40, "number of seeds of each random test")
	firstSeed = flag.Uint64("seed", 1, "first seed of each random test")
	opCount   = flag.Int("ops", 200, "operations of each random program")
)

// TestMain also turns the test binary into a server of one mount: see Main. For an ordinary user it leaves out, with one reason
// in place of a thousand, all but what runs in a user namespace.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 && flag.Lookup("test.run").Value.String() == "" {
		flag.Set("test.run", "^(TestAsRoot|TestUserNamespace)$")
	}
	Main(m)
}

// TestAsRoot stands for all that an ordinary user cannot run.
func TestAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, as all tests of this package but TestUserNamespace do: their layers hold files of several users, devices and trusted xattrs")
	}
}

// routes returns the routes to judge: those asked for, or the given ones.
func routes(defaults ...Route) []Route {
	if asked := ParseRoutes(*routeList); len(asked) > 0 {
		return asked
	}
	return defaults
}

// eachSeed runs a subtest for each seed, and stops when a few have failed: making failures small takes time, and they are mostly
// the same.
func eachSeed(t *testing.T, f func(t *testing.T, seed uint64)) {
	failed := 0
	for i := range *seedCount {
		seed := *firstSeed + uint64(i)
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { f(t, seed) }) {
			if failed++; failed == 3 {
				t.Fatalf("stopped after %d seeds, %d of which failed", i+1, failed)
			}
		}
	}
}

// mustBuild builds a set below a directory, with an upper and a work directory of its own.
func mustBuild(t testing.TB, s Set, dir string) Layout {
	t.Helper()
	l, err := s.Build(dir)
	if err == nil {
		l, err = l.WithUpper(s, dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}
