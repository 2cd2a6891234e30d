package socks5

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/target"
)

// binding is what a conversing answers to BIND.
type binding struct {
	onLoop           bool
	carried          any
	listenErr, never error // of the two stages
}

// boundAt is where a conversing listens.
var boundAt = netip.MustParseAddrPort("192.0.2.10:4660")

func (s *conversing) OnLoop() bool        { return s.onLoop }
func (s *conversing) LeaveLoop(carry any) { s.note("leave"); s.onLoop, s.carried = false, carry }
func (s *conversing) Carried() any        { return s.carried }

func (s *conversing) Bind(_ context.Context, t target.Target, only4 bool, tell func(netip.AddrPort) error) (net.Conn, error) {
	s.note(fmt.Sprintf("bind %s port %d, IPv4 alone %v", t.Host(), t.Port(), only4))
	if s.listenErr != nil {
		return nil, s.listenErr
	}
	if err := tell(boundAt); err != nil {
		return nil, err
	}
	s.note("wait")
	if s.never != nil {
		return nil, s.never
	}
	return s.target, nil
}

// What clients send; first and second are the replies to it.
const (
	bindAddress = "\x05\x02\x00\x01\xc6\x33\x64\x07\x00\x14"
	bindAnyPort = "\x05\x02\x00\x01\xc6\x33\x64\x07\x00\x00"
	bindAnybody = "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"
	bindName    = "\x05\x02\x00\x03\x0bExample.COM\x00\x00"
	bindIPv6    = "\x05\x02\x00\x04 \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00"

	first  = "write 05000001c000020a1234"
	second = "write 05000001c63364070014"
)

func TestServeBind(t *testing.T) {
	because := func(r egress.Reason, cause error) error { return &egress.Error{Reason: r, Bind: true, Err: cause} }
	fails := func(code string) string { return "write 05" + code + "0001000000000000" }
	listens := func(who string) []string { return []string{"write 0500", "bind " + who + ", IPv4 alone false"} }
	success := func(who string) []string { return append(listens(who), first, "wait", second, "relay") }
	for _, tt := range []struct {
		name   string
		sent   string
		setup  func(*conversing)
		want   []string
		status int
		reason string
	}{
		{name: "an address and port", sent: bindAddress, want: success("198.51.100.7 port 20")},
		{name: "an address", sent: bindAnyPort, want: success("198.51.100.7 port 0")},
		{name: "nobody in particular", sent: bindAnybody, want: success("0.0.0.0 port 0")},
		{name: "a name", sent: bindName, want: success("example.com port 0")},
		{name: "IPv6", sent: bindIPv6, want: success("2001:db8::1 port 0")},
		{
			name: "on a loop", sent: bindAddress, setup: func(s *conversing) { s.onLoop = true },
			want: append([]string{"write 0500", "leave"}, success("198.51.100.7 port 20")[1:]...),
		},
		{
			name: "denied", sent: bindAddress, setup: func(s *conversing) { s.listenErr = because(egress.RequestDenied, egress.ErrDenied) },
			want: append(listens("198.51.100.7 port 20"), fails("02")), status: 2,
		},
		{
			name: "no ports are set up", sent: bindAddress, setup: func(s *conversing) { s.listenErr = because(egress.ConfigurationError, egress.ErrNoBind) },
			want: append(listens("198.51.100.7 port 20"), fails("07")), status: 7,
		},
		{
			name: "no port is free", sent: bindAddress, setup: func(s *conversing) { s.listenErr = because(egress.LimitReached, nil) },
			want: append(listens("198.51.100.7 port 20"), fails("01")), status: 1,
		},
		{
			name: "nobody comes", sent: bindAddress, setup: func(s *conversing) { s.never = because(egress.ConnectionTimeout, nil) },
			want: append(listens("198.51.100.7 port 20"), first, "wait", fails("06")), status: 6,
		},
		{
			name: "strangers come", sent: bindAddress, setup: func(s *conversing) { s.never = because(egress.RequestDenied, egress.ErrDenied) },
			want: append(listens("198.51.100.7 port 20"), first, "wait", fails("02")), status: 2,
		},
		{
			name: "the client goes away", sent: bindAddress, setup: func(s *conversing) { s.never = fmt.Errorf("gone: %w", io.EOF) },
			want: append(listens("198.51.100.7 port 20"), first, "wait"), reason: closedEarly,
		},
		{name: "a name that cannot exist", sent: "\x05\x02\x00\x03\x04a..b\x00\x00", want: []string{"write 0500", fails("04")}, status: 4, reason: requestError},
	} {
		for how, pieces := range deliveries {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				s := converse(pieces(hello + tt.sent))
				if tt.setup != nil {
					tt.setup(s)
				}
				got, err := s.serve()
				if !reflect.DeepEqual(got, tt.want) {
					t.Errorf("events = %q, want %q", got, tt.want)
				}
				if ok := s.relayed != nil; ok != (err == nil) || s.status != tt.status || s.reason != tt.reason || s.method != "BIND" || s.version != "SOCKS5" {
					t.Errorf("relayed %v, error %v, status %d, reason %q, method %q, want status %d, reason %q", ok, err, s.status, s.reason, s.method, tt.status, tt.reason)
				}
			})
		}
	}
}

func TestBindSaysWhatToWrite(t *testing.T) {
	s := converse(strings.NewReader(hello+bindAddress), "")
	s.listenErr = &egress.Error{Reason: egress.ConfigurationError, Bind: true, Decision: acl.Decision{Action: acl.Allow}, Err: egress.ErrNoBind}
	if _, err := s.serve(); err == nil || !strings.Contains(err.Error(), `ports = "40000-40100" into [bind]`) {
		t.Errorf("serve = %v, want it to say what to write", err)
	}
}

// failSecond is a session whose client can no longer be written to once somebody has connected.
type failSecond struct{ *conversing }

func (f failSecond) Bind(ctx context.Context, t target.Target, only4 bool, tell func(netip.AddrPort) error) (net.Conn, error) {
	c, err := f.conversing.Bind(ctx, t, only4, tell)
	f.client.writeErr = io.ErrClosedPipe
	return c, err
}

func TestBindFailsToWrite(t *testing.T) {
	s := converse(strings.NewReader(hello+bindAddress), "")
	if err := serve(t.Context(), failSecond{s}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("serve = %v, want %v", err, io.ErrClosedPipe)
	}
	if !s.target.closed || s.relayed != nil {
		t.Errorf("peer closed %v, relayed %v, want it closed and not relayed", s.target.closed, s.relayed)
	}
}

func TestBindKeepsDataSentAhead(t *testing.T) {
	s := converse(strings.NewReader(hello+bindAddress+"early"), "")
	s.onLoop = true
	if _, err := s.serve(); err != nil || s.unread() != "early" {
		t.Errorf("serve = %v, and the tunnel does not find the early data", err)
	}
}
