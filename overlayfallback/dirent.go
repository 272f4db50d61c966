package overlayfallback

import (
	"bytes"
	"encoding/binary"
)

// nextEntry reads the first struct linux_dirent64 of what getdents64(2) returned, and gives what follows it.
func nextEntry(b []byte) (rest []byte, name string, kind byte) {
	const lengthAt, kindAt, nameAt = 16, 18, 19
	if len(b) < nameAt {
		return nil, "", 0
	}
	length := int(binary.NativeEndian.Uint16(b[lengthAt:]))
	if length < nameAt || length > len(b) {
		return nil, "", 0
	}
	raw := b[nameAt:length]
	if end := bytes.IndexByte(raw, 0); end >= 0 {
		raw = raw[:end]
	}
	return b[length:], string(raw), b[kindAt]
}
