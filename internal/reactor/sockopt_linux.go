package reactor

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// SetLinger is that of net.TCPConn.
func (c *Conn) SetLinger(sec int) error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	linger := unix.Linger{Linger: int32(sec)}
	if sec >= 0 {
		linger.Onoff = 1
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger))
}

// keepAlive are the probes that package net would set at once.
var keepAlive = []struct{ level, option, value int }{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
}

// KeepAlive has the system look after a peer that is silent for 60 s (RFC 1122 section 4.2.3.6): once that has not answered for 135 s
// more, the connection fails.
func (c *Conn) KeepAlive() error {
	for _, o := range keepAlive {
		if err := unix.SetsockoptInt(c.fd, o.level, o.option, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}
