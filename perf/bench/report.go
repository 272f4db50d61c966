package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Report is everything that a run has found. Its JSON form is what `unionfs-deep bench --json` prints.
type Report struct {
	Made     time.Time       `json:"made"`
	Commands []string        `json:"commands"` // the command lines that made it
	Machine  Machine         `json:"machine"`
	Subjects []SubjectReport `json:"subjects"`
	Results  []*Result       `json:"results"`
	Verdicts []Verdict       `json:"verdicts"`

	figures map[string]Figure // by name, to print
}

// Machine is where a report was made.
type Machine struct {
	Kernel     string `json:"kernel"`
	Processors int    `json:"processors"`
	Memory     int64  `json:"memory"` // in bytes
	FileSystem string `json:"file_system"`
	User       int    `json:"user"`
}

// SubjectReport says what a subject is, or why it was left out.
type SubjectReport struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	LeftOut string `json:"left_out,omitempty"`
}

// Result is one figure of one subject at one depth.
type Result struct {
	Work     string    `json:"work"`
	Figure   string    `json:"figure"`
	Title    string    `json:"title"`
	Unit     Unit      `json:"unit"`
	Depth    int       `json:"depth"`
	Files    int       `json:"files"`
	DataMiB  int       `json:"data_mib,omitempty"` // size of the large file
	Subject  string    `json:"subject"`
	Values   []float64 `json:"values"` // one for each run, in order
	Median   float64   `json:"median"`
	Least    float64   `json:"least"`
	Greatest float64   `json:"greatest"`
	// DaemonCPU is the median of the daemon's processor time in seconds; nil: no daemon, or not a timed figure.
	DaemonCPU *float64 `json:"daemon_cpu,omitempty"`
	// Requests is the median of the requests that the daemon counted; nil: not known.
	Requests *int64 `json:"requests,omitempty"`
	// Exceeded says that the run was cut when its time was over: the values are lower bounds.
	Exceeded bool   `json:"exceeded,omitempty"`
	LeftOut  string `json:"left_out,omitempty"` // why there are no values
}

func describeMachine(dir string) Machine {
	m := Machine{Processors: runtime.NumCPU(), User: os.Getuid()}
	m.Kernel, _ = kernelRelease()
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	m.FileSystem = fileSystemName(dir)
	return m
}

// fileSystemName names the usual file systems by their magic numbers, others by the number itself.
func fileSystemName(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return "unknown"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.TMPFS_MAGIC: "tmpfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.XFS_SUPER_MAGIC: "xfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	}
	if name, ok := names[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("%#x", st.Type)
}

// find returns the result of a figure, or nil.
func (r *Report) find(figure string, depth int, subject string) *Result {
	at := slices.IndexFunc(r.Results, func(x *Result) bool {
		return x.Figure == figure && x.Depth == depth && x.Subject == subject
	})
	if at < 0 {
		return nil
	}
	return r.Results[at]
}

// add stores the samples of a cell. Requests and processor time are the medians over those samples that have them.
func (x *Result) add(samples []Sample) {
	var cpu, requests []float64
	for _, s := range samples {
		x.Values = append(x.Values, s.Value)
		x.Exceeded = x.Exceeded || s.Exceeded
		if s.CPU >= 0 {
			cpu = append(cpu, s.CPU)
		}
		if s.Requests >= 0 {
			requests = append(requests, float64(s.Requests))
		}
	}
	x.Median, x.Least, x.Greatest = median(x.Values), slices.Min(x.Values), slices.Max(x.Values)
	if len(cpu) > 0 {
		x.DaemonCPU = new(median(cpu))
	}
	if len(requests) > 0 {
		x.Requests = new(int64(median(requests)))
	}
}

// median returns the middle of the values, the mean of the middle two if their number is even. There must be one at least.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Failed returns the verdicts of the targets that were missed.
func (r *Report) Failed() []Verdict {
	return slices.DeleteFunc(slices.Clone(r.Verdicts), func(v Verdict) bool { return v.Mark != Fail })
}

// WriteJSON writes the report, indented.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// Merge adds what another run found. Where both have a result or a subject, the other's stands. The targets are judged anew.
func (r *Report) Merge(other *Report) {
	r.Made, r.Machine = other.Made, other.Machine
	r.Commands = append(r.Commands, other.Commands...)
	r.Subjects = slices.DeleteFunc(r.Subjects, func(old SubjectReport) bool {
		return slices.ContainsFunc(other.Subjects, func(s SubjectReport) bool { return s.Name == old.Name })
	})
	r.Subjects = append(r.Subjects, other.Subjects...)
	for _, x := range other.Results {
		r.Results = slices.DeleteFunc(r.Results, func(old *Result) bool {
			return old.Figure == x.Figure && old.Depth == x.Depth && old.Subject == x.Subject
		})
	}
	r.Results = append(r.Results, other.Results...)
	r.sort()
	r.Verdicts = nil
	for _, block := range r.blocks() {
		r.Verdicts = append(r.Verdicts, r.judge(r.figures[block[0].Figure], block[0].Depth)...)
	}
}

// sort puts the subjects into their order, and the results into that of works, figures, depths and subjects.
func (r *Report) sort() {
	place := make(map[string]int)
	for _, w := range Works() {
		for _, f := range w.Figures() {
			place[f.Name] = len(place)
		}
	}
	subject := make(map[string]int)
	for i, s := range Subjects("", false) {
		subject[s.Name()] = i
	}
	slices.SortStableFunc(r.Subjects, func(a, b SubjectReport) int { return cmp.Compare(subject[a.Name], subject[b.Name]) })
	slices.SortStableFunc(r.Results, func(a, b *Result) int {
		return cmp.Or(cmp.Compare(place[a.Figure], place[b.Figure]), cmp.Compare(a.Depth, b.Depth),
			cmp.Compare(subject[a.Subject], subject[b.Subject]))
	})
}

// ReadJSON reads a report that WriteJSON wrote, so that its table and charts can be made again.
func ReadJSON(from io.Reader) (*Report, error) {
	r := &Report{figures: figuresOf(Works())}
	if err := json.NewDecoder(from).Decode(r); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	return r, nil
}

func figuresOf(works []Work) map[string]Figure {
	out := make(map[string]Figure)
	for _, w := range works {
		for _, f := range w.Figures() {
			out[f.Name] = f
		}
	}
	return out
}

// commandLine quotes arguments as a shell would take them.
func commandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = arg
		if arg == "" || strings.ContainsAny(arg, " \t\n\"'$&|;<>()*?[]\\`") {
			quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
