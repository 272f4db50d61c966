package perf

import (
	"strconv"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// BenchmarkStat is one uncached stat, a LOOKUP and a GETATTR, by 1 to 8 clients at once: ns/op is the time of one
// client's stat. "server" is go-fuse's own fuse.Server.
func BenchmarkStat(b *testing.B) {
	for _, clients := range []int{1, 2, 4, 8} {
		b.Run("conn/"+strconv.Itoa(clients), func(b *testing.B) {
			benchStat(b, mountMemFS(b, Config{}).path("f"), clients)
		})
		b.Run("server/"+strconv.Itoa(clients), func(b *testing.B) {
			benchStat(b, mountServer(b)+"/f", clients)
		})
	}
}

func mountServer(b *testing.B) string {
	dir := b.TempDir()
	s, err := fuse.NewServer(newMemFS(), dir, &fuse.MountOptions{DirectMountStrict: true, MaxWrite: 1 << 20})
	if err != nil {
		b.Skipf("fuse.Server: %v", err)
	}
	go s.Serve()
	b.Cleanup(func() { s.Unmount() })
	if err := s.WaitMount(); err != nil {
		b.Fatal(err)
	}
	return dir
}

func benchStat(b *testing.B, path string, clients int) {
	var wg sync.WaitGroup
	b.ResetTimer()
	for i := range clients {
		name := path + strconv.Itoa(i)
		wg.Go(func() {
			var st unix.Stat_t
			for range b.N {
				if err := unix.Stat(name, &st); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
