package http2

// closing is how a stream came to its end (RFC 9113 section 5.1, "closed").
type closing uint8

const (
	neverOpen closing = iota // or too long ago to be known
	byEnd                    // both sides said END_STREAM
	byClient                 // the client reset it
	byUs                     // we reset it: frames under way are to be ignored
)

// closedList remembers how the last streams came to their ends.
type closedList struct {
	list []closedStream
	at   int
	most int
}

type closedStream struct {
	id  uint32
	how closing
}

func (l *closedList) add(id uint32, how closing) {
	if len(l.list) < l.most {
		l.list = append(l.list, closedStream{id, how})
		return
	}
	l.list[l.at] = closedStream{id, how}
	l.at = (l.at + 1) % l.most
}

// resetToo notes that the client has reset a stream that had ended already: of that one
// nothing more can be under way.
func (l *closedList) resetToo(id uint32) {
	for i := range l.list {
		if l.list[i].id == id {
			l.list[i].how = byClient
		}
	}
}

func (l *closedList) how(id uint32) closing {
	for _, s := range l.list {
		if s.id == id {
			return s.how
		}
	}
	return neverOpen
}
