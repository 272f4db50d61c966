package overlayfallback

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestSplitOptions(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{",,ro,,", []string{"ro"}},
		{"a=b,c", []string{"a=b", "c"}},
		{`lowerdir=/a\,b,ro`, []string{`lowerdir=/a\,b`, "ro"}},
		{`lowerdir=/a\\,ro`, []string{`lowerdir=/a\\`, "ro"}},
		{`context="a,b",ro`, []string{`context="a,b"`, "ro"}},
		{`upperdir="a,b",ro`, []string{`upperdir="a`, `b"`, "ro"}},
		{`lowerdir=/a"b,ro,workdir=/c"d`, []string{`lowerdir=/a"b`, "ro", `workdir=/c"d`}},
		{"upperdir=a=b", []string{"upperdir=a=b"}},
		{"upperdir=a\nb", []string{"upperdir=a\nb"}},
	} {
		all, err := splitOptions(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		var got []string
		for _, o := range all {
			got = append(got, o.String())
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

func TestSplitLowerDirs(t *testing.T) {
	for _, c := range []struct {
		in          string
		lower, data []string
		err         error
	}{
		{in: "/a", lower: []string{"/a"}},
		{in: "/a:/b", lower: []string{"/a", "/b"}},
		{in: "/a:/b::/d::/e", lower: []string{"/a", "/b"}, data: []string{"/d", "/e"}},
		{in: `/a\:b:/c\,d:/e\\f`, lower: []string{"/a:b", "/c,d", `/e\f`}},
		{in: `/a\\:b`, lower: []string{`/a\`, "b"}},
		{in: "l/ID/../diff1:l/X", lower: []string{"l/ID/../diff1", "l/X"}},
		{in: "/a:", err: errEmptyLayer},
		{in: ":/a", err: errEmptyLayer},
		{in: "/a::", err: errEmptyLayer},
		{in: "/a:::/b", err: errColons},
		{in: "/a::/b:/c", err: errLowerAfter},
		{in: `/a\`, err: errTrailingBackslash},
	} {
		lower, data, err := splitLowerDirs(c.in)
		if !errors.Is(err, c.err) || !reflect.DeepEqual(lower, c.lower) || !reflect.DeepEqual(data, c.data) {
			t.Errorf("%q: %q, %q, %v; want %q, %q, %v", c.in, lower, data, err, c.lower, c.data, c.err)
		}
	}
}

// What Set accepts it writes and reads back to the same; nothing makes it panic.
func FuzzOptions(f *testing.F) {
	for _, seed := range []string{
		"", "ro,lowerdir=/a:/b::/c,upperdir=/u,workdir=/w", `lowerdir=/a\:b\,c\\d`, `context="a,b",volatile`, "lowerdir+=/a:b,datadir+=/d",
		",,x-systemd.automount,nofail", `fsname=a\,b,route=fuse,fastpath=cache`, "noatime,relatime,suid,rshared,max_read=4096", "timeout=0.1,writeback",
		"lowerdir=/a\nb:/c d", `lowerdir=a\`, `context="a`, "redirect_dir=on,metacopy=on,xino=auto,index=off,nfs_export=off,uuid=on",
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, options string, lenient bool) {
		first := Config{Lenient: lenient}
		if err := first.Set(options); err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%q: %v is no *Error", options, err)
			}
			if strings.ContainsRune(err.Error(), '\n') {
				t.Fatalf("%q: the message takes several lines: %v", options, err)
			}
			return
		}
		second := Config{Lenient: lenient}
		if err := second.Set(first.OptionString()); err != nil {
			t.Fatalf("%q became %q: %v", options, first.OptionString(), err)
		}
		first.Warnings = nil
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("%q became %q:\n%+v\n%+v", options, first.OptionString(), first, second)
		}
	})
}
