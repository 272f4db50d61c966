package overlayfallback

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// facts is what the planner knows about the layers and the mount point, beyond their names.
type facts struct {
	aufs      string          // the first AUFS whiteout that the bounded search found
	nested    string          // a lower layer that lies in another, told as a sentence
	onOverlay string          // a layer on an overlay mount
	refused   string          // what kernel overlayfs said of a layer it does not take
	below     string          // a layer that the mount point lies below, across a mount (on one file system that is an error)
	served    bool            // the target is /dev/fd/N, a FUSE connection that is mounted already
	failed    map[Route]error // routes that were tried in vain
}

// folderID tells folders apart, whichever path or mount they are reached by.
type folderID struct{ dev, ino uint64 }

// folder is one folder that was looked at.
type folder struct {
	path string
	id   folderID
}

// survey looks at the layers and the mount point, each once, and keeps what it learns. It opens one folder at a time.
type survey struct {
	config  *Config
	caps    *Capabilities
	parents map[folderID]folderID // of every folder climbed through; the root is its own
	devices map[uint64]bool       // file systems that were asked for their type
	layers  map[folderID]string   // lower and data-only layers by identity, with their paths
	facts   facts
}

func newSurvey(c *Config, caps *Capabilities) *survey {
	return &survey{config: c, caps: caps, parents: map[folderID]folderID{}, devices: map[uint64]bool{}, layers: map[folderID]string{}}
}

// openFolder opens a folder for its name only; symbolic links and `..` are followed as they stand.
func openFolder(path string) (int, error) {
	return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// identify gives a folder's identity.
func identify(fd int) (folderID, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return folderID{st.Dev, st.Ino}, err
}

// look opens a folder, notes which folders it lies in, and what the kernel says of its file system, asked by key ("lowerdir+"
// or "upperdir"; empty for neither).
func (s *survey) look(path, key string) (folder, error) {
	fd, err := openFolder(path)
	if err != nil {
		return folder{}, err
	}
	defer unix.Close(fd)
	id, err := identify(fd)
	if err != nil {
		return folder{}, err
	}
	s.climb(fd, id)
	if key != "" && !s.devices[id.dev] {
		s.devices[id.dev] = true
		s.judgeFileSystem(fd, path, key)
	}
	return folder{path, id}, nil
}

// climb notes the parents of a folder up to the first one that is known.
func (s *survey) climb(fd int, id folderID) {
	at := fd
	for {
		if _, known := s.parents[id]; known {
			break
		}
		up, err := unix.Openat(at, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if at != fd {
			unix.Close(at)
		}
		if err != nil {
			s.parents[id] = id
			return
		}
		at = up
		parent, err := identify(up)
		if err != nil {
			parent = id
		}
		s.parents[id], id = parent, parent
	}
	if at != fd {
		unix.Close(at)
	}
}

// inside finds the first of the folders, by identity, that contains the folder id. With sameFS it looks no further up than the
// file system's root, as kernel overlayfs does.
func (s *survey) inside(id folderID, folders map[folderID]string, sameFS bool) (string, bool) {
	for {
		parent, known := s.parents[id]
		if !known || parent == id || (sameFS && parent.dev != id.dev) {
			return "", false
		}
		if path, found := folders[parent]; found {
			return path, true
		}
		id = parent
	}
}

// judgeFileSystem learns whether a layer lies on an overlay, and whether kernel overlayfs takes it. Nothing is mounted for it.
func (s *survey) judgeFileSystem(fd int, path, key string) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC && s.facts.onOverlay == "" {
		s.facts.onOverlay = path
	}
	if !s.caps.Overlay.OK || !s.caps.LowerFDs.OK || s.facts.refused != "" {
		return
	}
	context, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(context)
	if err := keyFD(key, fd).apply(context); err != nil {
		s.facts.refused = fmt.Sprintf("kernel overlayfs does not take %q as %s: %v", path, strings.TrimSuffix(key, "+"), explained(context, err))
	}
}

// maxSearched is how many folders the search for AUFS whiteouts reads, in all: first each layer's own, then what lies below.
const maxSearched = 2048

// findAUFS looks for AUFS whiteouts in the topmost folders of the layers, breadth first, until one is found or maxSearched
// folders were read. A layer whose only such names lie deeper is not recognised; the option aufs=on is for that.
func (s *survey) findAUFS(layers []string) {
	budget := maxSearched
	for len(layers) > 0 && budget > 0 {
		var below []string
		for _, dir := range layers {
			if budget--; budget < 0 {
				return
			}
			folders, found := searchAUFS(dir)
			if found != "" {
				s.facts.aufs = found
				return
			}
			if len(below) < maxSearched {
				below = append(below, folders...)
			}
		}
		layers = below
	}
}

// searchAUFS reads up to 64 KiB of a folder's names. It returns the folders in it, or the first AUFS whiteout.
func searchAUFS(dir string) (folders []string, found string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, ""
	}
	defer unix.Close(fd)
	buf := make([]byte, 64<<10)
	n, err := unix.ReadDirent(fd, buf)
	if err != nil || n <= 0 {
		return nil, ""
	}
	for rest := buf[:n]; len(rest) > 0; {
		var name string
		var kind byte
		if rest, name, kind = nextEntry(rest); name == "." || name == ".." {
			continue
		}
		if strings.HasPrefix(name, whiteout.AUFSPrefix) {
			return nil, dir + "/" + name
		}
		if kind == unix.DT_DIR {
			folders = append(folders, dir+"/"+name)
		}
	}
	return folders, ""
}

// servedDescriptor reads a target such as /dev/fd/5, which is a FUSE connection that someone else has mounted.
func servedDescriptor(target string) (int, bool) {
	number, ok := strings.CutPrefix(target, "/dev/fd/")
	if !ok {
		return 0, false
	}
	fd, err := strconv.Atoi(number)
	return fd, err == nil && fd > 2
}
