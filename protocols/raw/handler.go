package raw

import (
	"context"
	"net"

	"polyport/internal/egress"
	"polyport/internal/session"
	"polyport/internal/target"
	"polyport/internal/upstream"
)

// client is what the handler needs of a session; *session.Session is one.
type client interface {
	AuthorizeBackend(ctx context.Context, t target.Target, b *upstream.Backend) (*egress.Permit, error)
	Established()
	Dial(ctx context.Context, p *egress.Permit) (net.Conn, error)
	Relay(target net.Conn)
}

// handler hands the connections of one row to its backend. It reads and
// writes nothing: in a protocol that is not known there is nothing true to say,
// so a client that is refused sees the connection close.
type handler struct {
	row     string
	backend *upstream.Backend
}

// ServeSession implements session.Handler.
func (h *handler) ServeSession(ctx context.Context, s *session.Session) error { return h.serve(ctx, s) }

func (h *handler) serve(ctx context.Context, s client) error {
	permit, err := s.AuthorizeBackend(ctx, target.Name(h.row), h.backend)
	if err != nil {
		return err
	}
	s.Established() // a client that waits for a permitted backend is not unfinished any more
	server, err := s.Dial(ctx, permit)
	if err != nil {
		return err
	}
	s.Relay(server)
	return nil
}
