//go:build !linux

package httpproxy

import (
	"errors"
	"time"

	"polyport/internal/reactor"
)

// No connection is on a loop on this system, and what takes one is never called.

func (s *stream) loopConn() *reactor.Conn { return nil }
func (o *origin) loop() *reactor.Loop     { return nil }

func (s *stream) readOnLoop(*reactor.Conn, []byte, func() []byte, func([]byte)) ([]byte, int, error) {
	return nil, 0, errors.ErrUnsupported
}

func tryOnLoop(*reactor.Conn, []byte) (int, error) { return 0, errors.ErrUnsupported }
func peekOnLoop(*reactor.Conn) peeked              { return peekError }
func (o *origin) beginIdle() time.Time             { return time.Now() }
func (o *origin) staleOnLoop() bool                { return true }
func abortOnLoop(*reactor.Conn)                    {}
