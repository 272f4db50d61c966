package overlaytest

import "time"

// remembers is the name of the comparison that Remembered makes.
const remembers = "what the kernel remembers of the tree"

// moment is how long a route may take until all can see a change that it has made on the side.
const moment = 40 * time.Millisecond

// Remembered compares what the kernel remembers of a mounted tree with what anew says of it, exact times as well, on which no two
// mounts agree. A FUSE server has to tell the kernel of each change that this cannot know of.
func Remembered(root string, anew func(root string) (Snapshot, error)) []Difference {
	_, err := SnapRemembered(root) // reads the directories, by which empty ones lose their impure marks
	time.Sleep(moment)
	var remembered, told Snapshot
	if err == nil {
		remembered, err = SnapRemembered(root)
	}
	if err == nil {
		told, err = anew(root)
	}
	if err != nil {
		return []Difference{{root, "snapshot", "ok", err.Error()}}
	}
	return Compare(told, remembered, nil)
}
