package http1

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// lateSource is a LateReader of parts; it cannot be one for the first early of them.
type lateSource struct {
	parts []string
	early int
	late  int // how often ReadLate has read
}

func (s *lateSource) Read(p []byte) (int, error) {
	if len(s.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; s.parts[0] == "" {
		s.parts = s.parts[1:]
		s.early--
	}
	return n, nil
}

func (s *lateSource) ReadLate(get func() []byte, put func([]byte)) ([]byte, int, error) {
	switch {
	case s.early > 0:
		return nil, 0, errors.ErrUnsupported
	case len(s.parts) == 0:
		put(get())
		return nil, 0, io.EOF
	}
	s.late++
	b := get()
	n, err := s.Read(b)
	return b, n, err
}

// TestReadLate: a buffer is asked for late where a message begins, and nowhere else.
func TestReadLate(t *testing.T) {
	first, second, third := simpleRequest[:5], simpleRequest[5:], strings.Repeat(simpleRequest, 2)
	for early := range 4 {
		s := &lateSource{parts: []string{first, second, third}, early: early}
		r, req := NewReader(s), new(Request)
		for i := range 3 {
			if i == 1 {
				if err := r.Wait(); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.ReadRequest(req); err != nil || req.Method != "GET" {
				t.Fatalf("%d early, request %d: %v", early, i, err)
			}
		}
		if want := []int{2, 1, 1, 0}[early]; s.late != want {
			t.Errorf("%d early: ReadLate has read %d times, want %d", early, s.late, want)
		}
		if err := r.Wait(); err != io.EOF || r.buf != nil {
			t.Errorf("%d early: Wait at the end: %v and a buffer of %d bytes", early, err, len(r.buf))
		}
	}
}
