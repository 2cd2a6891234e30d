//go:build !linux

package reactor

import (
	"context"
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
func (l *Loop) Race(context.Context, []netip.AddrPort, time.Duration, time.Time, func(int, error) bool) *Conn {
	return nil
}

// Dial connects to an address.
func (l *Loop) Dial(context.Context, netip.AddrPort, time.Time) (*Conn, error) {
	return nil, ErrUnsupported
}

// Conn is a TCP connection on a loop.
type Conn struct{ *net.TCPConn }

// Abort closes the connection with a reset.
func (c *Conn) Abort() {}

// Loop returns the connection's loop.
func (c *Conn) Loop() *Loop { return nil }

// Detach returns the connection as one of package net.
func (c *Conn) Detach() (*net.TCPConn, error) { return nil, ErrUnsupported }
