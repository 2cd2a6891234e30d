package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"polyport/internal/target"
)

// Server is one address of a backend: a name or an IP address, and a port.
type Server struct {
	Name string     // normalised; "" when Addr is set
	Addr netip.Addr // unmapped; keeps its zone, since the owner may mean a link-local one
	Port uint16
}

var errNoPort = errors.New("port is not a number from 1 to 65535")

// ParseServer reads "host:port", "192.0.2.1:22" or "[2001:db8::1]:22". It
// allocates nothing for an address.
func ParseServer(hostport string) (Server, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return Server{}, fmt.Errorf("%q is not \"host:port\" (an IPv6 address is written \"[::1]:22\"): %w", hostport, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Server{}, fmt.Errorf("%q: %w", hostport, errNoPort)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return Server{Addr: a.Unmap(), Port: uint16(n)}, nil
	}
	t, err := target.New(host, uint16(n))
	if err != nil {
		return Server{}, fmt.Errorf("%q: %w", hostport, err)
	}
	if a, ok := t.Addr(); ok {
		return Server{Addr: a, Port: uint16(n)}, nil
	}
	return Server{Name: t.Host(), Port: uint16(n)}, nil
}

// String returns the server as ParseServer reads it.
func (s Server) String() string {
	if s.Addr.IsValid() {
		return netip.AddrPortFrom(s.Addr, s.Port).String()
	}
	return net.JoinHostPort(s.Name, strconv.FormatUint(uint64(s.Port), 10))
}
