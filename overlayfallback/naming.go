package overlayfallback

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Naming is how the overlay route tells the kernel which folders the layers are.
type Naming string

// The ways of naming, in the order in which they are tried.
const (
	Absolute   Naming = "absolute" // as the caller named them
	Relative   Naming = "relative" // relative to a folder that they have in common
	Descriptor Naming = "fd"       // by the numbers of descriptors, relative to the thread's folder of them in /proc
	FSConfig   Naming = "fsconfig" // by fsconfig(2), a descriptor a layer: no limit on the length
)

// namings are the ways in order.
var namings = []Naming{Absolute, Relative, Descriptor, FSConfig}

// optionSpace is how many bytes of options mount(2) takes: a page, less the NUL at its end (copy_mount_options).
const optionSpace = 4096 - 1

// threadFDs is where a thread's own descriptors have names. A thread with descriptors of its own is not in /proc/self/fd.
const threadFDs = "/proc/thread-self/fd"

// spareDescriptors is how many descriptors naming by descriptors leaves to the rest of the process.
const spareDescriptors = 64

// stack is the layers as the kernel is to see them: their names for an options string, or their paths.
type stack struct {
	lower, data []string // topmost first
	upper, work string
}

// stack gives the layers of the union. In a read-only one the upper layer is simply the topmost lower one, since overlayfs
// would write into the work directory even if mounted read-only.
func (c *Config) stack() stack {
	switch {
	case c.Upper == "":
		return stack{lower: c.Lower, data: c.Data}
	case c.Options.ReadOnly:
		return stack{lower: append([]string{c.Upper}, c.Lower...), data: c.Data}
	}
	return stack{c.Lower, c.Data, c.Upper, c.Work}
}

// each calls f for every path of the stack, and returns the stack with what f made of them.
func (s stack) each(f func(path string) (string, error)) (stack, error) {
	var out stack
	var err error
	list := func(in []string) []string {
		names := make([]string, 0, len(in))
		for _, p := range in {
			var n string
			if err == nil {
				n, err = f(p)
			}
			names = append(names, n)
		}
		return names
	}
	out.lower, out.data = list(s.lower), list(s.data)
	if s.upper != "" {
		dirs := list([]string{s.upper, s.work})
		out.upper, out.work = dirs[0], dirs[1]
	}
	return out, err
}

// relativeTo gives the folder that all the paths begin with, as text and never cleaned (a path through a symbolic link and
// `..` means something else when cleaned), and the stack relative to it. The folder is empty if there is none.
func (s stack) relativeTo() (folder string, relative stack) {
	first := true
	s.each(func(p string) (string, error) {
		if first {
			folder, first = p[:strings.LastIndexByte(p, '/')+1], false
		}
		for !strings.HasPrefix(p, folder) {
			folder = folder[:strings.LastIndexByte(folder[:len(folder)-1], '/')+1]
		}
		return "", nil
	})
	if folder == "" {
		return "", s
	}
	relative, _ = s.each(func(p string) (string, error) {
		if p = strings.TrimLeft(p[len(folder):], "/"); p == "" {
			p = "."
		}
		return p, nil
	})
	return folder, relative
}

// byNumber gives the stack with numbers of descriptors as names, as long as the ones that they will have, or longer.
func (s stack) byNumber() stack {
	next := 1000
	named, _ := s.each(func(string) (string, error) {
		next++
		return strconv.Itoa(next), nil
	})
	return named
}

// optionString gives the stack and overlayfs's other options as mount(2) takes them.
func (s stack) optionString(words []string) string {
	all := []string{"lowerdir=" + joinLowerDirs(s.lower, s.data)}
	if s.upper != "" {
		all = append(all, "upperdir="+escape(s.upper), "workdir="+escape(s.work))
	}
	return strings.Join(append(all, words...), ",")
}

// kernelWords gives the options other than the layers as kernel overlayfs takes them in mount(2)'s string.
func kernelWords(o Options) []string {
	words := o.overlayWords()
	for _, l := range o.Labels {
		words = append(words, l.Name+`="`+l.Value+`"`)
	}
	return words
}

// kernelSettings gives the same for fsconfig(2).
func kernelSettings(o Options) []setting {
	var all []setting
	for _, w := range o.overlayWords() {
		key, value, _ := strings.Cut(w, "=")
		all = append(all, keyValue(key, value))
	}
	for _, l := range o.Labels {
		all = append(all, keyValue(l.Name, l.Value))
	}
	return all
}

// nameStack chooses the first way of naming that the machine has and that fits, or takes the one that is wanted. size is the
// length of the options of mount(2), 0 for fsconfig. why says what stood in the way if none does.
func nameStack(want Naming, s stack, o Options, caps *Capabilities) (chosen Naming, size int, why string) {
	for _, n := range namings {
		if want != "" && n != want {
			continue
		}
		if size, why = namingFits(n, s, o, caps); why == "" {
			return n, size, ""
		}
	}
	return "", 0, why
}

// namingFits gives the length of the options named in one way, and why that way cannot be used.
func namingFits(n Naming, s stack, o Options, caps *Capabilities) (size int, why string) {
	named := s
	switch n {
	case Relative:
		folder, relative := s.relativeTo()
		if folder == "" {
			return 0, "the layers have no folder in common"
		}
		named = relative
	case Descriptor:
		named = s.byNumber()
		if need := len(s.lower) + len(s.data) + spareDescriptors; need > caps.Descriptors {
			return 0, fmt.Sprintf("it takes %d descriptors, and the process may open %d", need, caps.Descriptors)
		}
	case FSConfig:
		if !caps.LowerFDs.OK && !caps.LowerPaths.OK {
			return 0, "fsconfig takes no lowerdir+ (" + caps.LowerPaths.Why + ")"
		}
		return 0, ""
	}
	if n != Absolute && !caps.OwnThread.OK {
		return 0, "no thread can have a folder of its own (" + caps.OwnThread.Why + ")"
	}
	if size = len(named.optionString(kernelWords(o))); size > optionSpace {
		return size, "the options take " + strconv.Itoa(size) + " bytes, mount(2) takes " + strconv.Itoa(optionSpace)
	}
	return size, ""
}

// mountFlags gives the flags of mount(2) for a union.
func (o *Options) mountFlags() uintptr {
	flags := o.Flags
	if o.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	return flags
}
