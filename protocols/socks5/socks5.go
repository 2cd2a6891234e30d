// Package socks5 serves SOCKS version 5 clients (RFC 1928) with optional
// username/password authentication (RFC 1929). CONNECT and BIND are its commands; UDP
// ASSOCIATE is answered "command not supported", and GSSAPI is never chosen.
// It only speaks the protocol: policy and dialling belong to the session.
package socks5

import (
	"context"

	"polyport/internal/session"
	"polyport/mux"
	"polyport/protocols/spec"
)

// row is the name in the protocol table.
const row = "socks5"

// Options is [protocols.socks5]. It has no keys.
type Options struct{}

// New makes the row "socks5".
func New(_ spec.Env, decode func(into any) error) ([]spec.Row, error) {
	var o Options
	if err := decode(&o); err != nil {
		return nil, err
	}
	return []spec.Row{{Row: mux.Row{Name: row, Match: match}, Handler: handler{}, OnLoop: true}}, nil
}

// handler has no state of its own.
type handler struct{}

// ServeSession implements session.Handler.
func (handler) ServeSession(ctx context.Context, s *session.Session) error { return serve(ctx, s) }
