// Package tls serves TLS connections by what their
// ClientHello says in the clear: the server name (RFC 6066 section 3) and the
// application protocols (RFC 7301). Those that mean the gateway itself it terminates, once, and has what is inside
// sniffed again, so that every row of the table is served inside TLS too. All others it passes
// through, undecrypted: a route hands them to a backend; with dial_sni the name
// itself is dialled. There it holds no key and checks no certificate: the name is the client's word, good for choosing
// a way and never for knowing who somebody is. Certificates belong to their own packages, policy and dialling to package egress.
package tls

import (
	"polyport/mux"
	"polyport/protocols/spec"
)

// Name is the row of the protocol table.
const Name = "tls"

// New makes the row. With neither certificates nor routes nor dial_sni it refuses every client
// in its own protocol, which says more than a closed connection.
func New(env spec.Env, decode func(into any) error) ([]spec.Row, error) {
	var o Options
	if err := decode(&o); err != nil {
		return nil, err
	}
	routes, err := o.routes(env)
	if err != nil {
		return nil, err
	}
	return []spec.Row{{
		Row:     mux.Row{Name: Name, Match: match},
		OnLoop:  true,
		Handler: &handler{routes: routes, dialSNI: o.DialSNI, own: env.TLS},
	}}, nil
}

// match knows a handshake record of SSL 3.0 or any TLS by its ContentType 22 and
// the major version 3 (RFC 8446 section 5.1). What follows is the handler's to
// judge, so that a broken hello gets an alert.
func match(prefix []byte) mux.Verdict {
	switch {
	case prefix[0] != 0x16:
		return mux.NoMatch
	case len(prefix) < 2:
		return mux.NeedMore
	case prefix[1] != 0x03:
		return mux.NoMatch
	}
	return mux.Match
}
