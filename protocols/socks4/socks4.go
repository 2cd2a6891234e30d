// Package socks4 serves SOCKS version 4 clients ("SOCKS: A protocol for TCP proxy across
// firewalls", Ying-Da Lee) and those of its extension 4a, which send names. CONNECT
// and BIND are served. The protocol carries no password: USERID goes into
// the log and is never believed, and no identd is asked. It only speaks the protocol: policy
// and dialling belong to the session.
package socks4

import (
	"context"

	"polyport/internal/session"
	"polyport/mux"
	"polyport/protocols/spec"
)

// row is the name in the protocol table. 4a has the same one: no octet before the address tells them apart.
const row = "socks4"

// Options is [protocols.socks4]. It has no keys.
type Options struct{}

// New makes the row "socks4".
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
