package overlayfallback_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/unionfs-deep/unionfs-deep/overlayfallback"
)

// A container engine's overlay mount is taken as it is.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"top", "bottom", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			log.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bottom", "hello"), []byte("from below"), 0o644); err != nil {
		log.Fatal(err)
	}

	config, err := overlayfallback.Parse("overlay", "overlay", filepath.Join(dir, "merged"),
		[]string{"lowerdir=" + filepath.Join(dir, "top") + ":" + filepath.Join(dir, "bottom")})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	mounted, err := overlayfallback.Mount(ctx, config)
	if errors.Is(err, os.ErrPermission) {
		fmt.Println("from below") // nothing can be mounted here
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "merged", "hello"))
	if err != nil {
		log.Print(err)
	}
	fmt.Println(string(content))
	if err := mounted.Unmount(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: from below
}

// What is wrong is told with the culprit and what to do, before anything is mounted.
func ExampleNewPlan() {
	_, err := overlayfallback.NewPlan(context.Background(), overlayfallback.Config{
		Target: "/", Lower: []string{"/does/not/exist"},
	})
	var problem *overlayfallback.Error
	if errors.As(err, &problem) {
		fmt.Println(problem.Path)
		fmt.Println(errors.Is(err, os.ErrNotExist))
	}
	// Output:
	// /does/not/exist
	// true
}

func ExampleConfig_Set() {
	var c overlayfallback.Config
	if err := c.Set(`ro,lowerdir=/a:/with\:colon::/data`); err != nil {
		log.Fatal(err)
	}
	if err := c.Set("lowerdir+=/b"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Lower, c.Data, c.Options.ReadOnly)
	fmt.Println(c.Set("lowerdir=/a::/data:/b"))
	// Output:
	// [/a /with:colon /b] [/data] true
	// parse options: option "lowerdir=/a::/data:/b": a lower layer follows a data-only one; correct it or leave it out
}

func ExampleUnmount() {
	err := overlayfallback.Unmount(context.Background(), "/proc")
	fmt.Println(err)
	// Output: unmount "/proc": what is mounted there is not a union but proc; use umount(8)
}
