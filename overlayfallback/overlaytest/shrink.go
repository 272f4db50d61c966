package overlaytest

import (
	"slices"
	"time"
)

// shrinkTime bounds how long one failure is made smaller.
const shrinkTime = 20 * time.Second

// Shrink returns a short part of items that still fails: parts are left out, large ones first, as long as what remains fails
// (delta debugging), until shrinkTime is over.
func Shrink[S ~[]T, T any](items S, fails func(S) bool) S {
	end := time.Now().Add(shrinkTime)
	for size := (len(items) + 1) / 2; size >= 1; {
		shorter := false
		for at := 0; at < len(items) && time.Now().Before(end); {
			without := slices.Concat(items[:at], items[min(at+size, len(items)):])
			if fails(without) {
				items, shorter = without, true
			} else {
				at += size
			}
		}
		if time.Now().After(end) || size == 1 && !shorter {
			break
		}
		size = max(1, size/2)
	}
	return items
}

// placed is an entry with the place of its layer, so that a set can be shrunk as one list.
type placed struct {
	upper, data bool
	layer       int
	entry       Entry
}

// ShrinkSet returns a small set that still fails: entries are left out, then the layers that they leave empty.
func ShrinkSet(s Set, fails func(Set) bool) Set {
	items := Shrink(s.flatten(), func(items []placed) bool { return fails(s.with(items)) })
	s = s.with(items)
	if compact := s.compact(); fails(compact) {
		return compact
	}
	return s
}

// compact returns the set without its empty layers, but for one lower layer.
func (s Set) compact() Set {
	empty := func(l Layer) bool { return len(l) == 0 }
	s.Lower, s.Data = slices.DeleteFunc(slices.Clone(s.Lower), empty), slices.DeleteFunc(slices.Clone(s.Data), empty)
	if len(s.Lower) == 0 {
		s.Lower = []Layer{nil}
	}
	return s
}

// flatten lists all entries with their places.
func (s Set) flatten() []placed {
	var items []placed
	for i, l := range s.Lower {
		for _, e := range l {
			items = append(items, placed{layer: i, entry: e})
		}
	}
	for i, l := range s.Data {
		for _, e := range l {
			items = append(items, placed{data: true, layer: i, entry: e})
		}
	}
	for _, e := range s.Upper {
		items = append(items, placed{upper: true, entry: e})
	}
	return items
}

// with returns the set holding just the given entries.
func (s Set) with(items []placed) Set {
	out := Set{Options: s.Options, Lower: make([]Layer, len(s.Lower)), Data: make([]Layer, len(s.Data))}
	for _, p := range items {
		switch {
		case p.upper:
			out.Upper = append(out.Upper, p.entry)
		case p.data:
			out.Data[p.layer] = append(out.Data[p.layer], p.entry)
		default:
			out.Lower[p.layer] = append(out.Lower[p.layer], p.entry)
		}
	}
	return out
}
