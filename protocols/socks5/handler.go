package socks5

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/session"
	"polyport/internal/socks"
	"polyport/internal/target"
	"polyport/mux"
)

// conversation is what the handler needs of a *session.Session.
type conversation interface {
	Conn() *mux.Conn
	Timeouts() session.Timeouts
	SetVersion(string)
	SetMethod(string)
	SetStatus(int)
	SetReason(string)
	UserMethods() (anonymous, password bool)
	Authenticate(context.Context, auth.Credentials) (auth.Identity, error)
	Authorize(context.Context, target.Target) (*egress.Permit, error)
	Established()
	Dial(context.Context, *egress.Permit) (net.Conn, error)
	Relay(target net.Conn)
	Associate(from netip.AddrPort) (bound netip.AddrPort, err error)
	binder
}

// serve speaks the protocol from the greeting to the reply.
func serve(ctx context.Context, s conversation) error {
	if req, ok := s.Carried().(socks.Request5); ok {
		return bind(ctx, s, req)
	}
	s.SetVersion("SOCKS5")
	req, err := negotiate(ctx, s)
	if err != nil {
		return refuse(s, err)
	}
	switch req.Command {
	case socks.Bind:
		return beginBind(ctx, s, req)
	case socks.UDPAssociate:
		return associate(s, req)
	}
	conn, err := open(ctx, s, req)
	if err != nil {
		return refuse(s, err)
	}
	if err := succeed(s, conn); err != nil {
		_ = conn.Close()
		return err
	}
	s.Relay(conn)
	return nil
}

// negotiate reads all that the client says before its data. Data that it sent ahead
// goes back to the connection.
func negotiate(ctx context.Context, s conversation) (socks.Request5, error) {
	c := s.Conn()
	r := socks.NewReader(c)
	defer func() {
		c.Unread(r.Rest())
		r.Release()
	}()
	greeting, err := socks.Read(r, socks.ParseGreeting)
	if err != nil {
		return socks.Request5{}, fmt.Errorf("read the SOCKS5 greeting: %w", err)
	}
	method := choose(greeting, s)
	if method == socks.NoAcceptable {
		return socks.Request5{}, noMethod(greeting)
	}
	if _, err := c.Write(socks.AppendSelection(nil, method)); err != nil {
		return socks.Request5{}, fmt.Errorf("write the method selection: %w", err)
	}
	if method == socks.UsernamePassword {
		if err := authenticate(ctx, s, r); err != nil {
			return socks.Request5{}, err
		}
	}
	req, err := socks.Read(r, socks.ParseRequest5)
	if errors.Is(err, socks.ErrAddressType) {
		err = refuseWith(socks.AddressTypeNotSupported, requestError, err)
	}
	if err != nil {
		return req, fmt.Errorf("read the SOCKS5 request: %w", err)
	}
	return req, nil
}

// choose picks the method: a password wherever there are users to check it against, so that
// rules on users can apply, else none. A client whom no rule would admit without a user is let
// through to the rules all the same if there are no users: then they refuse it in the reply.
func choose(g socks.Greeting, s conversation) socks.Method {
	anonymous, password := s.UserMethods()
	switch {
	case password && g.Offers(socks.UsernamePassword):
		return socks.UsernamePassword
	case (anonymous || !password) && g.Offers(socks.NoAuthentication):
		return socks.NoAuthentication
	}
	return socks.NoAcceptable
}

// authenticate is the subnegotiation of RFC 1929.
func authenticate(ctx context.Context, s conversation, r *socks.Reader) error {
	c, err := socks.Read(r, socks.ParseCredentials)
	if err != nil {
		return fmt.Errorf("read the SOCKS5 credentials: %w", err)
	}
	if _, err := s.Authenticate(ctx, auth.Credentials{User: c.User, Password: c.Password}); err != nil {
		return badCredentials(fmt.Errorf("authenticate: %w", err))
	}
	if _, err := s.Conn().Write(socks.AppendStatus(nil, socks.StatusSuccess)); err != nil {
		return fmt.Errorf("write the authentication status: %w", err)
	}
	return nil
}

// open authorizes and dials.
func open(ctx context.Context, s conversation, req socks.Request5) (net.Conn, error) {
	s.SetMethod(req.Command.String())
	if req.Command != socks.Connect {
		return nil, refuseWith(socks.CommandNotSupported, requestError,
			fmt.Errorf("the client asked for the SOCKS5 command %v to %q; only CONNECT, BIND and UDP ASSOCIATE are served", req.Command, req.Target))
	}
	t, err := target.New(req.Target.Host(), req.Target.Port)
	if err != nil {
		// Such a name cannot exist, so the client hears what a name server would have led to.
		return nil, refuseWith(socks.HostUnreachable, requestError, fmt.Errorf("the SOCKS5 request cannot be followed: %w", err))
	}
	permit, err := s.Authorize(ctx, t)
	if err != nil {
		return nil, refuseWith(connectCodeFor(err), "", err)
	}
	s.Established() // dialling may outlast the handshake's deadline
	conn, err := s.Dial(ctx, permit)
	if err != nil {
		return nil, refuseWith(connectCodeFor(err), "", err)
	}
	return conn, nil
}

// succeed tells the client that the target has answered, and from which address of ours it is reached.
func succeed(s conversation, conn net.Conn) error {
	return succeedAt(s, socks.Bound(conn))
}

// succeedAt is a successful reply with an address in BND.ADDR and BND.PORT.
func succeedAt(s conversation, bound netip.AddrPort) error {
	s.SetStatus(int(socks.Succeeded))
	return answer(s, reply(socks.Succeeded, socks.Address{IP: bound.Addr(), Port: bound.Port()}))
}

// reply encodes a reply. It cannot fail: an address that is invalid is sent as 0.0.0.0.
func reply(code socks.Code5, bound socks.Address) []byte {
	b, err := socks.AppendReply5(make([]byte, 0, 22), socks.Reply5{Code: code, Bound: bound})
	if err != nil {
		panic(err) // a bound address is never a name
	}
	return b
}

// answer writes a message in one piece, within a deadline of its own: that of the
// handshake may have passed while the name was resolved or the target dialled.
func answer(s conversation, message []byte) error {
	c := s.Conn()
	_ = c.SetWriteDeadline(time.Now().Add(s.Timeouts().Handshake)) // fails only where Write will
	if _, err := c.Write(message); err != nil {
		return fmt.Errorf("write the SOCKS5 reply: %w", err)
	}
	return nil
}
