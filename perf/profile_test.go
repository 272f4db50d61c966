package perf

import "testing"

func TestParseProfile(t *testing.T) {
	for name, want := range map[string]Profile{"": Auto, "auto": Auto, "cache": Cache, "passthrough": Passthrough, "off": Off} {
		if got, err := ParseProfile(name); err != nil || got != want {
			t.Errorf("ParseProfile(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := ParseProfile("fast"); err == nil {
		t.Error("an unknown profile was let through")
	}
}

func TestChooseProfile(t *testing.T) {
	for _, c := range []struct {
		asked       Profile
		canRegister bool
		want        Profile
	}{
		{Auto, true, Cache},
		{Auto, false, Cache},
		{"", true, Cache},
		{Passthrough, true, Passthrough},
		{Passthrough, false, Cache},
		{Off, true, Off},
	} {
		if got := c.asked.Choose(c.canRegister); got != c.want {
			t.Errorf("%q.Choose(%v) = %q, want %q", c.asked, c.canRegister, got, c.want)
		}
	}
}
