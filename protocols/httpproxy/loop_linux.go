package httpproxy

import (
	"errors"
	"os"
	"time"

	"polyport/internal/nonblock"
	"polyport/internal/reactor"
	"polyport/mux"
)

// loopConn returns the connection as its event loop has it; nil if goroutines serve it, or sniffed bytes lie before it.
func (s *stream) loopConn() *reactor.Conn {
	switch c := s.conn.(type) {
	case *reactor.Conn:
		return c
	case *mux.Conn:
		if rc, ok := c.OnLoop(); ok {
			return rc
		}
	}
	return nil
}

// loop returns the loop that has the connection; nil if none has.
func (o *origin) loop() *reactor.Loop {
	if o.on == nil {
		return nil
	}
	return o.on.Loop()
}

// readOnLoop is a Read in a task, into a buffer of get if p is nil. It looks at the clock, and sets a
// deadline, only if it has to wait, and holds no buffer of get while it does.
func (s *stream) readOnLoop(rc *reactor.Conn, p []byte, get func() []byte, put func([]byte)) (b []byte, n int, err error) {
	s.rd.begun = false
	b, n, err = s.readOnLoopWaiting(rc, p, get, put)
	s.endRead()
	return b, n, err
}

func (s *stream) readOnLoopWaiting(rc *reactor.Conn, p []byte, get func() []byte, put func([]byte)) (b []byte, n int, err error) {
	for {
		if rc.Readable() {
			if b = p; get != nil {
				b = get()
			}
			n, err = rc.TryRead(b)
			if get != nil && n == 0 {
				put(b)
				b = nil
			}
			if err != reactor.ErrWait {
				return b, n, rc.Named("read", err)
			}
		}
		if !s.rd.begun {
			if err := s.beginRead(rc.Loop().Clock()); err != nil {
				return nil, 0, err
			}
		}
		if err = rc.AwaitReadable(); err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, 0, err
		}
		if err := s.readFired(); err != nil {
			return nil, 0, err
		}
	}
}

// tryOnLoop writes what the socket takes at once.
func tryOnLoop(rc *reactor.Conn, p []byte) (int, error) {
	n, err := rc.TryWrite(p)
	if err == reactor.ErrWait {
		return n, nil
	}
	return n, rc.Named("write", err)
}

// peekOnLoop is peeker.peek for a connection of a loop.
func peekOnLoop(rc *reactor.Conn) peeked {
	var b [1]byte
	if rc.FD() < 0 {
		return peekError
	}
	return foundBy(nonblock.Peek(uintptr(rc.FD()), b[:]))
}

// beginIdle says when the connection begins to be idle, which is now.
func (o *origin) beginIdle() time.Time {
	if o.on == nil {
		return time.Now()
	}
	o.idleRound = o.on.Loop().Round()
	return o.on.Loop().Clock()
}

// staleOnLoop is stale in a task. Whatever came before this round of the loop has made the connection readable, so the
// socket itself is looked at only if it is, or if the connection became idle in this very round.
func (o *origin) staleOnLoop() bool {
	if !o.on.Readable() && o.idleRound != o.on.Loop().Round() {
		return false
	}
	return peekOnLoop(o.on) != peekQuiet
}

// abortOnLoop closes a connection with a reset.
func abortOnLoop(rc *reactor.Conn) {
	_ = rc.SetLinger(0) // fails only on a closed connection
	_ = rc.Close()
}
