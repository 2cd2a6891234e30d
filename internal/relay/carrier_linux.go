package relay

import (
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	minChunk = 64 << 10  // the least that a splice asks for
	maxChunk = pipeSize  // the most
	fairRoom = 256 << 10 // room in the destination that is worth a splice, though it is less than a third
)

// carrier moves the bytes of one direction between two sockets. It begins with
// read and write and splices once a read has filled the buffer. It holds a
// buffer or a pipe only while bytes are in it, never while it waits for its source,
// and no pipe while it waits for its destination.
//
// A carrier belongs to one goroutine. Its callbacks run inside the runtime's lock on the
// descriptor: true ends the call, false waits for the descriptor and calls again. Each
// has to try before it returns false, since only what changes after the try wakes it.
type carrier struct {
	t      *Tunnel
	d      int
	buf    *buffer
	data   []byte // read and not yet delivered; in buf, or on the heap
	pipe   *pipe
	left   int   // bytes in pipe
	n      int   // what the last call has moved
	err    error // how the last call has failed
	chunk  int   // what a splice asks for: doubled while the destination takes it all, else halved
	limit  int   // chunk, or what the destination has room for
	bulk   bool  // splice, since reads fill the buffer
	copies bool  // never splice: this socket cannot
	joined bool  // counted as a user of the pipe pool

	onRead, onWrite, onRoom, onFill, onPour func(fd uintptr) bool
}

var carriers = sync.Pool{New: func() any {
	c := new(carrier)
	c.onRead, c.onWrite, c.onRoom, c.onFill, c.onPour = c.read, c.write, c.room, c.fill, c.pour
	return c
}}

// carry relays one direction between bare TCP connections until it ends or is parked.
func (t *Tunnel) carry(d int) {
	c := carriers.Get().(*carrier)
	c.t, c.d, c.data, c.chunk = t, d, t.flows[d].pending, minChunk
	t.flows[d].pending = nil
	o, ended, err := c.run()
	cut := c.left > 0 || len(c.data) > 0
	c.release()
	if !ended {
		return // parked: another goroutine may have it already
	}
	t.flows[d].cut = cut
	switch o {
	case finished:
		t.endOfFile(d)
	default:
		t.over(d, o, err)
	}
}

// release gives everything back. A pipe with bytes in it is closed.
func (c *carrier) release() {
	if c.buf != nil {
		buffers.Put(c.buf)
	}
	if c.pipe != nil {
		pipes.put(c.pipe, c.left)
	}
	if c.joined {
		pipes.leave()
	}
	*c = carrier{onRead: c.onRead, onWrite: c.onWrite, onRoom: c.onRoom, onFill: c.onFill, onPour: c.onPour}
	carriers.Put(c)
}

// run moves bytes until the direction ends; ended is false if it was parked instead.
func (c *carrier) run() (o outcome, ended bool, err error) {
	for {
		switch {
		case len(c.data) > 0:
			o, err = writeFailed, c.deliver()
		case c.bulk:
			o, err = c.splice()
		default:
			o, err = readFailed, c.copyIn()
		}
		if err == nil {
			continue
		}
		if err == io.EOF {
			return finished, true, nil
		}
		if o != readFailed || !isTimeout(err) {
			return o, true, err
		}
		goOn, parked := c.t.roused(c.d)
		if !goOn {
			return o, !parked, err
		}
	}
}

// copyIn reads once. io.EOF is the end of the source.
func (c *carrier) copyIn() error {
	if err := c.t.raw[c.d].Read(c.onRead); err != nil {
		return err
	}
	if c.err != nil {
		return c.err
	}
	c.data = c.buf[:c.n]
	c.bulk = c.n == len(c.buf) && !c.copies
	if c.bulk && !c.joined {
		c.joined = true
		pipes.join()
	}
	return nil
}

// read is the callback of copyIn.
func (c *carrier) read(fd uintptr) bool {
	c.buf = buffers.Get().(*buffer)
	c.n, c.err = ignoringEINTR(func() (int, error) { return unix.Read(int(fd), c.buf[:]) })
	if c.err == nil && c.n > 0 {
		return true
	}
	buffers.Put(c.buf)
	c.buf = nil
	if c.err == nil {
		c.err = io.EOF
	}
	return c.err != unix.EAGAIN
}

// deliver writes all of data.
func (c *carrier) deliver() error {
	if err := c.t.raw[1-c.d].Write(c.onWrite); err != nil {
		return err
	}
	return c.err
}

// write is the callback of deliver.
func (c *carrier) write(fd uintptr) bool {
	for len(c.data) > 0 {
		c.n, c.err = unix.Write(int(fd), c.data)
		switch {
		case c.n > 0:
			c.data = c.data[c.n:]
			c.t.deliver(c.d, c.n)
		case c.err == unix.EAGAIN:
			return false
		case c.err != unix.EINTR:
			return true
		}
	}
	c.data = nil
	if c.buf != nil {
		buffers.Put(c.buf)
		c.buf = nil
	}
	return true
}

// splice passes one chunk through a pipe. It asks for no more than the
// destination has room for, so that what a slow receiver does not take stays
// in the source's socket, where the sender's window holds it back, and not in a pipe.
func (c *carrier) splice() (outcome, error) {
	if err := c.t.raw[1-c.d].Write(c.onRoom); err != nil {
		return writeFailed, err
	}
	if err := c.t.raw[c.d].Read(c.onFill); err != nil {
		return readFailed, err
	}
	if c.err != nil {
		return readFailed, c.err
	}
	if c.pipe == nil {
		return readFailed, c.copyIn()
	}
	c.bulk = c.left >= bufferSize
	if err := c.t.raw[1-c.d].Write(c.onPour); err != nil {
		return writeFailed, err
	}
	if c.err != nil {
		return writeFailed, c.err
	}
	if c.left > 0 {
		c.chunk = max(minChunk, c.chunk/2)
		return readFailed, c.salvage()
	}
	c.chunk = min(maxChunk, 2*c.chunk)
	c.returnPipe()
	return finished, nil
}

// room is the callback that waits until the destination takes bytes and says how many.
func (c *carrier) room(fd uintptr) bool {
	room, writable, known := sendRoom(fd)
	if known && !writable && room < fairRoom && !pollWritable(fd) {
		return false
	}
	c.limit = c.chunk
	if known {
		// The buffer is accounted with the kernel's overhead, some percent of the payload.
		c.limit = min(c.limit, max(room-room/8, bufferSize))
	}
	return true
}

// fill is the callback that takes bytes from the source into a pipe. It leaves
// no pipe behind if none can be had, or splice(2) does not serve this socket.
func (c *carrier) fill(fd uintptr) bool {
	if c.pipe = pipes.get(); c.pipe == nil {
		c.err = nil
		return true
	}
	c.left, c.err = ignoringEINTR(func() (int, error) {
		n, err := unix.Splice(int(fd), nil, c.pipe.w, nil, c.limit, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		return int(n), err
	})
	if c.err == nil && c.left > 0 {
		return true
	}
	c.left = 0
	c.returnPipe()
	switch c.err {
	case nil:
		c.err = io.EOF
	case unix.EAGAIN:
		return false
	case unix.EINVAL, unix.ENOSYS, unix.ENOMEM:
		c.copies, c.err = true, nil
	}
	return true
}

// pour is the callback that takes bytes from the pipe to the destination. It never waits.
func (c *carrier) pour(fd uintptr) bool {
	for c.left > 0 {
		n, err := unix.Splice(c.pipe.r, nil, int(fd), nil, c.left, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		switch {
		case n > 0:
			c.left -= int(n)
			c.t.deliver(c.d, int(n))
		case err == unix.EAGAIN:
			return true
		case err != unix.EINTR:
			if c.err = err; err == nil {
				c.err = io.ErrUnexpectedEOF // the pipe holds less than was put in
			}
			return true
		}
	}
	return true
}

// salvage moves what the destination has not taken out of the pipe, so that a
// receiver that stalls holds memory in proportion to its bytes, and no pipe.
func (c *carrier) salvage() error {
	b := make([]byte, c.left)
	for at := 0; at < len(b); {
		n, err := ignoringEINTR(func() (int, error) { return unix.Read(c.pipe.r, b[at:]) })
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("%d spliced bytes are lost in a pipe: %w", c.left, err)
		}
		at += n
	}
	c.data, c.left = b, 0
	c.returnPipe()
	return nil
}

// returnPipe gives the empty pipe back.
func (c *carrier) returnPipe() {
	pipes.put(c.pipe, c.left)
	c.pipe = nil
}

// ignoringEINTR repeats a system call that a signal has interrupted.
func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}
