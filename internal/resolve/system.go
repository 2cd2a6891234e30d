package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// tryTimeout bounds one query to one name server, so that a lost datagram is
// sent again while the client still waits.
const tryTimeout = 2 * time.Second

// system is the source that asks as /etc/resolv.conf, /etc/nsswitch.conf and
// /etc/hosts say. It is Go's own resolver, never the C library's: a call of
// that cannot be interrupted and does not find a name with a trailing dot, which
// is what turns search domains off, in the hosts file.
type system struct {
	dns   *net.Resolver
	hosts *net.Resolver // knows the hosts file only
	both  families
}

func newSystem(want Family) *system {
	return &system{
		dns:   &net.Resolver{PreferGo: true, Dial: dialImpatient},
		hosts: hostsFile(),
		both:  families{want: want, try: tryTimeout},
	}
}

// hostsFile makes a resolver without name servers, which leaves it the hosts
// file, if nsswitch.conf has it read that.
func hostsFile() *net.Resolver {
	return &net.Resolver{
		PreferGo: true,
		Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("only the hosts file is asked")
		},
	}
}

// inHostsFile returns the addresses that the hosts file has of host. net.Resolver finds a name of
// one label in it only without the trailing dot; one of several is found with it, and then no
// search domain is gone through.
func inHostsFile(ctx context.Context, hosts *net.Resolver, host string) []netip.Addr {
	if strings.Contains(host, ".") {
		host += "."
	}
	addrs, err := hosts.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	return addrs
}

// lookup is a source.
func (s *system) lookup(ctx context.Context, host string) (answer, error) {
	if a, err, ok := special(ctx, s.hosts, host); ok {
		return a, err
	}
	if !strings.Contains(host, ".") { // s.dns would not find it there
		if addrs := inHostsFile(ctx, s.hosts, host); len(addrs) > 0 {
			return answer{addrs: addrs, ttl: systemTTL}, nil
		}
	}
	// Asked for both families, net.Resolver would wait for the slower one to the end.
	return s.both.lookup(ctx, func(ctx context.Context, qtype uint16) (answer, error) {
		network := "ip4"
		if qtype == dns.TypeAAAA {
			network = "ip6"
		}
		addrs, err := s.dns.LookupNetIP(ctx, network, host+".")
		if err != nil {
			return answer{}, systemError(host, err)
		}
		return answer{addrs: addrs, ttl: systemTTL}, nil
	})
}

// close waits for what was asked and is not waited for.
func (s *system) close() { s.both.queries.Wait() }

// special answers the names that no name server is to be asked about.
func special(ctx context.Context, hosts *net.Resolver, host string) (answer, error, bool) {
	switch {
	case below(host, "onion"):
		return answer{}, &Error{Host: host, Kind: ErrNotFound, Err: errors.New("names below onion are not in the DNS")}, true
	case IsLocalhost(host):
		addrs := inHostsFile(ctx, hosts, host)
		if len(addrs) == 0 {
			addrs = []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		}
		return answer{addrs: addrs, ttl: systemTTL}, nil, true
	}
	return answer{}, nil, false
}

// systemError tells the kind of a net.Resolver's error.
func systemError(host string, err error) *Error {
	e := &Error{Host: host, Kind: ErrServer, Err: err}
	var said *net.DNSError
	var other *net.AddrError // the hosts file has the name, with addresses of the other family
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.Kind = ErrTimeout
	case errors.As(err, &other):
		e.Kind = ErrNotFound
	case errors.As(err, &said):
		e.Err = detail(said)
		switch {
		case said.IsNotFound:
			e.Kind = ErrNotFound
		case said.IsTimeout:
			e.Kind = ErrTimeout
		}
	}
	return e
}

// detail is what a net.DNSError says beyond the name.
func detail(e *net.DNSError) error {
	if e.Server == "" {
		return errors.New(e.Err)
	}
	return errors.New(e.Err + ", says " + e.Server)
}

// dialImpatient opens the connection of one query of the system's resolver. The
// resolver heeds the end of ctx only between queries, so it is the connection
// that gives up with it.
func dialImpatient(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	if u, ok := c.(*net.UDPConn); ok {
		return impatient{u}, nil
	}
	return c, nil
}

// impatient is a UDP connection on which nobody waits longer than tryTimeout,
// whatever resolv.conf says (its default is 5 s, all of our patience).
type impatient struct{ *net.UDPConn }

// SetDeadline implements net.Conn.
func (c impatient) SetDeadline(t time.Time) error {
	if soon := time.Now().Add(tryTimeout); t.IsZero() || soon.Before(t) {
		t = soon
	}
	return c.UDPConn.SetDeadline(t)
}
