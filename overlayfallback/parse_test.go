package overlayfallback

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

func TestParseTriple(t *testing.T) {
	got, err := Parse("overlay", "overlay", "/mnt", []string{"index=off", "workdir=/w", "upperdir=/u", "lowerdir=/a:/b"})
	want := Config{
		Source: "overlay", Target: "/mnt", Lower: []string{"/a", "/b"}, Upper: "/u", Work: "/w", Options: Options{Index: "off"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if got, err := Parse("fuse.unionfs-deep", "", "/mnt", []string{"lowerdir=/a"}); err != nil || got.Route != FUSE {
		t.Errorf("the FUSE form takes the route %q, %v", got.Route, err)
	}
	if _, err := Parse("ext4", "/dev/vda", "/mnt", nil); err == nil {
		t.Error("ext4 passed for a union")
	}
}

func TestSet(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Config
	}{
		{"lowerdir+=/a:b,lowerdir+=/c\\,d,datadir+=/e", Config{Lower: []string{"/a:b", "/c,d"}, Data: []string{"/e"}}},
		{"lowerdir=/a,lowerdir=/b", Config{Lower: []string{"/b"}}},
		{"lowerdir=/a,lowerdir=", Config{}},
		{`upperdir=/u\,u,workdir=/w\:w`, Config{Upper: "/u,u", Work: "/w:w"}},
		{"ro,rw,noatime,relatime,nosuid,suid,rprivate", Config{Options: Options{Flags: unix.MS_RELATIME, Propagation: unix.MS_PRIVATE | unix.MS_REC}}},
		{`context="system_u:object_r:x_t:s0:c1,c2"`, Config{Options: Options{Labels: []Label{{"context", "system_u:object_r:x_t:s0:c1,c2"}}}}},
		{"defaults,nofail,_netdev,x-systemd.requires=/a,timeout=3.5,threaded=1",
			Config{Options: Options{Timeout: Timeout{true, 3500 * time.Millisecond}}}},
		{"writeback=0,max_read=65536,fastpath=off,aufs=on,route=stacked", Config{Route: Stacked, Options: Options{MaxRead: 65536, Fastpath: "off", AUFS: "on"}}},
	} {
		var got Config
		if err := got.Set(c.in); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, %v; want %+v", c.in, got, err, c.want)
		}
	}
}

func TestSetRefuses(t *testing.T) {
	for in, culprit := range map[string]string{
		"lowrdir=/a":                    "unknown",
		"uidmapping=0:1000:1":           "not supported",
		"redirect_dir=maybe":            "on, follow, nofollow, off",
		"metacopy":                      "needs a value",
		"volatile=1":                    "takes no value",
		"max_read=many":                 "max_read=many",
		"route=scenic":                  "auto, overlay, stacked, fuse",
		`context="a`:                    "quote is not closed",
		`lowerdir=/a\`:                  "escapes nothing",
		"lowerdir=/a::/b:/c":            "follows a data-only one",
		"lowerdir=/a\x00b":              "NUL",
		"upperdir=/" + `\`:              "escapes nothing",
		"timeout=NaN":                   "no number of seconds",
		"timeout=-1":                    "no number of seconds",
		"writeback=perhaps":             "neither 1 nor 0",
		`defcontext="a"b"`:              "no quote",
		"bind,lowerdir=/a":              `"bind"`,
		"lowerdir=" + "/a:::" + "/long": "two colons",
	} {
		var c Config
		err := c.Set(in)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), culprit) || e.Hint == "" {
			t.Errorf("%q: %v; want a word on %q and on what to do", in, err, culprit)
		}
	}
}

func TestSetLenient(t *testing.T) {
	c := Config{Lenient: true}
	if err := c.Set("frobnicate=1,uidmapping=0:1000:1,lowerdir=/a"); err != nil || len(c.Warnings) != 2 || len(c.Lower) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if err := c.Set("redirect_dir=maybe"); err == nil {
		t.Error("a wrong value of a known option passed")
	}
}

// Every option has one line in the table, and a word in the man page.
func TestTable(t *testing.T) {
	page, err := os.ReadFile("../docs/unionfs-deep.8")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, word := range strings.FieldsFunc(string(page), func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(",=.", r) }) {
		seen[word] = false
	}
	for _, o := range table {
		if twice, documented := seen[o.name]; twice || !documented {
			t.Errorf("%s: twice in the table: %t; in the man page: %t", o.name, twice, documented)
		}
		seen[o.name] = true
	}
}
