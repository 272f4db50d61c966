package whiteout_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// randomOrigin makes an origin that can be stored.
func randomOrigin(random *rand.Rand) whiteout.Origin {
	var uuid [16]byte
	handle := make([]byte, random.IntN(whiteout.MaxOriginHandle+1))
	for _, b := range [][]byte{uuid[:], handle} {
		for i := range b {
			b[i] = byte(random.Uint32())
		}
	}
	o, err := whiteout.NewOrigin(uuid, random.Int32N(256), handle, random.IntN(2) == 1)
	if err != nil {
		panic(err)
	}
	return o
}

// TestOriginRoundTrip holds for random origins that each of the three forms is read as it was written.
func TestOriginRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		o := randomOrigin(random)
		if len(o.Handle) == 0 {
			o.Handle = nil
		}
		if got, err := whiteout.ParseOrigin(o.Bytes()); err != nil || !reflect.DeepEqual(got, o) {
			t.Fatalf("%+v is read again as %+v, %v", o, got, err)
		}
		if got, err := whiteout.ParseFileHandle(o.FileHandle()); err != nil || !reflect.DeepEqual(got, o) {
			t.Fatalf("%+v as a file handle is read again as %+v, %v", o, got, err)
		}
		padded := append(o.Bytes(), 0, 0, 0)
		if got, err := whiteout.ParseFileHandle(whiteout.FileHandleV0, padded); err != nil || !reflect.DeepEqual(got, o) {
			t.Fatalf("%+v as a file handle of the old type is read again as %+v, %v", o, got, err)
		}
		// Longer names than 255 bytes cannot exist: the handles of Linux have at most 128 bytes, and most 8 or 12.
		if name := o.IndexName(); len(name) <= 255 {
			if got, err := whiteout.ParseIndexName(name); err != nil || !reflect.DeepEqual(got, o) {
				t.Fatalf("%+v as an index name is read again as %+v, %v", o, got, err)
			}
		}
	}
}

func TestOriginErrors(t *testing.T) {
	good := randomOrigin(rand.New(rand.NewPCG(3, 4))).Bytes()
	changed := func(at int, to byte) []byte {
		v := bytes.Clone(good)
		v[at] = to
		return v
	}
	for name, test := range map[string]struct {
		value   []byte
		unknown bool
	}{
		"empty":              {nil, true},
		"version":            {changed(0, 1), true},
		"unknown flag":       {changed(3, 0x80), true},
		"other byte order":   {changed(3, good[3]^byte(whiteout.OriginBigEndian)), true},
		"short":              {good[:20], false},
		"magic":              {changed(1, 0), false},
		"length of header":   {changed(2, 20), false},
		"length past values": {changed(2, byte(len(good)+1)), false},
	} {
		_, err := whiteout.ParseOrigin(test.value)
		if errors.Is(err, whiteout.ErrOriginUnknown) != test.unknown || errors.Is(err, syscall.EINVAL) == test.unknown {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := whiteout.NewOrigin([16]byte{}, 1, make([]byte, whiteout.MaxOriginHandle+1), false); errnoOf(err) != syscall.EOVERFLOW {
		t.Errorf("handle that is too long: %v", err)
	}
	if _, err := whiteout.ParseIndexName("#1f"); errnoOf(err) != syscall.EINVAL {
		t.Errorf("name of a temporary file: %v", err)
	}
	if _, err := whiteout.ParseIndexName(strings.Repeat("0", 256)); errnoOf(err) != syscall.EINVAL {
		t.Errorf("name that is too long: %v", err)
	}
}

func FuzzParseOrigin(f *testing.F) {
	f.Add(whiteout.Origin{Handle: []byte{1, 2, 3, 4}}.Bytes())
	f.Fuzz(func(t *testing.T, value []byte) {
		o, err := whiteout.ParseOrigin(value)
		if err != nil {
			if !errors.Is(err, whiteout.ErrOriginUnknown) && !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%x: %v", value, err)
			}
			return
		}
		if !bytes.Equal(o.Bytes(), value[:value[2]]) {
			t.Errorf("%x is written again as %x", value, o.Bytes())
		}
	})
}

func FuzzParseIndexName(f *testing.F) {
	f.Add(whiteout.Origin{Handle: []byte{1, 2, 3, 4}}.IndexName())
	f.Fuzz(func(t *testing.T, name string) {
		o, err := whiteout.ParseIndexName(name)
		if err == nil && !strings.HasPrefix(strings.ToLower(name), o.IndexName()) {
			t.Errorf("%s is written again as %s", name, o.IndexName())
		}
	})
}

func FuzzParseFileHandle(f *testing.F) {
	kind, handle := whiteout.Origin{Handle: []byte{1, 2, 3, 4}}.FileHandle()
	f.Add(kind, handle)
	f.Add(int32(whiteout.FileHandleV0), handle)
	f.Fuzz(func(t *testing.T, kind int32, handle []byte) {
		o, err := whiteout.ParseFileHandle(kind, handle)
		if err != nil {
			return
		}
		if again, err := whiteout.ParseFileHandle(o.FileHandle()); err != nil || !reflect.DeepEqual(again, o) {
			t.Errorf("%+v is read again as %+v, %v", o, again, err)
		}
	})
}
