package http2

import (
	"net"
	"sync"
	"sync/atomic"
)

const (
	// inputSize is how much one read of a busy connection takes.
	inputSize = 32 << 10
	// sipSize is how much one read of a quiet connection takes: enough for the head of
	// most requests, little enough to be held by every idle connection.
	sipSize = 512
)

var inputs = sync.Pool{New: func() any { return new([inputSize]byte) }}

// input buffers what comes from the connection. It takes a large buffer of the pool only
// while reads come back with more than a sip, so that connections that wait hold none.
type input struct {
	nc   net.Conn
	big  *[inputSize]byte
	sip  [sipSize]byte
	rest []byte // of big or sip, not yet read
	busy bool   // the last read filled a sip
	err  error
	n    atomic.Int64
}

// fill reads from the connection if nothing is buffered.
func (in *input) fill() error {
	if len(in.rest) > 0 || in.err != nil {
		if len(in.rest) > 0 {
			return nil
		}
		return in.err
	}
	buf := in.buffer()
	var n int
	for n == 0 && in.err == nil {
		n, in.err = in.nc.Read(buf)
	}
	in.n.Add(int64(n))
	in.rest, in.busy = buf[:n], n >= sipSize
	if n > 0 {
		return nil
	}
	return in.err
}

// buffer is where the next read goes.
func (in *input) buffer() []byte {
	if !in.busy {
		in.release()
		return in.sip[:]
	}
	if in.big == nil {
		in.big = inputs.Get().(*[inputSize]byte)
	}
	return in.big[:]
}

// release gives the large buffer back. What it holds is lost.
func (in *input) release() {
	if in.big != nil {
		inputs.Put(in.big)
		in.big, in.rest = nil, nil
	}
}

// Read implements io.Reader for the Framer.
func (in *input) Read(p []byte) (int, error) {
	b, err := in.next(len(p))
	return copy(p, b), err
}

// next returns the next bytes, at most most and at least one. They are valid until the
// next call.
func (in *input) next(most int) ([]byte, error) {
	if most == 0 {
		return nil, nil
	}
	if err := in.fill(); err != nil {
		return nil, err
	}
	n := min(most, len(in.rest))
	b := in.rest[:n]
	in.rest = in.rest[n:]
	return b, nil
}

// skip drops n bytes.
func (in *input) skip(n int) error {
	for n > 0 {
		b, err := in.next(n)
		if err != nil {
			return err
		}
		n -= len(b)
	}
	return nil
}
