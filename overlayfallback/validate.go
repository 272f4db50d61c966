package overlayfallback

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// check is the Op of the errors that are found before anything is mounted.
const check = "check"

// inspect looks at everything that a configuration names and gives the facts for the planner. It changes nothing on disk. What
// makes a mount wrong whatever the route is an *Error.
func inspect(ctx context.Context, c *Config, caps *Capabilities) (*facts, error) {
	if err := checkWords(c); err != nil {
		return nil, err
	}
	s := newSurvey(c, caps)
	for _, step := range []func(context.Context) error{s.lookAtLayers, s.lookAtUpper, s.lookAtTarget, s.lookAtNames} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return &s.facts, nil
}

// checkWords is what can be found wrong with nothing but the configuration.
func checkWords(c *Config) error {
	if _, err := ParseRoute(string(c.Route)); err != nil {
		return err
	}
	e := &Error{Op: check}
	switch {
	case c.Naming != "" && !slices.Contains(namings, c.Naming):
		e.Err, e.Hint = fmt.Errorf("the naming %q is unknown", c.Naming), "it is one of absolute, relative, fd, fsconfig"
	case c.Remount:
		e.Options, e.Err, e.Hint = "remount", errors.New("it makes no mount"), "leave it out, or have Remount change one"
	case c.Target == "":
		e.Err, e.Hint = errors.New("no mount point"), "name the folder to mount on"
	case len(c.Lower) == 0:
		e.Err, e.Hint = errors.New("no lower layer"), "name one with lowerdir= or --layers-file"
	case c.Upper != "" && c.Work == "" && !c.Options.ReadOnly:
		e.Path, e.Err, e.Hint = c.Upper, errors.New("upperdir without workdir"), "name an empty folder on the same mount with workdir="
	case c.Upper == "" && c.Options.Volatile && !c.Lenient:
		e.Options, e.Err, e.Hint = "volatile", errors.New("there is no upper layer to write to"), "leave it out or name upperdir and workdir"
	default:
		return firstError(checkConflicts(c), checkPaths(c))
	}
	return e
}

// firstError gives the first error there is.
func firstError(errs ...error) error {
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}

// checkConflicts refuses options that contradict each other, as ovl_fs_params_verify does.
func checkConflicts(c *Config) error {
	o := c.Options
	writable := c.Upper != "" && !o.ReadOnly
	var pair string
	switch {
	case o.Metacopy == "on" && (o.RedirectDir == "nofollow" || (writable && (o.RedirectDir == "off" || o.RedirectDir == "follow"))):
		pair = "metacopy=on,redirect_dir=" + o.RedirectDir
	case writable && o.Metacopy == "on" && o.NFSExport == "on":
		pair = "metacopy=on,nfs_export=on"
	case writable && o.Index == "off" && o.NFSExport == "on":
		pair = "index=off,nfs_export=on"
	case o.Verity == "require" && o.Metacopy == "off":
		pair = "verity=require,metacopy=off"
	default:
		return nil
	}
	return &Error{Op: check, Options: pair, Err: errors.New("the options contradict each other"), Hint: "leave one of them out"}
}

// checkPaths refuses what no system call could take.
func checkPaths(c *Config) error {
	for _, p := range append(append(slices.Clone(c.Lower), c.Data...), c.Upper, c.Work, c.Target, c.Source) {
		if strings.IndexByte(p, 0) >= 0 {
			return fault(check, p, errors.New("the path holds a NUL byte"), "no file name may hold one")
		}
	}
	if len(c.Source) > 255 {
		return &Error{Op: check, Source: c.Source, Err: fmt.Errorf("the source is %d bytes long", len(c.Source)), Hint: "the kernel takes 255"}
	}
	if i := slices.Index(append(slices.Clone(c.Lower), c.Data...), ""); i >= 0 {
		return &Error{Op: check, Err: fmt.Errorf("the path of layer %d is empty", i+1), Hint: "name a folder"}
	}
	return nil
}

// lookAtLayers opens every lower and data-only layer once.
func (s *survey) lookAtLayers(ctx context.Context) error {
	c := s.config
	total := len(c.Lower) + len(c.Data)
	for i := range total {
		if err := ctx.Err(); err != nil {
			return &Error{Op: check, Err: err}
		}
		path := layerAt(c, i)
		f, err := s.look(path, "lowerdir+")
		if err != nil {
			return fault(check, path, fmt.Errorf("lower layer %d of %d: %w", i+1, total, err), layerHint(err))
		}
		if _, twice := s.layers[f.id]; twice {
			return fault(check, path, fmt.Errorf("lower layer %d of %d: the same folder is a layer already: %w", i+1, total, unix.ELOOP),
				"name each layer once")
		}
		s.layers[f.id] = path
	}
	for id, path := range s.layers {
		if outer, found := s.inside(id, s.layers, true); found {
			s.facts.nested = fmt.Sprintf("%q lies in %q", path, outer)
			break
		}
	}
	return nil
}

func layerAt(c *Config, i int) string {
	if i < len(c.Lower) {
		return c.Lower[i]
	}
	return c.Data[i-len(c.Lower)]
}

// layerHint says what to do about a folder that cannot be opened.
func layerHint(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT):
		return "create it or correct the path; a comma, colon or backslash in a path is written with a backslash before it"
	case errors.Is(err, unix.ENOTDIR):
		return "name a folder"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "it must be readable for the user who mounts"
	case errors.Is(err, unix.ENAMETOOLONG):
		return "a name holds at most 255 bytes, a path 4095"
	case errors.Is(err, unix.ENOTCONN):
		return "a FUSE mount there has lost its server: unmount it"
	}
	return ""
}

// lookAtUpper checks the writable layer and its work directory, for a union that will be written to.
func (s *survey) lookAtUpper(ctx context.Context) error {
	c := s.config
	if c.Upper == "" {
		return nil
	}
	upper, err := s.look(c.Upper, "upperdir")
	if err != nil {
		return fault(check, c.Upper, fmt.Errorf("upper layer: %w", err), layerHint(err))
	}
	if err := s.apart(upper, "the upper layer"); err != nil {
		return err
	}
	if c.Options.ReadOnly {
		return nil
	}
	work, err := s.look(c.Work, "")
	if err != nil {
		return fault(check, c.Work, fmt.Errorf("work directory: %w", err), layerHint(err))
	}
	if err := s.apart(work, "the work directory"); err != nil {
		return err
	}
	return firstError(s.pair(upper, work), checkWritable(upper), checkWork(work), checkFree(ctx, upper, work, s.caps))
}

// apart refuses an upper or work directory that is a lower layer, lies in one, or holds one.
func (s *survey) apart(f folder, what string) error {
	hint := "keep upper, work and lower layers apart"
	if lower, same := s.layers[f.id]; same {
		return fault(check, f.path, fmt.Errorf("%s is the lower layer %q", what, lower), hint)
	}
	if lower, found := s.inside(f.id, s.layers, true); found {
		return fault(check, f.path, fmt.Errorf("%s lies in the lower layer %q", what, lower), hint)
	}
	for id, lower := range s.layers {
		if _, found := s.inside(id, map[folderID]string{f.id: f.path}, true); found {
			return fault(check, lower, fmt.Errorf("the lower layer lies in %s %q", what, f.path), hint)
		}
	}
	return nil
}

// pair checks that upper and work can work together: on one mount, since files are renamed from work to upper, and neither in
// the other.
func (s *survey) pair(upper, work folder) error {
	if upper.id == work.id {
		return fault(check, work.path, errors.New("upper and work are the same folder"), "name an empty folder beside the upper one")
	}
	if _, found := s.inside(work.id, map[folderID]string{upper.id: ""}, false); found {
		return fault(check, work.path, fmt.Errorf("the work directory lies in the upper layer %q", upper.path), "name a folder beside it")
	}
	if _, found := s.inside(upper.id, map[folderID]string{work.id: ""}, false); found {
		return fault(check, upper.path, fmt.Errorf("the upper layer lies in the work directory %q", work.path), "name a folder beside it")
	}
	if mountOf(upper.path) != mountOf(work.path) || upper.id.dev != work.id.dev {
		return fault(check, work.path, fmt.Errorf("the work directory is on another mount than the upper layer %q: %w", upper.path, unix.EXDEV),
			"files are renamed from work to upper: put both on one mount")
	}
	return nil
}

// mountOf gives the number of the mount that a path lies on, 0 where the kernel does not tell (before Linux 5.8).
func mountOf(path string) uint64 {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st) != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return 0
	}
	return st.Mnt_id
}

// checkWritable refuses an upper layer on a file system that is mounted read-only.
func checkWritable(upper folder) error {
	if err := unix.Access(upper.path, unix.W_OK); errors.Is(err, unix.EROFS) {
		return fault(check, upper.path, fmt.Errorf("upper layer: %w", err), "remount it read-write, or mount the union with ro")
	}
	return nil
}

// checkWork refuses a work directory that holds what is not overlayfs's own, lest it be swept away.
func checkWork(work folder) error {
	fd, err := unix.Open(work.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault(check, work.path, fmt.Errorf("work directory: %w", err), layerHint(err))
	}
	defer unix.Close(fd)
	names, err := namesIn(fd)
	if err != nil {
		return fault(check, work.path, fmt.Errorf("work directory: %w", err), "")
	}
	for _, n := range names {
		if n != "work" && n != "index" {
			return fault(check, work.path, fmt.Errorf("the work directory holds %q: %w", n, unix.ENOTEMPTY), "name an empty folder, nothing but this mount may use it")
		}
	}
	if unix.Faccessat(fd, "work/incompat/volatile", unix.F_OK, 0) == nil {
		return fault(check, filepath.Join(work.path, "work/incompat/volatile"), errors.New("a volatile mount of this upper layer was not ended by an unmount that kept its data"),
			"throw the upper layer away, or remove this folder if you trust what it holds")
	}
	return nil
}

// namesIn lists a small folder.
func namesIn(fd int) ([]string, error) {
	buf := make([]byte, 8<<10)
	n, err := unix.ReadDirent(fd, buf)
	if err != nil {
		return nil, err
	}
	var names []string
	for rest := buf[:n]; len(rest) > 0; {
		var name string
		if rest, name, _ = nextEntry(rest); name != "." && name != ".." && name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// releaseTime is how long a union that was just unmounted may take to let go of its upper layer, be it a server's or the
// kernel's: whoever mounts again at once,
// as containerd does after a failed attempt, is not to be told that it is in use.
const releaseTime = time.Second

// checkFree refuses an upper layer that another mount is using, whichever process or namespace made it.
func checkFree(ctx context.Context, upper, work folder, caps *Capabilities) error {
	until := time.Now().Add(releaseTime)
	for {
		err := heldByKernel(upper, work, caps)
		if err == nil {
			err = heldByServer(work)
		}
		if err == nil || time.Now().After(until) || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// heldByKernel asks kernel overlayfs itself whether it is using the upper layer, in whichever mount namespace. Where that cannot
// be asked, the mounts that can be seen have to do.
func heldByKernel(upper, work folder, caps *Capabilities) error {
	if caps.Overlay.OK && caps.MountAPI.OK {
		if !kernelHolds(upper.path) {
			return nil
		}
		return inUse(upper.path, overlayUsing(upper, work))
	}
	if at := overlayUsing(upper, work); at != "" {
		return inUse(upper.path, at)
	}
	return nil
}

func inUse(path, at string) error {
	by := ""
	if at != "" {
		by = fmt.Sprintf(" mounted at %q", at)
	}
	return fault(check, path, fmt.Errorf("the upper layer is in use by another union%s: %w", by, unix.EBUSY), "unmount that one first, or use another upper layer")
}

// kernelHolds asks for a mount that cannot come about: its work directory is on another mount than its upper one. With index=on
// the kernel looks first whether the upper one is in use (ovl_get_upper), and then at that (ovl_get_workdir), so EBUSY answers
// the question, and nothing is mounted or written.
func kernelHolds(upper string) bool {
	tmpfs, err := detachedMount("tmpfs", 0)
	if err != nil {
		return false
	}
	defer unix.Close(tmpfs)
	elsewhere := fmt.Sprintf("/proc/self/fd/%d", tmpfs)
	fd, err := openFolder(upper)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	here := fmt.Sprintf("/proc/self/fd/%d", fd)
	mount, err := detachedMount("overlay", 0, keyValue("lowerdir", elsewhere), keyValue("upperdir", here), keyValue("workdir", elsewhere), keyValue("index", "on"))
	if err == nil {
		unix.Close(mount)
	}
	return errors.Is(err, unix.EBUSY)
}

// heldByServer tries the lock that our own FUSE server keeps on its work directory.
func heldByServer(work folder) error {
	fd, err := unix.Open(work.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault(check, work.path, fmt.Errorf("work directory: %w", err), layerHint(err))
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fault(check, work.path, fmt.Errorf("the work directory is in use by another union: %w", unix.EBUSY), "unmount that one first, or use another upper layer")
	}
	return nil
}

// lookAtTarget checks the mount point against the layers.
func (s *survey) lookAtTarget(context.Context) error {
	c := s.config
	if _, served := servedDescriptor(c.Target); served {
		s.facts.served = true
		return nil
	}
	f, err := s.look(c.Target, "")
	if err != nil {
		return &Error{Op: check, Target: c.Target, Err: fmt.Errorf("mount point: %w", err), Hint: targetHint(err)}
	}
	for _, p := range []string{c.Upper, c.Work} {
		if p != "" {
			if id, err := s.look(p, ""); err == nil {
				s.layers[id.id] = p
			}
		}
	}
	if layer, found := s.inside(f.id, s.layers, true); found {
		return &Error{Op: check, Target: c.Target, Path: layer, Err: errors.New("the mount point lies in this layer"), Hint: "mount outside of the layers; on top of one is fine"}
	}
	s.facts.below, _ = s.inside(f.id, s.layers, false)
	if _, isLayer := s.layers[f.id]; isLayer {
		return nil
	}
	return checkBusy(c.Target)
}

func targetHint(err error) string {
	if errors.Is(err, unix.ENOENT) {
		return "create the folder first"
	}
	return layerHint(err)
}

// checkBusy refuses to mount over another union: mounting on top of anything else is ordinary, but two unions on one mount
// point are a mount done twice. (A union on top of one that is a layer of it was let through before.)
func checkBusy(target string) error {
	fd, err := openFolder(target)
	if err != nil {
		return &Error{Op: check, Target: target, Err: err}
	}
	defer unix.Close(fd)
	m, found := mountedAt(fd)
	if !found || !m.isUnion() {
		return nil
	}
	return &Error{Op: check, Target: target, Err: fmt.Errorf("a union (%s) is mounted there already: %w", m.Type, unix.EBUSY), Hint: "unmount it first"}
}

// lookAtNames searches the layers for AUFS whiteouts, where it matters.
func (s *survey) lookAtNames(context.Context) error {
	if a := s.config.Options.AUFS; a == "" || a == "auto" {
		s.findAUFS(s.config.Lower)
	}
	return nil
}
