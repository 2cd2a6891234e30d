package socks4

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

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
	SetUserID(string)
	SetStatus(int)
	SetReason(string)
	Authorize(context.Context, target.Target) (*egress.Permit, error)
	Established()
	Dial(context.Context, *egress.Permit) (net.Conn, error)
	Relay(target net.Conn)
	binder
}

// serve speaks the protocol: one request, one reply.
func serve(ctx context.Context, s conversation) error {
	if req, ok := s.Carried().(socks.Request4); ok {
		return bind(ctx, s, req)
	}
	req, err := read(s)
	if err != nil {
		return refuse(s, err)
	}
	if req.Command == socks.Bind {
		return beginBind(ctx, s, req)
	}
	conn, err := open(ctx, s, req)
	if err != nil {
		return refuse(s, err)
	}
	if err := grant(s, socks.Bound(conn)); err != nil {
		_ = conn.Close()
		return err
	}
	s.Relay(conn)
	return nil
}

// read reads the request. Data that the client sent ahead goes back to the connection.
func read(s conversation) (socks.Request4, error) {
	s.SetVersion("SOCKS4")
	c := s.Conn()
	r := socks.NewReader(c)
	req, err := socks.Read(r, socks.ParseRequest4)
	c.Unread(r.Rest())
	r.Release()
	if err != nil {
		return req, fmt.Errorf("read the SOCKS4 request: %w", err)
	}
	if req.Target.Name != "" {
		s.SetVersion("SOCKS4a")
	}
	s.SetUserID(req.UserID)
	s.SetMethod(req.Command.String())
	return req, nil
}

// open authorizes and dials.
func open(ctx context.Context, s conversation, req socks.Request4) (net.Conn, error) {
	t, err := target.New(req.Target.Host(), req.Target.Port)
	if err != nil {
		return nil, &refusal{socks.Rejected, requestError, fmt.Errorf("the SOCKS4 request cannot be followed: %w", err)}
	}
	permit, err := s.Authorize(ctx, t)
	if err != nil {
		return nil, refusalFor(err)
	}
	s.Established() // dialling may outlast the handshake's deadline
	conn, err := s.Dial(ctx, permit)
	if err != nil {
		return nil, refusalFor(err)
	}
	return conn, nil
}

// grant is a successful reply with an address in DSTIP and DSTPORT.
func grant(s conversation, bound netip.AddrPort) error {
	s.SetStatus(int(socks.Granted))
	return answer(s, socks.Reply4{Code: socks.Granted, Bound: bound})
}

// answer writes the reply in one piece, within a deadline of its own: that of the
// handshake may have passed while the name was resolved or the target dialled.
func answer(s conversation, r socks.Reply4) error {
	c := s.Conn()
	_ = c.SetWriteDeadline(time.Now().Add(s.Timeouts().Handshake)) // fails only where Write will
	if _, err := c.Write(socks.AppendReply4(make([]byte, 0, 8), r)); err != nil {
		return fmt.Errorf("write the SOCKS4 reply: %w", err)
	}
	return nil
}

// refuse gives the client the answer to err, if there is one, and notes it. A
// client that has gone away, or whose request is malformed, gets none.
func refuse(s conversation, err error) error {
	var r *refusal
	if !errors.As(err, &r) {
		s.SetReason(reasonFor(err))
		return err
	}
	s.SetStatus(int(r.code))
	if r.reason != "" {
		s.SetReason(r.reason)
	}
	if werr := answer(s, socks.Reply4{Code: r.code}); werr != nil {
		return errors.Join(err, werr)
	}
	return err
}
