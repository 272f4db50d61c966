package perf

import "fmt"

// Profile is how much of a FUSE file system's work is left to the kernel.
type Profile string

const (
	// Auto is the choice of Choose.
	Auto Profile = "auto"
	// Cache lets the kernel keep names, attributes, links, directories and pages without end, and open files without
	// asking. What has been read once sends no message again. Works without privileges.
	Cache Profile = "cache"
	// Passthrough has the kernel read and write the backing files itself. It needs CAP_SYS_ADMIN in the initial user
	// namespace, and each open and close is a message.
	Passthrough Profile = "passthrough"
	// Off sends a message for each operation and caches nothing: for comparison and for finding faults.
	Off Profile = "off"
)

// ParseProfile returns the profile of that name, as in the mount option fastpath=NAME. The empty name is Auto.
func ParseProfile(name string) (Profile, error) {
	switch p := Profile(name); p {
	case Auto, Cache, Passthrough, Off:
		return p, nil
	case "":
		return Auto, nil
	}
	return "", fmt.Errorf("fastpath=%s: must be auto, cache, passthrough or off", name)
}

// Choose returns the profile to use where p was asked for. Auto is Cache for everyone: work on many files is bounded by
// messages, of which Cache needs none for a file seen before and Passthrough two for each open; what Passthrough is better
// at, large files read for the first time or written, and page cache shared with the layer, is for those to ask for who
// have such work. Passthrough becomes Cache where backing files cannot be registered (see Conn.RegisterBacking).
func (p Profile) Choose(canRegisterBacking bool) Profile {
	switch {
	case p == Auto, p == "", p == Passthrough && !canRegisterBacking:
		return Cache
	}
	return p
}
