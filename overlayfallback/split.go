package overlayfallback

import (
	"errors"
	"slices"
	"strings"
)

// rawOption is one option as written: its value still has its escapes.
type rawOption struct {
	name     string
	value    string
	hasValue bool
}

// String gives the option as it was written.
func (o rawOption) String() string {
	if o.hasValue {
		return o.name + "=" + o.value
	}
	return o.name
}

// quotable are the options whose value may be quoted because it may hold commas (mount(8), security labels). No other value
// is read that way: a quote is an ordinary character in a path.
var quotable = []string{"context", "fscontext", "defcontext", "rootcontext"}

// splitOptions cuts a -o string at its commas. A backslash takes the next character out of the cutting (`\,`, as the kernel's
// ovl_next_opt does), and so do the quotes of a quotable option. Empty options (`,,`) are dropped.
func splitOptions(s string) ([]rawOption, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return nil, &Error{Op: "parse options", Options: s, Err: errors.New("it holds a NUL byte"), Hint: "no file name may hold one"}
	}
	var all []rawOption
	for len(s) > 0 {
		n, err := optionEnd(s)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			name, value, has := strings.Cut(s[:n], "=")
			all = append(all, rawOption{name, value, has})
		}
		s = strings.TrimPrefix(s[n:], ",")
	}
	return all, nil
}

// optionEnd returns the length of the option that s begins with.
func optionEnd(s string) (int, error) {
	quote := quoteStart(s)
	for i := 0; i < len(s); i++ {
		switch {
		case i == quote:
			end := strings.IndexByte(s[i+1:], '"')
			if end < 0 {
				return 0, &Error{Op: "parse options", Options: s, Err: errors.New("the quote is not closed"), Hint: `write it as context="..."`}
			}
			i += end + 1
		case s[i] == '\\':
			i++
		case s[i] == ',':
			return i, nil
		}
	}
	return len(s), nil
}

// quoteStart returns where the quoted value of the first option of s begins, -1 if it has none.
func quoteStart(s string) int {
	name, value, _ := strings.Cut(s, "=")
	if slices.Contains(quotable, name) && strings.HasPrefix(value, `"`) {
		return len(name) + 1
	}
	return -1
}

// unquote takes the quotes from a value such as context="a,b".
func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

var errTrailingBackslash = errors.New("a backslash at the end escapes nothing")

// unescape takes the backslashes from a path: `\x` stands for x, whatever x is (the kernel's ovl_unescape).
func unescape(s string) (string, error) {
	if strings.IndexByte(s, '\\') < 0 {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			if i++; i == len(s) {
				return "", errTrailingBackslash
			}
		}
		b = append(b, s[i])
	}
	return string(b), nil
}

// unescapeOne is for the values of lowerdir+ and datadir+, in which the kernel reads no escapes at all. So that a comma can be
// written, `\,`, `\:` and `\\` stand for the second character; any other backslash is itself.
func unescapeOne(s string) string {
	return strings.NewReplacer(`\\`, `\`, `\,`, `,`, `\:`, `:`).Replace(s)
}

// escape is the reverse of unescape, for a path in a list of options.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`).Replace(path)
}

var (
	errEmptyLayer = errors.New("a layer's path is empty")
	errLowerAfter = errors.New("a lower layer follows a data-only one")
	errColons     = errors.New("more than two colons in a row")
)

// splitLowerDirs cuts the value of lowerdir: `a:b::data1::data2`. A single colon parts lower layers, two begin a data-only
// layer, after which only data-only ones may follow (ovl_parse_param_split_lowerdirs).
func splitLowerDirs(s string) (lower, data []string, err error) {
	list := &lower
	for {
		n := pathEnd(s)
		path, err := unescape(s[:n])
		if err != nil {
			return nil, nil, err
		}
		if path == "" {
			return nil, nil, errEmptyLayer
		}
		*list = append(*list, path)
		switch s = s[n:]; {
		case s == "":
			return lower, data, nil
		case strings.HasPrefix(s, ":::"):
			return nil, nil, errColons
		case strings.HasPrefix(s, "::"):
			list, s = &data, s[2:]
		case list == &data:
			return nil, nil, errLowerAfter
		default:
			s = s[1:]
		}
	}
}

// pathEnd returns the length of the path that s begins with: up to an unescaped colon.
func pathEnd(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case ':':
			return i
		}
	}
	return len(s)
}

// joinLowerDirs is the reverse of splitLowerDirs.
func joinLowerDirs(lower, data []string) string {
	var b strings.Builder
	for i, p := range lower {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(escape(p))
	}
	for _, p := range data {
		b.WriteString("::" + escape(p))
	}
	return b.String()
}
