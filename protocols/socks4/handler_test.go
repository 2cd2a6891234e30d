package socks4

import (
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"polyport/acl"
	"polyport/internal/egress"
)

// What clients send.
const (
	byAddress = "\x04\x01\x00P\xc6\x33\x64\x07\x00"                     // curl, nc, Chromium
	byUser    = "\x04\x01\x00P\xc6\x33\x64\x07root\x00"                 // Java
	byName    = "\x04\x01\x00P\x00\x00\x00\x01\x00Example.COM\x00"      // curl socks4a, ncat
	byBoth    = "\x04\x01\x00P\x00\x00\x00\x01alice\x00Example.COM\x00" // proxychains4 with a user
)

// Replies: 90 for the target of these tests, and the refusals.
const (
	granted  = "write 005a1234c000020a"
	rejected = "write 005b000000000000"
	noUser   = "write 005d000000000000"
)

func TestServe(t *testing.T) {
	denied := &egress.Error{Reason: egress.RequestDenied, Decision: acl.Decision{Reason: acl.ReasonRule}, Err: egress.ErrDenied}
	challenge := &egress.Error{Reason: egress.RequestDenied, Decision: acl.Decision{Action: acl.Challenge}, Err: egress.ErrChallenge}
	needsUser := &egress.Error{Reason: egress.RequestDenied, Decision: acl.Decision{Reason: acl.ReasonNeedsUser}, Err: egress.ErrDenied}
	refused := &egress.Error{Reason: egress.ConnectionRefused, Err: errors.New("connection refused")}
	success := func(host string) []string {
		return []string{"authorize " + host + " port 80", "established", "dial", granted, "relay"}
	}
	for _, tt := range []struct {
		name    string
		sent    string
		setup   func(*conversing)
		want    []string
		version string // "" is "SOCKS4"
		userID  string
		status  int // 0 is 90
		reason  string
	}{
		{name: "an address", sent: byAddress, want: success("198.51.100.7")},
		{name: "with USERID", sent: byUser, want: success("198.51.100.7"), userID: "root"},
		{name: "a name", sent: byName, want: success("example.com"), version: "SOCKS4a"},
		{name: "a name with USERID", sent: byBoth, want: success("example.com"), version: "SOCKS4a", userID: "alice"},
		{name: "an address spelt as a name", sent: "\x04\x01\x00P\x00\x00\x00\x01\x00127.1\x00", want: success("127.0.0.1"), version: "SOCKS4a"},
		{name: "IPv6 spelt as a name", sent: "\x04\x01\x00P\x00\x00\x00\x01\x00[2001:db8::1]\x00", want: success("2001:db8::1"), version: "SOCKS4a"},
		{name: "0.0.0.0 is an address", sent: "\x04\x01\x00P\x00\x00\x00\x00\x00", want: success("0.0.0.0")},
		{
			name: "an IPv6 address of ours cannot be told", sent: byAddress,
			setup: func(s *conversing) { s.target.local = &net.TCPAddr{IP: net.ParseIP("2001:db8::10"), Port: 0x1234} },
			want:  append(success("198.51.100.7")[:3], "write 005a123400000000", "relay"),
		},
		{
			name: "a user would be needed, and USERID is none", sent: byBoth, setup: func(s *conversing) { s.authorizeErr = challenge },
			want: []string{"authorize example.com port 80", noUser}, version: "SOCKS4a", userID: "alice", status: 93,
		},
		{
			name: "denied", sent: byAddress, setup: func(s *conversing) { s.authorizeErr = denied },
			want: []string{"authorize 198.51.100.7 port 80", rejected}, status: 91,
		},
		{
			name: "a user is needed", sent: byAddress, setup: func(s *conversing) { s.authorizeErr = needsUser },
			want: []string{"authorize 198.51.100.7 port 80", noUser}, status: 93,
		},
		{
			name: "nobody listens", sent: byAddress, setup: func(s *conversing) { s.dialed = refused },
			want: append(success("198.51.100.7")[:3:3], rejected), status: 91,
		},
		{name: "port 0", sent: "\x04\x01\x00\x00\xc6\x33\x64\x07\x00", want: []string{rejected}, status: 91, reason: requestError},
		{name: "a name that cannot exist", sent: "\x04\x01\x00P\x00\x00\x00\x01\x00a..b\x00", want: []string{rejected}, version: "SOCKS4a", status: 91, reason: requestError},
		{name: "no name", sent: "\x04\x01\x00P\x00\x00\x00\x01\x00\x00", status: -1, reason: requestError},
		{name: "a name with a line end", sent: "\x04\x01\x00P\x00\x00\x00\x01\x00a\r\n\x00", status: -1, reason: requestError},
		{name: "USERID with a line end", sent: "\x04\x01\x00P\xc6\x33\x64\x07a\r\n\x00", status: -1, reason: requestError},
		{name: "USERID without end", sent: "\x04\x01\x00P\xc6\x33\x64\x07" + strings.Repeat("a", 4000), status: -1, reason: requestError},
		{name: "an unknown command", sent: "\x04\x03\x00P\xc6\x33\x64\x07\x00", status: -1, reason: requestError},
	} {
		for how, pieces := range deliveries {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				r, prefix := pieces(tt.sent)
				s := converse(r, prefix)
				if tt.setup != nil {
					tt.setup(s)
				}
				got, err := s.serve()
				if !reflect.DeepEqual(got, tt.want) {
					t.Errorf("events = %q, want %q", got, tt.want)
				}
				version, status := tt.version, tt.status
				if version == "" {
					version = "SOCKS4"
				}
				switch status {
				case 0:
					status = 90
				case -1:
					status = 0 // no reply
				}
				if s.version != version || s.userID != tt.userID || s.status != status || s.reason != tt.reason {
					t.Errorf("version %q, USERID %q, status %d, reason %q, want %q, %q, %d, %q",
						s.version, s.userID, s.status, s.reason, version, tt.userID, status, tt.reason)
				}
				if ok := s.relayed != nil; ok != (err == nil) || ok != (status == 90) {
					t.Errorf("relayed %v, error %v", ok, err)
				}
			})
		}
	}
}

// deliveries are the ways in which a client's octets can reach the handler.
var deliveries = map[string]func(sent string) (r io.Reader, prefix string){
	"in one piece":       func(s string) (io.Reader, string) { return strings.NewReader(s), "" },
	"byte by byte":       func(s string) (io.Reader, string) { return iotest.OneByteReader(strings.NewReader(s)), "" },
	"two octets sniffed": func(s string) (io.Reader, string) { return strings.NewReader(s[2:]), s[:2] },
	"all of it sniffed":  func(s string) (io.Reader, string) { return strings.NewReader(""), s },
}

func TestServeKeepsDataSentAhead(t *testing.T) {
	data := strings.Repeat("SSH-2.0-OpenSSH_9.2\r\n", 200) + "end" // more than the handler's buffer
	for _, request := range []string{byAddress, byUser, byName, byBoth} {
		for how, pieces := range deliveries {
			t.Run(how, func(t *testing.T) {
				s := converse(pieces(request + data))
				if _, err := s.serve(); err != nil || s.relayed != s.target {
					t.Fatalf("serve = %v, relayed %v", err, s.relayed)
				}
				if got := s.unread(); got != data {
					t.Errorf("the tunnel finds %d octets behind %q, want %d", len(got), request, len(data))
				}
			})
		}
	}
}

func TestServeCutAtEveryLength(t *testing.T) {
	for i := range len(byBoth) {
		s := converse(strings.NewReader(byBoth[:i]), "")
		events, err := s.serve()
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d octets: %v, want an end of file", i, err)
		}
		if events != nil || s.relayed != nil || s.reason != closedEarly {
			t.Errorf("cut after %d octets: events %q, relayed %v, reason %q", i, events, s.relayed, s.reason)
		}
	}
}

func TestServeErrorsSayWhatToDo(t *testing.T) {
	for _, tt := range []struct {
		name, sent string
		setup      func(*conversing)
		want       string
	}{
		{"no user", byName, func(s *conversing) {
			s.authorizeErr = &egress.Error{Decision: acl.Decision{Action: acl.Challenge}, Err: egress.ErrChallenge}
		}, "use SOCKS5, or a rule with anonymous = true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := converse(strings.NewReader(tt.sent), "")
			tt.setup(s)
			if _, err := s.serve(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("serve = %v, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestServeWriteFails(t *testing.T) {
	refusal := converse(strings.NewReader("\x04\x01\x00\x00\xc6\x33\x64\x07\x00"), "")
	refusal.client.writeErr = io.ErrClosedPipe
	if _, err := refusal.serve(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("serve = %v, want %v", err, io.ErrClosedPipe)
	}
	// The client goes away while the target is dialled: nobody relays, so the handler closes the target.
	s := converse(strings.NewReader(byName), "")
	s.client.writeErr = io.ErrClosedPipe
	if _, err := s.serve(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("serve = %v, want %v", err, io.ErrClosedPipe)
	}
	if !s.target.closed || s.relayed != nil {
		t.Errorf("target closed %v, relayed %v, want it closed and not relayed", s.target.closed, s.relayed)
	}
}

func TestAnswerHasADeadlineOfItsOwn(t *testing.T) {
	s := converse(strings.NewReader(byName), "")
	s.client.deadline = time.Unix(1, 0) // the handshake's has passed
	if _, err := s.serve(); err != nil {
		t.Fatal(err)
	}
	if !s.client.deadline.After(time.Now()) {
		t.Errorf("the reply was written under the deadline %v, which has passed", s.client.deadline)
	}
}
