package httpproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// pipe returns a stream and the other end of its connection.
func pipe(t *testing.T) (*stream, net.Conn) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return &stream{conn: ours}, theirs
}

// readFor reads once and says what came and how long it took.
func readFor(s *stream) (got string, took time.Duration, err error) {
	begin := time.Now()
	b := make([]byte, 10)
	n, err := s.Read(b)
	return string(b[:n]), time.Since(begin), err
}

func TestReadClock(t *testing.T) {
	tests := []struct {
		name  string
		setup func(s *stream, other net.Conn)
		data  time.Duration // when a byte comes; 0 is never
		want  time.Duration // when the Read returns
		ok    bool
	}{
		{"total", func(s *stream, _ net.Conn) { s.rd.total(5 * time.Second) }, 0, 5 * time.Second, false},
		{"total, in time", func(s *stream, _ net.Conn) { s.rd.total(5 * time.Second) }, 4 * time.Second, 4 * time.Second, true},
		{"total, without end", func(s *stream, _ net.Conn) { s.rd.total(-1) }, 1000 * time.Hour, 1000 * time.Hour, true},
		{"each", func(s *stream, _ net.Conn) { s.rd.each(5 * time.Second) }, 0, 5 * time.Second, false},
		{"each, without end", func(s *stream, _ net.Conn) { s.rd.each(-1) }, 1000 * time.Hour, 1000 * time.Hour, true},
		{"a short wait and then a long one", func(s *stream, other net.Conn) {
			s.rd.total(time.Second)
			go other.Write([]byte("x"))
			readFor(s)
			s.rd.total(time.Hour)
		}, 0, time.Hour, false},
		{"a long wait and then a short one", func(s *stream, other net.Conn) {
			s.rd.total(time.Hour)
			go other.Write([]byte("x"))
			readFor(s)
			s.rd.total(time.Second)
		}, 0, time.Second, false},
		{"a short wait and then one without end", func(s *stream, other net.Conn) {
			s.rd.total(time.Second)
			go other.Write([]byte("x"))
			readFor(s)
			s.rd.total(-1)
		}, time.Hour, time.Hour, true},
		{"a deadline that somebody else has cleared", func(s *stream, other net.Conn) {
			s.rd.total(time.Second)
			go other.Write([]byte("x"))
			readFor(s)
			_ = s.conn.SetDeadline(time.Time{})
			s.disarmed()
			s.rd.total(time.Minute)
		}, 0, time.Minute, false},
		{"total counts from the start, whatever comes", func(s *stream, other net.Conn) {
			s.rd.total(5 * time.Second)
			go other.Write([]byte("x"))
			readFor(s)
			time.Sleep(4 * time.Second) // of the test's own clock
		}, 0, time.Second, false},
		{"each counts from each Read", func(s *stream, other net.Conn) {
			s.rd.each(5 * time.Second)
			go other.Write([]byte("x"))
			readFor(s)
			time.Sleep(time.Hour)
		}, 0, 5 * time.Second, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, other := pipe(t)
				tt.setup(s, other)
				if tt.data > 0 {
					time.AfterFunc(tt.data, func() { _, _ = other.Write([]byte("y")) })
				}
				got, took, err := readFor(s)
				if took != tt.want || (err == nil) != tt.ok || tt.ok != (got == "y") {
					t.Errorf("Read returned %q, %v after %v; want success %v after %v", got, err, took, tt.ok, tt.want)
				}
				if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("error %v, want os.ErrDeadlineExceeded", err)
				}
			})
		})
	}
}

// TestWriteClock: a peer that takes a byte now and then is slow, not idle.
func TestWriteClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, other := pipe(t)
		s.wr.each(10 * time.Second)
		go func() {
			var b [1]byte
			for range 5 {
				time.Sleep(9 * time.Second)
				_, _ = other.Read(b[:])
			}
		}()
		begin := time.Now()
		n, err := s.Write([]byte("12345678"))
		// The last byte went after 45 s.
		if took := time.Since(begin); n != 5 || !errors.Is(err, os.ErrDeadlineExceeded) || took < 55*time.Second || took > 65*time.Second {
			t.Errorf("Write returned %d, %v after %v; want 5 bytes, and the deadline 10 to 20 s after the last", n, err, took)
		}
	})
}

func TestStopReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := pipe(t)
		s.rd.each(-1)
		time.AfterFunc(time.Minute, s.stopReads)
		if _, took, err := readFor(s); !errors.Is(err, os.ErrDeadlineExceeded) || took != time.Minute {
			t.Errorf("Read returned %v after %v, want the deadline after a minute", err, took)
		}
		s.rd.each(time.Hour)
		if _, took, err := readFor(s); !errors.Is(err, os.ErrDeadlineExceeded) || took != 0 {
			t.Errorf("the next Read returned %v after %v, want the deadline at once", err, took)
		}
	})
}

// watchFunc is a watcher of one function.
type watchFunc func(now time.Time) (time.Time, error)

func (f watchFunc) watch(now time.Time) (time.Time, error) { return f(now) }

func TestWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, other := pipe(t)
		begin := time.Now()
		var asked []time.Duration
		s.watcher = watchFunc(func(now time.Time) (time.Time, error) {
			asked = append(asked, now.Sub(begin))
			if len(asked) == 3 {
				return time.Time{}, io.ErrClosedPipe
			}
			return now.Add(10 * time.Second), nil
		})
		s.rd.total(time.Hour)
		_, _, err := readFor(s)
		if !errors.Is(err, io.ErrClosedPipe) || len(asked) != 3 || asked[0] != time.Second || asked[1] != 11*time.Second || asked[2] != 21*time.Second {
			t.Errorf("asked at %v, and then %v; want 1s, 11s, 21s and the watcher's error", asked, err)
		}

		// Before it gives up it asks, and the watcher may grant more.
		extended := false
		s.watcher = watchFunc(func(now time.Time) (time.Time, error) {
			if !extended && !now.Before(s.rd.until) {
				extended = true
				s.rd.total(time.Minute)
			}
			return now.Add(10 * time.Second), nil
		})
		s.rd.total(15 * time.Second)
		if _, took, err := readFor(s); !errors.Is(err, os.ErrDeadlineExceeded) || took != 75*time.Second {
			t.Errorf("Read returned %v after %v, want the deadline after 75s", err, took)
		}

		s.watcher = watchFunc(func(time.Time) (time.Time, error) { t.Error("asked, although bytes came"); return time.Time{}, nil })
		s.rd.total(time.Hour)
		time.AfterFunc(500*time.Millisecond, func() { _, _ = other.Write([]byte("x")) })
		if got, _, err := readFor(s); got != "x" || err != nil {
			t.Errorf("Read returned %q, %v", got, err)
		}
	})
}
