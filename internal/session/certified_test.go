package session

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"polyport/internal/auth"
)

// TestCertifiedUnder reloads while a connection with a client's certificate stands: who is no longer believed, or no longer in
// a group, must not stay so for as long as the connection lasts.
func TestCertifiedUnder(t *testing.T) {
	asked := 0
	believing := func(group string) *Runtime {
		return &Runtime{Certified: func(tls.ConnectionState) auth.Identity {
			asked++
			return auth.Identity{Name: "alice", Groups: []string{group}}
		}}
	}
	first, next, none := believing("staff"), believing("guests"), &Runtime{}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
	c := &certified{state: state, runtime: first, identity: auth.Identity{Name: "alice", Groups: []string{"staff"}}}
	for _, tt := range []struct {
		name  string
		of    *certified
		rt    *Runtime
		group string // "" is nobody
		asked int
	}{
		{"as in the handshake", c, first, "staff", 0},
		{"after a reload", c, next, "guests", 1},
		{"once for each reload", c, next, "guests", 1},
		{"no certificates any more", c, none, "", 1},
		{"believed again", c, first, "staff", 2},
		{"no certificate", &certified{runtime: first}, next, "", 2},
		{"no TLS", nil, next, "", 2},
	} {
		got := tt.of.under(tt.rt)
		if (got.Name == "") != (tt.group == "") || tt.group != "" && (len(got.Groups) != 1 || got.Groups[0] != tt.group) || asked != tt.asked {
			t.Errorf("%s: %v, asked %d times; want the group %q and %d", tt.name, got, asked, tt.group, tt.asked)
		}
	}
}
