package egress

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"polyport/internal/resolve"
)

// What the gateway's own resolver says becomes the right token.
func TestWithTheRealResolver(t *testing.T) {
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gone, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	tests := []struct {
		name   string
		server net.Addr
		target string
		reason Reason
		cause  error
	}{
		{"a server that says nothing", silent.LocalAddr(), "a.example:80", DNSTimeout, resolve.ErrTimeout},
		{"a server that is not there", gone.LocalAddr(), "a.example:80", DNSError, resolve.ErrServer},
		{"a name outside the DNS", gone.LocalAddr(), "a.onion:80", DNSError, resolve.ErrNotFound},
		{"a loopback name", gone.LocalAddr(), "a.localhost:80", DestinationProhibited, ErrDenied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := tt.server.(*net.UDPAddr).AddrPort()
			r := resolve.New(resolve.Options{Servers: []netip.AddrPort{server}, Timeout: 300 * time.Millisecond})
			defer r.Close()
			d := New(Options{Policy: policy(t, false, allowAll), Resolver: r})
			_, err := d.Authorize(t.Context(), to(t, tt.target))
			var e *Error
			if !errors.As(err, &e) || e.Reason != tt.reason || !errors.Is(err, tt.cause) {
				t.Errorf("Authorize = %v, want %s for %v", err, tt.reason, tt.cause)
			}
		})
	}
}
