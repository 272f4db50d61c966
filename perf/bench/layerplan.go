package bench

import (
	"fmt"
	"hash/fnv"
	"slices"
)

// instance is one directory as one layer holds it.
type instance struct {
	files     map[string]int // name to version: which content it has
	whiteouts []string
	opaque    bool
}

// layerPlan says what each layer holds, before anything is written.
type layerPlan struct {
	spec   Spec
	layers []map[int]*instance // by layer, topmost first, then by directory number
	homes  [][]*instance       // by directory number: its instances, topmost first
}

// One file in shadowEvery has an older version in a lower layer; one in whiteoutEvery stands beside a removed file that a
// whiteout hides; one directory in opaqueEvery is opaque somewhere, above files of its own name.
const (
	shadowEvery   = 10
	whiteoutEvery = 20
	opaqueEvery   = 10
)

func directoryName(dir int) string { return fmt.Sprintf("dir%04d", dir) }

func fileName(dir, file int) string { return fmt.Sprintf("file%04d-%02d", dir, file) }

// mix is the finalizer of splitmix64: the generator's only source of chance, so that equal specs make equal layers.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// chance is a number below n that depends on a, b and c only.
func chance(n, a, b, c int) int {
	return int(mix(mix(mix(uint64(a))+uint64(b))+uint64(c)) % uint64(n))
}

func planLayers(spec Spec) *layerPlan {
	p := &layerPlan{spec: spec, homes: make([][]*instance, spec.Directories())}
	next := 0
	for range spec.Depth {
		layer := make(map[int]*instance)
		for range spec.perLayer() {
			in := &instance{files: make(map[string]int)}
			layer[next] = in
			p.homes[next] = append(p.homes[next], in)
			next = (next + 1) % spec.Directories()
		}
		p.layers = append(p.layers, layer)
	}
	for dir := range p.homes {
		p.fill(dir)
	}
	return p
}

// fill spreads a directory's files over the layers that hold it.
func (p *layerPlan) fill(dir int) {
	homes := p.homes[dir]
	visible := len(homes)
	if dir%opaqueEvery == opaqueEvery-1 && len(homes) > 1 {
		visible = 1 + (len(homes)-1)*3/4
		homes[visible-1].opaque = true
		homes[len(homes)-1].files[fmt.Sprintf("hidden%04d", dir)] = 1
	}
	for file := range p.filesIn(dir) {
		at := chance(visible, dir, file, 0)
		homes[at].files[fileName(dir, file)] = 0
		if at+1 == visible {
			continue
		}
		// Nothing goes below an opaque directory: there kernel overlayfs lists the whiteouts of a directory that merges nothing.
		below := homes[at+1+chance(visible-at-1, dir, file, 1)]
		if file%shadowEvery == 0 {
			below.files[fileName(dir, file)] = 1
		}
		if file%whiteoutEvery == 1 {
			removed := fmt.Sprintf("removed%04d-%02d", dir, file)
			homes[at].whiteouts = append(homes[at].whiteouts, removed)
			below.files[removed] = 1
		}
	}
}

// filesIn is the number of files that a directory shows: the last one takes what the division left over.
func (p *layerPlan) filesIn(dir int) int {
	if dir == len(p.homes)-1 {
		return p.spec.Files - dir*filesInDirectory
	}
	return filesInDirectory
}

// merged returns the small files of the union, in the order of their names.
func (p *layerPlan) merged() []string {
	var out []string
	for dir := range p.homes {
		for file := range p.filesIn(dir) {
			out = append(out, directoryName(dir)+"/"+fileName(dir, file))
		}
	}
	slices.Sort(out)
	return out
}

// mergedTree is the plan of one layer that holds what the union shows.
func (p *layerPlan) mergedTree() map[int]*instance {
	tree := make(map[int]*instance)
	for dir := range p.homes {
		in := &instance{files: make(map[string]int)}
		for file := range p.filesIn(dir) {
			in.files[fileName(dir, file)] = 0
		}
		tree[dir] = in
	}
	return tree
}

// smallContent is 64 to 4,159 bytes that depend on the file's name and version.
func smallContent(dir int, name string, version int) []byte {
	hash := fnv.New64a()
	fmt.Fprint(hash, dir, name, version)
	random := hash.Sum64()
	out := make([]byte, 64+random%4096)
	for i := range out {
		if i%8 == 0 {
			random = mix(random)
		}
		out[i] = byte(random >> (i % 8 * 8))
	}
	return out
}
