package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"polyport/internal/socks"
)

// connect4 asks for a tunnel by SOCKS4 or, to a name, SOCKS4a.
func (p *Proxy) connect4(c net.Conn, to Destination) error {
	b, err := socks.AppendRequest4(nil, socks.Request4{
		Command: socks.Connect, Target: to.socks(), UserID: p.user,
	})
	if err != nil {
		return p.unusable("cannot be asked for "+to.String(), err)
	}
	// Whatever the target says at once stays on the connection, which is to be the tunnel itself.
	r := socks.NewExactReader(c)
	defer r.Release()
	reply, err := exchange(c, r, b, socks.ParseReply4)
	switch {
	case err != nil:
		return p.broken(err)
	case reply.Code != socks.Granted:
		return p.refused4(reply.Code, to)
	}
	return nil
}

// connect5 asks for a tunnel by SOCKS5 (RFC 1928).
func (p *Proxy) connect5(c net.Conn, to Destination) error {
	r := socks.NewExactReader(c) // as in connect4
	defer r.Release()
	_, err := p.request5(c, r, socks.Request5{Command: socks.Connect, Target: to.socks()}, to.String())
	return err
}

// socks returns the destination as SOCKS has it.
func (d Destination) socks() socks.Address {
	return socks.Address{Name: d.Host, IP: d.addr(), Port: d.Port}
}

// request5 greets, logs in where the proxy wants it, and sends a request. what is what it asks for, in words.
func (p *Proxy) request5(c net.Conn, r *socks.Reader, request socks.Request5, what string) (socks.Reply5, error) {
	b, err := socks.AppendRequest5(nil, request)
	if err != nil {
		return socks.Reply5{}, p.unusable("cannot be asked for "+what, err)
	}
	if err := p.greet5(c, r); err != nil {
		return socks.Reply5{}, err
	}
	reply, err := exchange(c, r, b, socks.ParseReply5)
	switch {
	case err != nil:
		return reply, p.unanswered(err, true)
	case reply.Code != socks.Succeeded:
		return reply, p.refused5(reply.Code, request.Command, what)
	}
	return reply, nil
}

// greet5 offers no authentication, and a password where there is one (RFC 1928 section 3).
func (p *Proxy) greet5(c net.Conn, r *socks.Reader) error {
	methods := []socks.Method{socks.NoAuthentication}
	hasUser := p.user != "" || p.password != ""
	if hasUser {
		methods = append(methods, socks.UsernamePassword)
	}
	b, err := socks.AppendGreeting(nil, methods...)
	if err != nil {
		return p.unusable("cannot be greeted", err)
	}
	method, err := exchange(c, r, b, socks.ParseSelection)
	switch {
	case err != nil:
		return p.broken(err)
	case method == socks.NoAuthentication:
		return nil
	case method == socks.UsernamePassword && hasUser:
		return p.logIn5(c, r)
	case method == socks.NoAcceptable:
		return p.unauthorized(int(method), "SOCKS5 method FF, no acceptable methods")
	}
	return &Error{
		Reason: reasonConfiguration, Server: true, Status: int(method), Proxy: p.name,
		words: fmt.Sprintf("chose SOCKS5 method %02X, which was not offered", byte(method)),
	}
}

// logIn5 is RFC 1929.
func (p *Proxy) logIn5(c net.Conn, r *socks.Reader) error {
	b, err := socks.AppendCredentials(nil, socks.Credentials{User: p.user, Password: p.password})
	if err != nil {
		return p.unusable("cannot be sent the credentials", err)
	}
	status, err := exchange(c, r, b, socks.ParseStatus)
	switch {
	case err != nil:
		return p.broken(err)
	case status != socks.StatusSuccess:
		return p.unauthorized(int(status), fmt.Sprintf("RFC 1929 status %d", status))
	}
	return nil
}

// exchange sends a message and reads the one that answers it.
func exchange[M any](c net.Conn, r *socks.Reader, message []byte, parse func([]byte) (M, int, error)) (m M, err error) {
	if _, err := c.Write(message); err != nil {
		return m, err
	}
	return socks.Read(r, parse)
}

var (
	errRelayName = errors.New("the relay is given by name")
	errRelayPort = errors.New("the relay has no port")
	errRelayPeer = errors.New("the relay is given without an address, and the connection has none either")
)

// Associate asks for a UDP relay (UDP ASSOCIATE, RFC 1928 section 7) for datagrams that come from local; the zero AddrPort
// says that this is not known yet. The association lasts as long as the control connection, which has all deadlines
// cleared. A relay without an address is at that of the connection's peer. The scheme must be SOCKS5 or SOCKS5S; the other
// arguments and the error are those of Open.
func (p *Proxy) Associate(ctx context.Context, deadline time.Time, dial DialFunc, local netip.AddrPort) (
	control net.Conn, relay netip.AddrPort, err error,
) {
	if p.scheme != SOCKS5 && p.scheme != SOCKS5S {
		return nil, relay, p.unusable("cannot carry UDP: it is not socks5 or socks5s", nil)
	}
	if !local.IsValid() {
		local = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	control, err = p.with(ctx, deadline, dial, func(c net.Conn) (_ net.Conn, err error) {
		relay, err = p.associate(c, local)
		return c, err
	})
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return control, relay, nil
}

func (p *Proxy) associate(c net.Conn, local netip.AddrPort) (relay netip.AddrPort, err error) {
	r := socks.NewExactReader(c)
	defer r.Release()
	from := socks.Address{IP: local.Addr().Unmap().WithZone(""), Port: local.Port()}
	reply, err := p.request5(c, r, socks.Request5{Command: socks.UDPAssociate, Target: from}, "UDP")
	if err != nil {
		return relay, err
	}
	addr := reply.Bound.IP.Unmap()
	if addr.IsUnspecified() {
		addr = socks.Peer(c).Addr()
	}
	switch {
	case reply.Bound.Name != "":
		err = errRelayName
	case reply.Bound.Port == 0:
		err = errRelayPort
	case !addr.IsValid():
		err = errRelayPeer
	default:
		return netip.AddrPortFrom(addr, reply.Bound.Port), nil
	}
	return relay, &Error{
		Reason: reasonTerminated, Server: true, Heard: true, Proxy: p.name, Err: err, words: "names no relay for UDP", // as in refused5
	}
}
