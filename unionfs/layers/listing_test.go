package layers

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// model is a listing as one would write it without caring for speed.
type model struct {
	names   []string // in order of cookies
	cookies map[string]uint64
	gone    map[string]uint64 // cookies of names that were removed
}

func (m *model) add(name string, cookie uint64) {
	m.cookies[name] = cookie
	m.names = append(m.names, name)
	slices.SortFunc(m.names, func(a, b string) int { return cmp.Compare(m.cookies[a], m.cookies[b]) })
}

func (m *model) remove(name string) {
	if cookie, ok := m.cookies[name]; ok {
		m.gone[name] = cookie
	}
	delete(m.cookies, name)
	for i, n := range m.names {
		if n == name {
			m.names = append(m.names[:i], m.names[i+1:]...)
			return
		}
	}
}

// after is the first name beyond a cookie, or empty.
func (m *model) after(cookie uint64) string {
	for _, n := range m.names {
		if m.cookies[n] > cookie {
			return n
		}
	}
	return ""
}

// A listing does what the model does, whatever is added, removed and asked in any order, and each name keeps its cookie.
func TestListingAgainstModel(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 2))
		l, m := NewListing[int](), &model{cookies: map[string]uint64{}, gone: map[string]uint64{}}
		last := uint64(2) // the cookie given last
		for step := range 1500 {
			name := fmt.Sprint("n", random.IntN(120))
			switch random.IntN(8) {
			case 0, 1, 2:
				if l.Find(name) != nil {
					continue
				}
				e := l.Add(Entry[int]{Name: name, Value: step})
				if e.Cookie <= last && e.Cookie != m.gone[name] {
					t.Fatalf("seed %d: cookie %d after %d", seed, e.Cookie, last)
				}
				last = max(last, e.Cookie)
				m.add(name, e.Cookie)
			case 3, 4:
				l.Remove(name)
				m.remove(name)
			case 5:
				if random.IntN(50) == 0 {
					l.Seal()
				}
			default:
				compareListing(t, seed, l, m, uint64(random.IntN(int(last)+2)), name)
			}
		}
		checkAll(t, seed, l, m)
	}
}

func compareListing(t *testing.T, seed uint64, l *Listing[int], m *model, cookie uint64, name string) {
	t.Helper()
	got := ""
	if e := l.After(cookie); e != nil {
		got = e.Name
	}
	if want := m.after(cookie); got != want {
		t.Fatalf("seed %d: After(%d) is %q, want %q", seed, cookie, got, want)
	}
	e := l.Find(name)
	want, ok := m.cookies[name]
	if (e != nil) != ok || ok && e.Cookie != want {
		t.Fatalf("seed %d: Find(%q) is %+v, want cookie %d", seed, name, e, want)
	}
	if l.Len() != len(m.names) {
		t.Fatalf("seed %d: Len is %d, want %d", seed, l.Len(), len(m.names))
	}
}

func checkAll(t *testing.T, seed uint64, l *Listing[int], m *model) {
	t.Helper()
	i := 0
	l.All(func(e *Entry[int]) bool {
		if i >= len(m.names) || m.names[i] != e.Name {
			t.Fatalf("seed %d: All gives %q as number %d", seed, e.Name, i)
		}
		i++
		return true
	})
	if i != len(m.names) {
		t.Errorf("seed %d: All gave %d of %d names", seed, i, len(m.names))
	}
}

func TestListingAllStops(t *testing.T) {
	l := NewListing[int]()
	for i := range 5 {
		l.Add(Entry[int]{Name: fmt.Sprint(i)})
	}
	seen := 0
	l.All(func(*Entry[int]) bool { seen++; return seen < 2 })
	if seen != 2 {
		t.Errorf("All went on to %d", seen)
	}
}

// A reader who goes on from the last cookie sees each name that is there throughout once, while others come and go.
func TestListingReadWhileItChanges(t *testing.T) {
	l := NewListing[int]()
	const kept = 300
	for i := range kept {
		l.Add(Entry[int]{Name: fmt.Sprint("kept", i)})
		l.Add(Entry[int]{Name: fmt.Sprint("gone", i)})
	}
	seen := map[string]int{}
	cookie := uint64(0)
	for step := 0; ; step++ {
		e := l.After(cookie)
		if e == nil || step > 10*kept {
			break
		}
		seen[e.Name]++
		cookie = e.Cookie
		l.Remove(fmt.Sprint("gone", (step*7)%kept))
		if step < kept {
			l.Add(Entry[int]{Name: fmt.Sprint("new", step)})
		}
	}
	for i := range kept {
		if n := seen[fmt.Sprint("kept", i)]; n != 1 {
			t.Errorf("kept%d was seen %d times", i, n)
		}
	}
}

// A name that is replaced while a reader is under way is seen once.
func TestListingReplace(t *testing.T) {
	l := NewListing[int]()
	for i := range 10 {
		l.Add(Entry[int]{Name: fmt.Sprint(i), Value: 1})
	}
	seen := map[string]int{}
	for e := l.After(0); e != nil; {
		seen[e.Name]++
		cookie := e.Cookie
		for _, name := range []string{"0", "5", "9"} {
			l.Remove(name)
			if e := l.Add(Entry[int]{Name: name, Value: 2}); e.Value != 2 || l.Find(name) != e || l.Len() != 10 {
				t.Fatalf("%s was not replaced: %+v", name, e)
			}
		}
		e = l.After(cookie)
	}
	for name, n := range seen {
		if n != 1 || len(seen) != 10 {
			t.Errorf("%s was seen %d times", name, n)
		}
	}
}

// Names that come and go do not make a listing grow.
func TestListingDoesNotGrow(t *testing.T) {
	l := NewListing[int]()
	for i := range 10 {
		l.Add(Entry[int]{Name: fmt.Sprint("stays", i)})
	}
	for i := range 100_000 {
		l.Add(Entry[int]{Name: fmt.Sprint("comes and goes", i)})
		l.Remove(fmt.Sprint("comes and goes", i))
	}
	if cap(l.entries) > 100 || len(l.index) > 128 {
		t.Errorf("room for %d entries and an index of %d for 10 names", cap(l.entries), len(l.index))
	}
	if l.Find("stays9") == nil || l.Find("comes and goes99999") != nil {
		t.Error("the names are wrong")
	}
}

// The further places of a name go with it.
func TestListingForgetsMore(t *testing.T) {
	l := NewListing[int]()
	e := l.Add(Entry[int]{Name: "d"})
	l.More = map[uint64][]int32{e.Cookie: {1, 2}}
	l.Remove("d")
	if len(l.More) != 0 {
		t.Errorf("More holds %v after its name was removed", l.More)
	}
}

func BenchmarkListingFind(b *testing.B) {
	l := NewListing[*int]()
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprint("some-file-name-", i)
		l.Add(Entry[*int]{Name: names[i]})
	}
	b.ResetTimer()
	for i := range b.N {
		if l.Find(names[i%len(names)]) == nil {
			b.Fatal("not found")
		}
	}
}
