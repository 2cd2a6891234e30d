package reactor

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Event is what has happened to a connection.
type Event uint32

// Events; several may come together.
const (
	Readable Event = unix.EPOLLIN | unix.EPOLLRDHUP
	Writable Event = unix.EPOLLOUT
	Failed   Event = unix.EPOLLERR | unix.EPOLLHUP // reset, or ended in both directions
)

// An Owner is told of the events of its connection, on the loop. Each is told once: what it
// does not read or write now, it has to remember.
type Owner interface {
	// Watched hands the Conn over before its first event. It must only keep it.
	Watched(c *Conn)
	// Happened tells what has happened. It must not block.
	Happened(c *Conn, e Event)
}

// ErrWait says that a Try method would have to wait; an event will say when to try again.
var ErrWait = errors.New("the connection is not ready")

// Conn is a TCP connection on a loop. As a net.Conn it serves tasks: its methods then wait as those
// of package net do, while the loop goes on. One task at a time may use it. All methods but Loop, and
// the two addresses once they are known, are for the loop alone.
type Conn struct {
	fd       int // -1 once closed
	loop     *Loop
	owner    Owner // nil while a task has it
	waiting  *Task // waits for wanted
	wanted   Event
	events   uint32 // what epoll is asked for
	readable bool   // a read may find something
	ending   bool   // the peer has ended its side, or worse: every read finds something
	urgent   bool   // it has sent urgent data, at which reads stop short (tcp(7))
	hungUp   bool   // reset, or ended in both directions
	writable bool   // connected, or failed
	peer     netip.AddrPort
	until    [2]time.Duration // deadlines of reads and writes; 0 is none
}

const (
	forRead = iota
	forWrite
)

// Loop returns the connection's loop.
func (c *Conn) Loop() *Loop { return c.loop }

// Own gives the connection to an owner, which hears of further events in place of a task.
func (c *Conn) Own(o Owner) { c.owner = o }

// Readable reports whether a read may find something, so that a new owner knows where it stands.
func (c *Conn) Readable() bool { return c.readable }

// HungUp reports whether the connection has been reset, or has ended in both directions, as far as events have told.
func (c *Conn) HungUp() bool { return c.hungUp }

// happened passes events on.
func (c *Conn) happened(events uint32) {
	e := Event(events)
	if e&(Readable|Failed) != 0 {
		c.readable = true
	}
	if e&(unix.EPOLLRDHUP|Failed) != 0 {
		c.ending = true
	}
	if events&unix.EPOLLPRI != 0 {
		c.urgent = true
	}
	if e&Failed != 0 {
		c.hungUp = true
	}
	if e&(Writable|Failed) != 0 {
		c.writable = true
	}
	switch {
	case c.fd < 0: // closed by what another one of this round had to say
	case c.owner != nil:
		c.owner.Happened(c, e)
	case c.waiting != nil && e&(c.wanted|Failed) != 0:
		c.waiting.resume()
	}
}

// TryRead reads what has arrived into b, without waiting. The error is io.EOF,
// ErrWait, net.ErrClosed or a syscall.Errno.
func (c *Conn) TryRead(b []byte) (int, error) {
	switch {
	case c.fd < 0:
		return 0, net.ErrClosed
	case !c.readable:
		return 0, ErrWait
	}
	n, errno := sysRead(c.fd, b)
	if t := c.loop.task; t != nil {
		t.takeTurn(n)
	}
	return c.received(n, len(b), errno)
}

// TrySpliceTo moves up to n bytes of what has arrived into the pipe whose writing end is out, without waiting. The errors
// are those of TryRead.
func (c *Conn) TrySpliceTo(out, n int) (int, error) {
	switch {
	case c.fd < 0:
		return 0, net.ErrClosed
	case !c.readable:
		return 0, ErrWait
	}
	m, errno := sysSplice(c.fd, out, n)
	// A splice may stop early for want of room in the pipe, so it never says that the socket is empty.
	return c.received(m, 0, errno)
}

// received judges a read that asked for size bytes. One that got fewer has emptied the socket: unless
// the peer has ended its side, the next would only hear EAGAIN, and an event comes with the next bytes.
func (c *Conn) received(n, size int, errno syscall.Errno) (int, error) {
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		c.readable = errno == unix.EINTR
		return 0, ErrWait
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	if n < size && !c.ending && !c.urgent {
		c.readable = false
	}
	return n, nil
}

// TryWrite writes as much of b as the socket takes, without waiting. After ErrWait, and after less than
// all, call AwaitRoom; then Writable says when to go on.
func (c *Conn) TryWrite(b []byte) (int, error) {
	if c.fd < 0 {
		return 0, net.ErrClosed
	}
	n, errno := sysWrite(c.fd, b)
	return sent(n, errno)
}

// TrySpliceFrom passes up to n bytes of the pipe whose reading end is in on, without waiting. As TryWrite.
func (c *Conn) TrySpliceFrom(in, n int) (int, error) {
	if c.fd < 0 {
		return 0, net.ErrClosed
	}
	m, errno := sysSplice(in, c.fd, n)
	if errno == 0 && m == 0 {
		return 0, io.ErrUnexpectedEOF // the pipe holds less than was put in
	}
	return sent(m, errno)
}

func sent(n int, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
		return n, nil
	case unix.EAGAIN, unix.EINTR:
		return 0, ErrWait
	}
	return 0, errno
}

// AwaitRoom asks for a Writable event once the socket takes bytes again; if it does so now, the event comes at once.
func (c *Conn) AwaitRoom() { c.ask(c.events | unix.EPOLLOUT) }

// AwaitDrain is AwaitRoom for after ErrWait: by then the kernel is going to tell by itself, if it has once been asked.
func (c *Conn) AwaitDrain() {
	if c.events&unix.EPOLLOUT == 0 {
		c.AwaitRoom()
	}
}

// Mute asks for no events of bytes that arrive, until Unmute: who waits for room elsewhere need not be woken for each
// of them. The peer's end, urgent data and failures are told as ever.
func (c *Conn) Mute() {
	if c.events&unix.EPOLLIN != 0 {
		c.ask(c.events &^ unix.EPOLLIN)
	}
}

// Unmute takes Mute back. An event comes at once if bytes have arrived.
func (c *Conn) Unmute() {
	if c.events&unix.EPOLLIN == 0 {
		c.ask(c.events | unix.EPOLLIN)
	}
}

// ask changes what epoll is asked for. That has the kernel look anew, even if nothing changes.
func (c *Conn) ask(events uint32) {
	if c.fd < 0 {
		return
	}
	c.events = events
	_ = sysEpollCtl(c.loop.epoll, unix.EPOLL_CTL_MOD, c.fd, events) // fails on no watched socket
}

// Read implements net.Conn for tasks.
func (c *Conn) Read(b []byte) (int, error) {
	for {
		if err := c.check(forRead); err != nil || len(b) == 0 {
			return 0, c.failed("read", err)
		}
		n, err := c.TryRead(b)
		if err != ErrWait {
			return n, c.failed("read", err)
		}
		if err := c.AwaitReadable(); err != nil {
			return 0, err
		}
	}
}

// AwaitReadable lets a task wait until a TryRead may find something, or until the read deadline.
func (c *Conn) AwaitReadable() error { return c.failed("read", c.await(Readable, c.until[forRead])) }

// Named makes the error of a Try method one of the operation, as package net does; nil, io.EOF and ErrWait stay as they are.
func (c *Conn) Named(op string, err error) error {
	if err == ErrWait {
		return err
	}
	return c.failed(op, err)
}

// Write implements net.Conn for tasks.
func (c *Conn) Write(b []byte) (total int, err error) {
	for {
		if err := c.check(forWrite); err != nil {
			return total, c.failed("write", err)
		}
		if len(b) == 0 {
			return total, nil
		}
		n, err := c.TryWrite(b)
		b, total = b[n:], total+n
		switch {
		case err == ErrWait:
			c.AwaitRoom()
			if err := c.await(Writable, c.until[forWrite]); err != nil {
				return total, c.failed("write", err)
			}
		case err != nil:
			return total, c.failed("write", err)
		}
	}
}

// check says why a read or write cannot even begin.
func (c *Conn) check(way int) error {
	switch until := c.until[way]; {
	case c.fd < 0:
		return net.ErrClosed
	case until > 0 && until <= c.loop.now:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// await lets the task that runs wait for an event, until a moment of loop time; 0 is never.
func (c *Conn) await(e Event, until time.Duration) error {
	t := c.loop.task
	if t == nil {
		panic("reactor: a Conn was waited for outside of a task")
	}
	c.waiting, c.wanted = t, e
	err := t.wait(until)
	c.waiting = nil
	if c.fd < 0 {
		return net.ErrClosed
	}
	return err
}

// failed dresses an error as package net does. io.EOF and nil stay as they are.
func (c *Conn) failed(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// CloseWrite ends our side of the stream.
func (c *Conn) CloseWrite() error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	if errno := sysShutdown(c.fd, unix.SHUT_WR); errno != 0 {
		return os.NewSyscallError("shutdown", errno)
	}
	return nil
}

// Close implements net.Conn. A task that waits for the connection hears net.ErrClosed; an owner hears nothing.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	c.loop.forget(c)
	sysClose(c.fd) // which takes it out of epoll too
	c.fd = -1
	if t := c.waiting; t != nil {
		c.loop.Defer(t.resume)
	}
	return nil
}

// Abort closes the connection with a reset and, other than Close, lets its owner hear that it has failed.
func (c *Conn) Abort() {
	if c.fd < 0 {
		return
	}
	_ = c.SetLinger(0) // fails on no socket
	_ = c.Close()
	if o := c.owner; o != nil {
		c.loop.Defer(func() { o.Happened(c, Readable|Failed) })
	}
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.Local()) }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.peer) }

// Local returns our own address. The system is asked each time; a closed connection has none.
func (c *Conn) Local() netip.AddrPort {
	if c.fd < 0 {
		return netip.AddrPort{}
	}
	return sysName(c.fd)
}

// Peer returns the other side's address.
func (c *Conn) Peer() netip.AddrPort { return c.peer }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setUntil(forRead, t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setUntil(forWrite, t) }

func (c *Conn) setUntil(way int, t time.Time) error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	c.until[way] = 0
	if !t.IsZero() {
		c.until[way] = since(t)
	}
	return nil
}

// FD returns the descriptor, -1 once the connection is closed. It is for looking at the socket and for its options: whoever
// reads, writes or closes it takes the loop by surprise.
func (c *Conn) FD() int { return c.fd }
