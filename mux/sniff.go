package mux

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// SniffOptions bounds the time that a client has to show what it speaks.
type SniffOptions struct {
	// Timeout bounds the whole of it, PROXY header included, from accept to the
	// decision. Zero means 5 s; negative is not allowed.
	Timeout time.Duration
	// SilentAfter is how long a client may send nothing at all before it is
	// taken for one that waits for its server to speak first, and gets SilentRow.
	// It matters only when SilentRow is set. Zero means 2 s.
	SilentAfter time.Duration
	// SilentRow is the row of such clients; "" lets them wait until Timeout.
	SilentRow string
	// Pause is how long a client may send nothing more before the rows that
	// cannot say a definite no are asked at once (Row.AtPause). Zero means 200 ms.
	Pause time.Duration
}

const (
	defaultSniffTimeout = 5 * time.Second
	defaultSilentAfter  = 2 * time.Second
	defaultPause        = 200 * time.Millisecond
)

// withDefaults fills in what is zero.
func (o SniffOptions) withDefaults() SniffOptions {
	if o.Timeout <= 0 {
		o.Timeout = defaultSniffTimeout
	}
	if o.SilentAfter <= 0 {
		o.SilentAfter = defaultSilentAfter
	}
	if o.Pause <= 0 {
		o.Pause = defaultPause
	}
	return o
}

// sniffSize is the most that is read before a decision. An HTTP request line
// with a known method is decided by its first bytes, so only lines that begin
// like nothing we know are ever cut by it.
const sniffSize = 4 << 10

type sniffBuffer [sniffSize]byte

var sniffBuffers = sync.Pool{New: func() any { return new(sniffBuffer) }}

// RowReject is the row of what no row of the table matches.
const RowReject = "reject"

// errSilent says that the client sent nothing within SilentAfter.
var errSilent = errors.New("the client sent nothing")

// sniffer decides one connection.
type sniffer struct {
	c         *Conn
	rows      []Row
	opts      *SniffOptions
	silentRow string // that of opts, if it is among rows
	start     time.Time
	deadline  time.Time // in total
	paused    bool      // the rows that are asked at a pause have been
}

// sniff finds the row that c speaks and leaves the bytes that it took in c's
// prefix. A Cause other than "" says why there is none.
func (s *sniffer) sniff() (row string, cause Cause, err error) {
	var more error
	if len(s.c.prefix) == 0 { // else the PROXY header has brought the first bytes along
		more = s.more()
	}
	for {
		if row, cause, err = s.judge(more); row != "" || cause != "" {
			return row, cause, err
		}
		more = s.more()
	}
}

// judge decides on what there is after a read that ended with more: a row or a Cause, or neither as long as the
// client has to send more.
func (s *sniffer) judge(more error) (row string, cause Cause, err error) {
	defer func() {
		if p := recover(); p != nil {
			row, cause, err = "", MatcherPanicked, fmt.Errorf("%v\n%s", p, debug.Stack())
		}
	}()
	final := false
	switch {
	case more == nil:
	case errors.Is(more, errSilent):
		return s.silentRow, "", nil
	case errors.Is(more, errPaused):
		s.paused = true
	case errors.Is(more, errFull), errors.Is(more, io.EOF) && len(s.c.prefix) > 0:
		s.paused, final = true, true
	case errors.Is(more, os.ErrDeadlineExceeded):
		return "", SniffTimeout, nil
	default:
		return "", ClosedEarly, more
	}
	if row, ok := s.decide(final); ok {
		return row, "", nil
	}
	return "", "", nil
}

// decide asks the table about the bytes so far. It returns false when a row that
// stands above every match needs more of them; final says that there will be no more, so
// that NeedMore counts as no. What no row matches is RowReject's.
func (s *sniffer) decide(final bool) (row string, ok bool) {
	for i := range s.rows {
		match := s.rows[i].Match
		atPause := s.rows[i].AtPause
		if s.paused && atPause != nil {
			match = atPause
		}
		switch match(s.c.prefix) {
		case Match:
			return s.rows[i].Name, true
		case NeedMore:
			if !final && (!s.paused || atPause == nil) {
				return "", false
			}
		}
	}
	return RowReject, true
}

// Errors by which more reports that it read nothing.
var (
	errPaused = errors.New("the client paused")
	errFull   = errors.New("the sniff buffer is full")
)

// more reads what has arrived, or waits for it until the nearest of the deadlines.
func (s *sniffer) more() error {
	if len(s.c.prefix) >= sniffSize {
		return errFull
	}
	until, soon := s.until()
	if err := s.c.nc.SetReadDeadline(until); err != nil {
		return err
	}
	err := s.c.fill()
	if soon != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return soon
	}
	return err
}

// until is how long to wait for more, and what it means if none comes: nil is that the time is up.
func (s *sniffer) until() (until time.Time, soon error) {
	until = s.deadline
	if len(s.c.prefix) == 0 && s.silentRow != "" {
		until, soon = s.start.Add(s.opts.SilentAfter), errSilent
	} else if len(s.c.prefix) > 0 && !s.paused {
		until, soon = time.Now().Add(s.opts.Pause), errPaused
	}
	if until.After(s.deadline) {
		return s.deadline, nil
	}
	return until, soon
}

// grow makes room behind the prefix and returns it.
func (c *Conn) grow() []byte {
	if c.buf == nil {
		buf := sniffBuffers.Get().(*sniffBuffer)
		n := copy(buf[:], c.prefix)
		c.buf, c.prefix = buf, buf[:n]
	}
	return c.buf[len(c.prefix):]
}

// took adds n bytes, which grow's room now holds, to the prefix.
func (c *Conn) took(n int) { c.prefix = c.buf[:len(c.prefix)+n] }

// fillPlain reads once into the sniff buffer, which it holds while it waits.
func (c *Conn) fillPlain() error {
	n, err := c.nc.Read(c.grow())
	c.took(n)
	if n > 0 {
		return nil
	}
	c.ended = err == io.EOF
	c.releaseEmpty()
	return err
}

// releaseEmpty gives a buffer back into which nothing was read.
func (c *Conn) releaseEmpty() {
	if len(c.prefix) == 0 {
		c.dropBuffer()
	}
}
