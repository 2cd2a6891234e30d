// Package httpproxy serves HTTP/2, HTTP/1.1 and HTTP/1.0 clients of a forward proxy (RFC
// 9110, RFC 9112, RFC 9113): requests in absolute-form, which are forwarded, and CONNECT,
// which becomes a tunnel; and requests in origin-form for the owner's own web sites. One handler serves the rows http and connect, since a connection that
// is kept alive may send either; each stream of the row h2 is translated to one such exchange. To a browser that opens the port it shows how to set up a client.
//
// It only speaks the protocol: the wire belongs to package http1, policy and
// dialling to package egress. It does not cache, does not look into bodies, opens no TLS but
// to an origin whose https URI it was asked for, and fetches no scheme but http and, if told to, https.
package httpproxy

import (
	"context"
	"crypto/tls"
	"fmt"

	"polyport/internal/session"
	"polyport/internal/target"
	"polyport/internal/upstream"
	"polyport/mux"
	"polyport/protocols/spec"
)

// The names of the rows.
const (
	rowHTTP    = "http"
	rowConnect = "connect"
)

// Options is the [protocols.httpproxy] table. It has no keys.
type Options struct{}

// handler serves the rows http and connect. It is safe for concurrent use.
type handler struct {
	anonymity anonymity
	pool      *pool
	acme      func(host, path string) (answer string, ok bool) // nil answers no challenge
	sites     sites
	secure    string      // the name to reach the gateway by TLS under; "" is none
	tls       *tls.Config // to origins of https URIs; nil fetches none
}

// New makes the rows http, connect and h2.
func New(env spec.Env, decode func(any) error) ([]spec.Row, error) {
	var o Options
	if err := decode(&o); err != nil {
		return nil, err
	}
	a, ok := anonymityLevels[or(env.HTTP.Anonymity, "hide-client")]
	if !ok {
		return nil, fmt.Errorf("http.anonymity: %q is none of off, hide-client and hide-proxy", env.HTTP.Anonymity)
	}
	all, err := newSites(env)
	if err != nil {
		return nil, err
	}
	h := &handler{anonymity: a, pool: newPool(poolOptions{}), acme: env.ACMEAnswer, secure: env.SecureName, sites: all}
	if env.HTTP.ForwardHTTPS {
		h.tls = originTLS()
	}
	return []spec.Row{
		{Row: mux.Row{Name: rowHTTP, Match: matchHTTP}, Handler: h, OnLoop: true},
		{Row: mux.Row{Name: rowConnect, Match: matchConnect}, Handler: h, OnLoop: true},
		{Row: mux.Row{Name: rowHTTP2, Match: matchHTTP2}, Handler: &http2Handler{h: h, streams: env.HTTP.Streams}},
	}, nil
}

// ServeSession serves one client connection: its exchanges in turn, until one of
// them ends it or becomes a tunnel.
func (h *handler) ServeSession(ctx context.Context, s *session.Session) error {
	if c, ok := s.Carried().(*client); ok {
		defer c.release()
		return c.resume(ctx)
	}
	c := newClient(h, s)
	defer func() {
		if c.rest == nil { // else it goes on elsewhere
			c.release()
		}
	}()
	return c.serve(ctx)
}

// Site returns the backend that requests in origin-form for a host are handed to; nil if it is no site's.
func (h *handler) Site(t target.Target) *upstream.Backend {
	if st := h.sites.find(t); st != nil {
		return st.backend
	}
	return nil
}

// Retire implements session.Retirer: it closes the idle connections to origins.
func (h *handler) Retire() { h.pool.retire() }
