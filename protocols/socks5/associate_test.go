package socks5

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/udprelay"
)

// What clients send.
const (
	udpAnything = "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"
	udpPort     = "\x05\x03\x00\x01\x00\x00\x00\x00\xd4\x31"
	udpAddress  = "\x05\x03\x00\x01\xc6\x33\x64\x07\xd4\x31"
	udpIPv6     = "\x05\x03\x00\x04 \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xd4\x31"
	udpName     = "\x05\x03\x00\x03\x0bExample.COM\xd4\x31"
)

func TestServeAssociate(t *testing.T) {
	fails := func(code string) string { return "write 05" + code + "0001000000000000" }
	asks := func(from string) []string { return []string{"write 0500", "associate " + from} }
	success := func(from string) []string { return append(asks(from), "write 05000001c000020a1deb") }
	nobody := netip.AddrPort{}.String()
	for _, tt := range []struct {
		name   string
		sent   string
		setup  func(*conversing)
		want   []string
		status int
		reason string
		err    error
	}{
		{name: "a client that knows nothing of itself", sent: hello + udpAnything, want: success("0.0.0.0:0")},
		{name: "a port", sent: hello + udpPort, want: success("0.0.0.0:54321")},
		{name: "an address and a port", sent: hello + udpAddress, want: success("198.51.100.7:54321")},
		{name: "IPv6", sent: hello + udpIPv6, want: success("[2001:db8::1]:54321")},
		{name: "a name", sent: hello + udpName, want: success(nobody)},
		{name: "with what it sends ahead", sent: hello + udpAnything + "and more", want: success("0.0.0.0:0")},
		{
			name: "a user", sent: helloUser + userPass + udpAnything, setup: users,
			want: []string{"write 0502", "authenticate alice", "write 0100", "associate 0.0.0.0:0", "write 05000001c000020a1deb"},
		},
		{
			name: "IPv6 is told as it is", sent: hello + udpAnything, setup: func(s *conversing) { s.associated = netip.MustParseAddrPort("[2001:db8::10]:7659") },
			want: append(asks("0.0.0.0:0"), "write 0500000420010db80000000000000000000000101deb"),
		},
		{
			name: "no UDP", sent: hello + udpAnything, setup: func(s *conversing) { s.associateErr = udprelay.ErrUnsupported },
			want: append(asks("0.0.0.0:0"), fails("07")), status: 7, reason: requestError, err: udprelay.ErrUnsupported,
		},
		{
			name: "no datagram of this client is admitted", sent: hello + udpAnything,
			setup: func(s *conversing) {
				s.associateErr = &egress.Error{Reason: egress.RequestDenied, Decision: acl.Decision{Reason: acl.ReasonRule}, Err: egress.ErrDenied}
			},
			want: append(asks("0.0.0.0:0"), fails("02")), status: 2, err: egress.ErrDenied,
		},
		{
			name: "a user would be needed", sent: hello + udpAnything,
			setup: func(s *conversing) {
				s.associateErr = &egress.Error{Reason: egress.RequestDenied, Decision: acl.Decision{Action: acl.Challenge}, Err: egress.ErrChallenge}
			},
			want: append(asks("0.0.0.0:0"), fails("02")), status: 2, err: egress.ErrChallenge,
		},
		{
			name: "too many", sent: hello + udpAnything, setup: func(s *conversing) { s.associateErr = udprelay.ErrTooMany },
			want: append(asks("0.0.0.0:0"), fails("01")), status: 1, err: udprelay.ErrTooMany,
		},
		{
			name: "another user's", sent: hello + udpAnything, setup: func(s *conversing) { s.associateErr = fmt.Errorf("open: %w", udprelay.ErrAmbiguous) },
			want: append(asks("0.0.0.0:0"), fails("01")), status: 1, err: udprelay.ErrAmbiguous,
		},
		{
			name: "no descriptor", sent: hello + udpAnything, setup: func(s *conversing) { s.associateErr = syscall.EMFILE },
			want: append(asks("0.0.0.0:0"), fails("01")), status: 1, err: syscall.EMFILE,
		},
	} {
		for how, pieces := range deliveries {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				s := converse(pieces(tt.sent))
				if tt.setup != nil {
					tt.setup(s)
				}
				got, err := s.serve()
				if !reflect.DeepEqual(got, tt.want) || !errors.Is(err, tt.err) {
					t.Errorf("events = %q, error %v, want %q, %v", got, err, tt.want, tt.err)
				}
				if s.relayed != nil || s.status != tt.status || s.reason != tt.reason || s.method != "UDP" || s.version != "SOCKS5" {
					t.Errorf("relayed %v, status %d, reason %q, method %q, version %q, want status %d, reason %q",
						s.relayed, s.status, s.reason, s.method, s.version, tt.status, tt.reason)
				}
			})
		}
	}
}

// TestAssociateFailsToAnswer: the error has the session close the association.
func TestAssociateFailsToAnswer(t *testing.T) {
	s := converse(strings.NewReader(hello+udpAnything), "")
	if err := serve(t.Context(), &gone{s}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("serve = %v, want %v", err, io.ErrClosedPipe)
	}
}

// gone is a session whose client goes away while the association is opened.
type gone struct{ *conversing }

func (g *gone) Associate(from netip.AddrPort) (netip.AddrPort, error) {
	g.client.writeErr = io.ErrClosedPipe
	return g.conversing.Associate(from)
}

// TestAssociateHasADeadlineForItsAnswer: that of the handshake may have passed.
func TestAssociateHasADeadlineForItsAnswer(t *testing.T) {
	s := converse(strings.NewReader(hello+udpAnything), "")
	s.client.deadline = time.Unix(1, 0)
	if _, err := s.serve(); err != nil || !s.client.deadline.After(time.Now()) {
		t.Errorf("serve = %v under the deadline %v", err, s.client.deadline)
	}
}
