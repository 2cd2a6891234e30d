package socks4

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
	bindAddress = "\x04\x02\x00\x14\xc6\x33\x64\x07me\x00"
	bindAnyPort = "\x04\x02\x00\x00\xc6\x33\x64\x07me\x00"
	bindAnybody = "\x04\x02\x00\x00\x00\x00\x00\x00me\x00"
	bindName    = "\x04\x02\x00\x00\x00\x00\x00\x01me\x00Example.COM\x00"

	first  = "write 005a1234c000020a"
	second = "write 005a0014c6336407"
)

func TestServeBind(t *testing.T) {
	because := func(r egress.Reason, cause error) error { return &egress.Error{Reason: r, Bind: true, Err: cause} }
	challenge := &egress.Error{Reason: egress.RequestDenied, Bind: true, Decision: acl.Decision{Action: acl.Challenge}, Err: egress.ErrChallenge}
	listens := func(who string) []string { return []string{"bind " + who + ", IPv4 alone true"} }
	success := func(who string) []string { return append(listens(who), first, "wait", second, "relay") }
	for _, tt := range []struct {
		name   string
		sent   string
		setup  func(*conversing)
		want   []string
		status int // 0 is 90
		reason string
	}{
		{name: "an address and port", sent: bindAddress, want: success("198.51.100.7 port 20")},
		{name: "an address", sent: bindAnyPort, want: success("198.51.100.7 port 0")},
		{name: "nobody in particular", sent: bindAnybody, want: success("0.0.0.0 port 0")},
		{name: "a name", sent: bindName, want: success("example.com port 0")},
		{
			name: "on a loop", sent: bindAddress, setup: func(s *conversing) { s.onLoop = true },
			want: append([]string{"leave"}, success("198.51.100.7 port 20")...),
		},
		{
			name: "denied", sent: bindAddress, setup: func(s *conversing) { s.listenErr = because(egress.RequestDenied, egress.ErrDenied) },
			want: append(listens("198.51.100.7 port 20"), rejected), status: 91,
		},
		{
			name: "a user is needed", sent: bindAddress, setup: func(s *conversing) { s.listenErr = challenge },
			want: append(listens("198.51.100.7 port 20"), noUser), status: 93,
		},
		{
			name: "no ports are set up", sent: bindAddress, setup: func(s *conversing) { s.listenErr = because(egress.ConfigurationError, egress.ErrNoBind) },
			want: append(listens("198.51.100.7 port 20"), rejected), status: 91,
		},
		{
			name: "no port is free", sent: bindAddress, setup: func(s *conversing) { s.listenErr = because(egress.LimitReached, nil) },
			want: append(listens("198.51.100.7 port 20"), rejected), status: 91,
		},
		{
			name: "nobody comes", sent: bindAddress, setup: func(s *conversing) { s.never = because(egress.ConnectionTimeout, nil) },
			want: append(listens("198.51.100.7 port 20"), first, "wait", rejected), status: 91,
		},
		{
			name: "strangers come", sent: bindAddress, setup: func(s *conversing) { s.never = because(egress.RequestDenied, egress.ErrDenied) },
			want: append(listens("198.51.100.7 port 20"), first, "wait", rejected), status: 91,
		},
		{
			name: "the client goes away", sent: bindAddress, setup: func(s *conversing) { s.never = fmt.Errorf("gone: %w", io.EOF) },
			want: append(listens("198.51.100.7 port 20"), first, "wait"), reason: closedEarly,
		},
		{name: "a name that cannot exist", sent: "\x04\x02\x00\x00\x00\x00\x00\x01me\x00a..b\x00", want: []string{rejected}, status: 91, reason: requestError},
	} {
		for how, pieces := range deliveries {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				s := converse(pieces(tt.sent))
				if tt.setup != nil {
					tt.setup(s)
				}
				got, err := s.serve()
				if !reflect.DeepEqual(got, tt.want) {
					t.Errorf("events = %q, want %q", got, tt.want)
				}
				if tt.status == 0 {
					tt.status = 90
				}
				if ok := s.relayed != nil; ok != (err == nil) || s.status != tt.status || s.reason != tt.reason || s.method != "BIND" || s.userID != "me" {
					t.Errorf("relayed %v, error %v, status %d, reason %q, method %q, USERID %q, want status %d, reason %q",
						ok, err, s.status, s.reason, s.method, s.userID, tt.status, tt.reason)
				}
			})
		}
	}
}

func TestBindSaysWhatToWrite(t *testing.T) {
	for want, because := range map[string]*egress.Error{
		`ports = "40000-40100" into [bind]`:           {Reason: egress.ConfigurationError, Bind: true, Decision: acl.Decision{Action: acl.Allow}, Err: egress.ErrNoBind},
		"use SOCKS5, or a rule with anonymous = true": {Bind: true, Decision: acl.Decision{Action: acl.Challenge}, Err: egress.ErrChallenge},
	} {
		s := converse(strings.NewReader(bindAddress), "")
		s.listenErr = because
		if _, err := s.serve(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("serve = %v, want it to say %q", err, want)
		}
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
	s := converse(strings.NewReader(bindAddress), "")
	if err := serve(t.Context(), failSecond{s}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("serve = %v, want %v", err, io.ErrClosedPipe)
	}
	if !s.target.closed || s.relayed != nil {
		t.Errorf("peer closed %v, relayed %v, want it closed and not relayed", s.target.closed, s.relayed)
	}
}

func TestBindKeepsDataSentAhead(t *testing.T) {
	s := converse(strings.NewReader(bindAddress+"early"), "")
	s.onLoop = true
	if _, err := s.serve(); err != nil || s.unread() != "early" {
		t.Errorf("serve = %v, and the tunnel does not find the early data", err)
	}
}
