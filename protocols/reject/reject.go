// Package reject serves what no other row of the protocol table matches: it
// counts the connection, says in the log what it looks like, and closes it.
// Clients of TLS and HTTP, whose rows must be off if they come here, are told so in their own protocol.
// The bytes themselves are never logged, since anything may be among them.
package reject

import (
	"context"
	"fmt"

	"polyport/internal/session"
	"polyport/mux"
	"polyport/protocols/spec"
)

// Name is the row of the protocol table.
const Name = "reject"

// reason is what the record says of every session here.
const reason = "unknown_protocol"

// reasonTLS is what it says where nobody is served outside TLS.
const reasonTLS = "tls_required"

// New makes the row. It has no options.
func New(_ spec.Env, decode func(into any) error) ([]spec.Row, error) {
	var none struct{}
	if err := decode(&none); err != nil {
		return nil, err
	}
	return []spec.Row{{Row: mux.Row{Name: Name, Match: match}, Handler: handler{}}}, nil
}

// match takes everything, which is why the row stands last.
func match([]byte) mux.Verdict { return mux.Match }

// client is what the handler needs of a session; *session.Session is one.
type client interface {
	Conn() *mux.Conn
	SetReason(reason string)
	SetStatus(code int)
	RequiresTLS() bool
}

type handler struct{}

// ServeSession implements session.Handler.
func (h handler) ServeSession(_ context.Context, s *session.Session) error { return h.serve(s) }

// serve reads nothing further. The error says how many bytes had come and what
// they look like, never what they are.
func (handler) serve(s client) error {
	first := s.Conn().Prefix()
	k := classify(first)
	if s.RequiresTLS() {
		s.SetReason(reasonTLS)
		k.hint = hintTLS
		if k.outside != nil {
			k.answer = k.outside
		}
	}
	s.SetReason(reason)
	refused := &Error{Bytes: len(first), Looks: k.name, Hint: k.hint}
	if k.answer == nil {
		return refused
	}
	if _, err := s.Conn().Write(k.answer); err != nil {
		refused.Err = fmt.Errorf("write answer: %w", err)
	} else if k.status != 0 {
		s.SetStatus(k.status)
	}
	return refused
}

// Error says what a refused connection looked like.
type Error struct {
	Bytes int    // that had been read when no row was left
	Looks string // the class, of a short fixed list
	Hint  string // what the owner can do; "" for nothing
	Err   error  // why the client could not be told; nil mostly
}

// Error implements error.
func (e *Error) Error() string {
	s := fmt.Sprintf("no row of the protocol table takes this connection; its first %d bytes look like %s", e.Bytes, e.Looks)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	if e.Err != nil {
		s += " (" + e.Err.Error() + ")"
	}
	return s
}

// Unwrap returns why the client could not be told.
func (e *Error) Unwrap() error { return e.Err }
