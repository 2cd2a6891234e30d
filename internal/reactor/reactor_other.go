//go:build !linux

package reactor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// Loop is an event loop; there is none on this system, and what stands here is never called.
type Loop struct{}

func newLoop() (*Loop, error) { return nil, ErrUnsupported }

func (l *Loop) kill()  {}
func (l *Loop) close() {}

// Post has f called on the loop.
func (l *Loop) Post(func()) {}

// Go runs f as a task.
func (l *Loop) Go(func()) {}

// Aside calls f in a goroutine of its own.
func (l *Loop) Aside(func()) {}

// Adopt puts connections on the loop.
func (l *Loop) Adopt(...*net.TCPConn) ([]*Conn, error) { return nil, ErrUnsupported }

// Race connects to one of several addresses.
func (l *Loop) Race(context.Context, []netip.AddrPort, time.Duration, time.Time, func(int, int) error, func(int, error) bool) *Conn {
	return nil
}

// Dial connects to an address.
func (l *Loop) Dial(context.Context, netip.AddrPort, time.Time, func(int) error) (*Conn, error) {
	return nil, ErrUnsupported
}

// Conn is a TCP connection on a loop.
type Conn struct{ *net.TCPConn }

// Abort closes the connection with a reset.
func (c *Conn) Abort() {}

// KeepAlive has the system look after a silent peer.
func (c *Conn) KeepAlive() error { return ErrUnsupported }

// Loop returns the connection's loop.
func (c *Conn) Loop() *Loop { return nil }

// Detach returns the connection as one of package net.
func (c *Conn) Detach() (*net.TCPConn, error) { return nil, ErrUnsupported }

// PacketConn is a UDP socket on a loop.
type PacketConn struct{}

// OpenPacket opens a UDP socket.
func OpenPacket(netip.AddrPort, PacketOptions) (*PacketConn, error) { return nil, ErrUnsupported }

// Share lets others share the socket's port.
func (p *PacketConn) Share() error { return ErrUnsupported }

// Watch puts the socket on a loop.
func (p *PacketConn) Watch(*Loop, PacketOwner) error { return ErrUnsupported }

// Local returns the address that the socket is bound to.
func (p *PacketConn) Local() netip.AddrPort { return netip.AddrPort{} }

// Device fails with ErrUnsupported.
func (p *PacketConn) Device() (string, error) { return "", ErrUnsupported }

// Loop returns the socket's loop.
func (p *PacketConn) Loop() *Loop { return nil }

// Close closes the socket.
func (p *PacketConn) Close() error { return nil }

// Receive takes datagrams that have arrived.
func (p *PacketConn) Receive() (found []Datagram, more bool) { return nil, false }

// Send takes one datagram to be sent.
func (p *PacketConn) Send(_ *Loop, _ netip.AddrPort, _ netip.Addr, _, _ []byte) {}

// Flush sends what Send has gathered.
func (p *PacketConn) Flush(*Loop) Sent { return Sent{} }

// Set has a Timer expire after a delay.
func (l *Loop) Set(*Timer, time.Duration) {}

// Stop keeps a Timer from expiring.
func (l *Loop) Stop(*Timer) {}

// Now returns the loop's time.
func (l *Loop) Now() time.Duration { return 0 }

// Defer has f called once the others have had their turn.
func (l *Loop) Defer(func()) {}

// ReceiveAll calls take for all datagrams that have arrived.
func (p *PacketConn) ReceiveAll(func([]Datagram)) {}

// Scratch returns a buffer that all connections of the loop share.
func (l *Loop) Scratch() []byte { return nil }

// Own gives the connection to an owner.
func (c *Conn) Own(Owner) {}

// TryRead reads what has arrived, without waiting.
func (c *Conn) TryRead([]byte) (int, error) { return 0, ErrUnsupported }

// Event is what has happened to a connection.
type Event uint32

// Readable is that a read may find something.
const Readable Event = 1

// ErrWait says that a Try method would have to wait.
var ErrWait = errors.New("the connection is not ready")

// An Owner is told of the events of its connection.
type Owner interface {
	Watched(c *Conn)
	Happened(c *Conn, e Event)
}
