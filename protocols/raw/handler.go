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
	asked, b, _ := h.Route(target.Target{})
	permit, err := s.AuthorizeBackend(ctx, asked, b)
	if err != nil {
		return err
	}
	server, err := s.Dial(ctx, permit)
	if err != nil {
		return err
	}
	s.Relay(server)
	return nil
}

// Route says what the rules are asked about a client of this row, whatever it wants, and which
// backend they hand it to. It is for those who explain; the error is always nil.
func (h *handler) Route(target.Target) (asked target.Target, b *upstream.Backend, err error) {
	return target.Name(h.row), h.backend, nil
}
