package socks5

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"polyport/internal/egress"
	"polyport/internal/socks"
	"polyport/internal/target"
)

// binder is what BIND needs of a *session.Session.
type binder interface {
	OnLoop() bool
	LeaveLoop(carry any)
	Carried() any
	Bind(ctx context.Context, t target.Target, only4 bool, tell func(bound netip.AddrPort) error) (net.Conn, error)
}

// beginBind goes on with BIND in a goroutine: it waits for somebody, which no event loop may.
func beginBind(ctx context.Context, s conversation, req socks.Request5) error {
	s.SetMethod(req.Command.String())
	if s.OnLoop() {
		s.LeaveLoop(req)
		return nil
	}
	return bind(ctx, s, req)
}

// bind serves BIND (RFC 1928 section 6): the first reply says where the gateway listens, the second who has connected.
func bind(ctx context.Context, s conversation, req socks.Request5) error {
	t, err := target.NewPeer(req.Target.Host(), req.Target.Port)
	if err != nil {
		return refuse(s, refuseWith(socks.HostUnreachable, requestError, fmt.Errorf("the SOCKS5 BIND cannot be followed: %w", err)))
	}
	conn, err := s.Bind(ctx, t, false, func(bound netip.AddrPort) error { return succeedAt(s, bound) })
	if e := (*egress.Error)(nil); errors.As(err, &e) {
		err = refuseWith(codeFor(err), "", err)
	}
	if err != nil {
		return refuse(s, err)
	}
	if err := succeedAt(s, socks.Peer(conn)); err != nil {
		_ = conn.Close()
		return err
	}
	s.Relay(conn)
	return nil
}
