package perf

import "testing"

func TestParseStat(t *testing.T) {
	const before = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 17 "
	const none = -1
	for stat, want := range map[string]int64{
		"12 (sh)" + before + "5 0 0 0\n":              5,
		"12 (a b) R 99 (c)" + before + "63 0 0\n":     63,
		"12 (sh) S 1 2 3":                             none,
		"12 (sh)" + before + "x 0 0":                  none,
		"12 (sh)" + before + "99999999999999999999 0": none,
		"": none,
	} {
		got, ok := parseStat([]byte(stat), 39)
		if !ok {
			got = none
		}
		if got != want {
			t.Errorf("field 39 of %q is %d, want %d", stat, got, want)
		}
	}
}
