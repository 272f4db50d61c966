package unionfs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/unionfs-deep/unionfs-deep/perf"
)

// Values of Options.RedirectDir, as of overlayfs's mount option redirect_dir.
const (
	RedirectOn       = "on"       // renaming a lower directory makes a redirect; redirects are followed
	RedirectFollow   = "follow"   // redirects are followed, not made
	RedirectNoFollow = "nofollow" // redirects are neither made nor followed
	RedirectOff      = "off"      // as the kernel is built: not made, but followed (redirect_always_follow)
)

// Forever, as Options.Timeout, lets the kernel keep what it knows without end.
const Forever = 1 << 31 * time.Second

// Options say what a union is made of.
type Options struct {
	Lower []string // lower layers, topmost first
	Data  []string // data-only layers, topmost first
	Upper string   // upper layer; empty for a read-only union
	Work  string   // work directory, on the file system of Upper

	ReadOnly    bool   // nothing may be written, although an upper layer is named
	UserXattr   bool   // user.overlay.* xattrs instead of trusted.overlay.*
	RedirectDir string // one of Redirect*; empty is RedirectOff
	Metacopy    bool   // a change of metadata copies up the metadata alone
	Index       bool   // hard links of a lower file stay one file when they are copied up
	Volatile    bool   // skip all syncing
	NFSExport   bool   // accepted; file handles always can be made

	AUFSWhiteouts bool // honour .wh.NAME and .wh..wh..opq in the layers

	Timeout   time.Duration // how long the kernel may keep names and attributes; Forever unless layers change by themselves
	Writeback bool          // let the kernel gather writes
	Fastpath  perf.Profile  // how much is left to the kernel; empty is perf.Auto
	Backings  int           // files registered for passthrough at a time; 0 for the default

	// MountPoint is an O_PATH descriptor of the mount point, taken before mounting: layers at or below the mount point are
	// reached through it. May be nil where none is.
	MountPoint *os.File
	Log        *slog.Logger // nil to be silent
}

func (o *Options) check() error {
	if len(o.Lower) == 0 && o.Upper == "" {
		return errors.New("unionfs: no layers: name at least one lower directory")
	}
	if (o.Upper == "") != (o.Work == "") {
		return errors.New("unionfs: upper and work directory go together: name both or none")
	}
	switch o.RedirectDir {
	case "":
		o.RedirectDir = RedirectOff
	case RedirectOn, RedirectFollow, RedirectNoFollow, RedirectOff:
	default:
		return fmt.Errorf("unionfs: redirect_dir=%s: must be on, follow, nofollow or off", o.RedirectDir)
	}
	if o.UserXattr && (o.RedirectDir == RedirectOn || o.Metacopy) {
		return errors.New("unionfs: redirect_dir=on and metacopy=on need trusted xattrs, not userxattr")
	}
	if o.Volatile && o.Upper == "" {
		return errors.New("unionfs: volatile needs an upper directory")
	}
	return nil
}

// profile is the fast path that the options ask for.
func (o *Options) profile() perf.Profile {
	return o.Fastpath.Choose(os.Getuid() == 0)
}

// offlineChanges reports whether layers may be changed between mounts (ovl_allow_offline_changes): no feature is on that
// keeps in the upper layer what is true of the lower ones now.
func (o *Options) offlineChanges() bool {
	return !o.Index && !o.Metacopy && o.RedirectDir != RedirectOn
}
