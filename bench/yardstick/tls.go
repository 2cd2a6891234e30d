package yardstick

import (
	"crypto/tls"
	"net"
	"net/netip"

	"polyport/bench/loopback"
)

// TLS is crypto/tls with as little as possible around it: an echo server for
// handshakes, and a relay to one target for bulk.
type TLS struct {
	Config *tls.Config    // nil is none: an echo server without TLS
	Target netip.AddrPort // of what is not for the echo
}

// Serve serves clients until l is closed. What begins with E is echoed without
// it, as the origin does; anything else goes to the target.
func (t TLS) Serve(l net.Listener) { loopback.Serve(l, t.serve) }

func (t TLS) serve(tcp *net.TCPConn) {
	defer tcp.Close()
	var c stream = tcp
	if t.Config != nil {
		s := tls.Server(tcp, t.Config) // the first read makes the handshake
		defer s.Close()
		c = s
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		return
	}
	if b[0] == 'E' {
		echo(c, b, b[1:n])
		return
	}
	target, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(t.Target))
	if err != nil {
		return
	}
	defer target.Close()
	if _, err := target.Write(b[:n]); err == nil {
		join(c, target)
	}
}

// echo writes what has come already, and then what it reads into b.
func echo(c net.Conn, b, come []byte) {
	for {
		if len(come) > 0 {
			if _, err := c.Write(come); err != nil {
				return
			}
		}
		n, err := c.Read(b)
		if err != nil {
			return
		}
		come = b[:n]
	}
}
