package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
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
			r := resolve.New(resolve.Options{Servers: []resolve.Server{{Addrs: []netip.AddrPort{server}}}, Timeout: 300 * time.Millisecond})
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

// askerResolver notes for whom it is asked.
type askerResolver struct{ askers []netip.Addr }

func (r *askerResolver) Lookup(_ context.Context, asker netip.Addr, _ string) ([]netip.Addr, error) {
	r.askers = append(r.askers, asker)
	return addrs("10.0.0.9"), nil
}

// The resolver hears which client wants to know, so that it can be fair; what the owner wrote it is asked for nobody.
func TestTheResolverHearsWhoAsks(t *testing.T) {
	var r askerResolver
	d := New(Options{Policy: policy(t, false, allowAll), Resolver: &r})
	req := to(t, "a.example:80")
	req.Client = netip.MustParseAddr("192.0.2.7")
	if _, err := d.Authorize(t.Context(), req); !errors.Is(err, ErrDenied) {
		t.Errorf("Authorize of a private address = %v, want ErrDenied", err)
	}
	d, p := backendPermit(t, newFakeNet(script{"10.0.0.9": {}}), &r, "b.example:22")
	if _, err := d.Dial(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if want := []netip.Addr{req.Client, {}}; !slices.Equal(r.askers, want) {
		t.Errorf("it was asked for %v, want %v", r.askers, want)
	}
}
