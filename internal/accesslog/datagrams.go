package accesslog

import (
	"strconv"

	"polyport/internal/session"
)

// datagrams appends what a UDP association has carried and, of what went wrong, what did happen.
func (l *line) datagrams(d *session.Datagrams) {
	if d == nil {
		return
	}
	l.num(`,"datagrams_from_client":`, d.FromClient)
	l.num(`,"datagrams_from_target":`, d.FromTarget)
	l.num(`,"targets":`, int64(d.Targets))
	for _, f := range [...]struct {
		key string
		n   int64
	}{
		{`,"datagrams_denied":`, d.Denied},
		{`,"datagrams_fragmented":`, d.Fragmented},
		{`,"datagrams_limited":`, d.Limited},
		{`,"datagrams_dropped":`, d.Dropped},
		{`,"unreachable":`, d.Unreachable},
	} {
		if f.n != 0 {
			l.num(f.key, f.n)
		}
	}
}

// appendDatagrams appends for a person what a UDP association has carried.
func appendDatagrams(b []byte, d *session.Datagrams) []byte {
	if d == nil {
		return b
	}
	b = append(b, " datagrams="...)
	b = strconv.AppendInt(b, d.FromClient, 10)
	b = append(b, '/')
	b = strconv.AppendInt(b, d.FromTarget, 10)
	b = append(b, " targets="...)
	return strconv.AppendInt(b, int64(d.Targets), 10)
}
