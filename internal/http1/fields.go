package http1

import (
	"iter"
	"slices"
)

// Fields is the ordered list of field lines of one head. Names keep the case in which
// they came, values are without the white space around them. The slices that its
// methods return point into the buffer of the Reader: they must not be changed and are
// valid until the next call of a method of that Reader but Buffered, BodyDone and
// Count. The list is empty from the first such call on that needs the buffer for
// something else, never someone else's.
type Fields struct {
	buf  []byte // the head, from its start line on
	list []span
}

// span is one field line: where it stands in the head, so that the buffer may move, and
// what is known of its name.
type span struct {
	name, value       uint32
	nameLen, valueLen uint16 // a line is shorter than MaxHead
	id                fieldID
	class             nameClass
}

// Len returns the number of field lines.
func (f *Fields) Len() int { return len(f.list) }

// At returns the field line at index i.
func (f *Fields) At(i int) (name, value []byte) {
	s := &f.list[i]
	return f.name(s), f.value(s)
}

func (f *Fields) name(s *span) []byte {
	end := s.name + uint32(s.nameLen)
	return f.buf[s.name:end:end]
}

func (f *Fields) value(s *span) []byte {
	end := s.value + uint32(s.valueLen)
	return f.buf[s.value:end:end]
}

// All iterates over the field lines in their order.
func (f *Fields) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for i := range f.list {
			if !yield(f.At(i)) {
				return
			}
		}
	}
}

// Get returns the value of the first field line of that name, in any case. The value is
// nil if there is none, and empty but not nil if there is one without a value.
func (f *Fields) Get(name string) []byte {
	for i := range f.list {
		if s := &f.list[i]; EqualFold(f.name(s), name) {
			return f.value(s)
		}
	}
	return nil
}

// Count returns the number of field lines of that name, in any case.
func (f *Fields) Count(name string) (n int) {
	for i := range f.list {
		if EqualFold(f.name(&f.list[i]), name) {
			n++
		}
	}
	return n
}

// Values iterates over the values of the field lines of that name, in any case, in
// their order.
func (f *Fields) Values(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := range f.list {
			s := &f.list[i]
			if EqualFold(f.name(s), name) && !yield(f.value(s)) {
				return
			}
		}
	}
}

// HasToken reports whether the comma-separated list that all field lines of that name
// make up together (RFC 9110 section 5.3) has token as an element, both in any case.
func (f *Fields) HasToken(name, token string) bool {
	for i := range f.list {
		s := &f.list[i]
		if EqualFold(f.name(s), name) && hasElement(f.value(s), token) {
			return true
		}
	}
	return false
}

// Remove removes every field line of that name, in any case.
func (f *Fields) Remove(name string) {
	f.RemoveFunc(func(n []byte) bool { return EqualFold(n, name) })
}

// RemoveFunc removes every field line for whose name drop returns true. The name comes
// as it was sent: compare it with EqualFold.
func (f *Fields) RemoveFunc(drop func(name []byte) bool) {
	f.list = slices.DeleteFunc(f.list, func(s span) bool { return drop(f.name(&s)) })
}

// first returns the value of the first field line with that id, nil if there is none.
func (f *Fields) first(id fieldID) []byte {
	for i := range f.list {
		if f.list[i].id == id {
			return f.value(&f.list[i])
		}
	}
	return nil
}

// only returns the value of the field line with that id and how many there are; the
// value is nil unless it is exactly one.
func (f *Fields) only(id fieldID) (value []byte, n int) {
	for i := range f.list {
		if f.list[i].id == id {
			value = f.value(&f.list[i])
			n++
		}
	}
	if n != 1 {
		return nil, n
	}
	return value, n
}

// forget empties the list, keeping its memory: what it pointed to is about to change.
func (f *Fields) forget() { f.buf, f.list = nil, f.list[:0] }
