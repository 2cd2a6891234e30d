package socks5

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
	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/socks"
	"polyport/internal/udprelay"
)

// What clients send.
const (
	hello     = "\x05\x01\x00"            // nc, Chromium, Go
	helloUser = "\x05\x03\x00\x01\x02"    // curl with a user
	helloOnly = "\x05\x01\x02"            // a client that insists on a password
	helloKerb = "\x05\x01\x01"            // GSSAPI alone
	userPass  = "\x01\x05alice\x06secret" // RFC 1929
	byAddress = "\x05\x01\x00\x01\xc6\x33\x64\x07\x00P"
	byName    = "\x05\x01\x00\x03\x0bExample.COM\x00P"
	byIPv6    = "\x05\x01\x00\x04 \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00P"
)

// bound is the successful reply for the target of these tests.
const bound = "05000001c000020a1234"

func TestServe(t *testing.T) {
	denied := &egress.Error{Reason: egress.RequestDenied, Decision: acl.Decision{Reason: acl.ReasonRule}, Err: egress.ErrDenied}
	challenge := &egress.Error{Reason: egress.RequestDenied, Decision: acl.Decision{Action: acl.Challenge}, Err: egress.ErrChallenge}
	refused := &egress.Error{Reason: egress.ConnectionRefused, Err: errors.New("connection refused")}
	success := func(host string) []string {
		return []string{"write 0500", "authorize " + host + " port 80", "established", "dial", "write " + bound, "relay"}
	}
	for _, tt := range []struct {
		name   string
		sent   string
		setup  func(*conversing)
		want   []string
		status int
		reason string
	}{
		{name: "an address", sent: hello + byAddress, want: success("198.51.100.7")},
		{name: "a name", sent: hello + byName, want: success("example.com")},
		{name: "IPv6", sent: hello + byIPv6, want: success("2001:db8::1")},
		{name: "an address spelt as a name", sent: hello + "\x05\x01\x00\x03\x05127.1\x00P", want: success("127.0.0.1")},
		{name: "an address mapped into IPv6", sent: hello + "\x05\x01\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\x7f\x00\x00\x01\x00P", want: success("127.0.0.1")},
		{name: "many methods, no users", sent: helloUser + byName, want: success("example.com")},
		{
			name: "a user", sent: helloUser + userPass + byName, setup: users,
			want: []string{"write 0502", "authenticate alice", "write 0100", "authorize example.com port 80", "established", "dial", "write " + bound, "relay"},
		},
		{name: "a client without a user where some may pass", sent: hello + byName, setup: func(s *conversing) { s.anonymous, s.password = true, true }, want: success("example.com")},
		{
			name: "IPv6 is told as it is", sent: hello + byName,
			setup: func(s *conversing) { s.target.local = &net.TCPAddr{IP: net.ParseIP("2001:db8::10"), Port: 0x1234} },
			want:  append(success("example.com")[:4], "write 0500000420010db80000000000000000000000101234", "relay"),
		},
		{
			name: "wrong password", sent: helloUser + userPass + byName, setup: func(s *conversing) { users(s); s.authErr = auth.ErrBadCredentials },
			want: []string{"write 0502", "authenticate alice", "write 0101"}, status: 1,
		},
		{
			name: "locked out", sent: helloUser + userPass, setup: func(s *conversing) { users(s); s.authErr = &auth.LockedOutError{Until: time.Unix(0, 0)} },
			want: []string{"write 0502", "authenticate alice", "write 0101"}, status: 1,
		},
		{name: "no user where one is required", sent: hello + byName, setup: users, want: []string{"write 05ff"}, status: 255, reason: acl.ReasonNeedsUser},
		{name: "a password where there are no users", sent: helloOnly, want: []string{"write 05ff"}, status: 255, reason: requestError},
		{name: "GSSAPI alone", sent: helloKerb, want: []string{"write 05ff"}, status: 255, reason: requestError},
		{
			name: "a client that no rule would admit, and no users", sent: hello + byName, setup: func(s *conversing) { s.anonymous = false; s.authorizeErr = denied },
			want: []string{"write 0500", "authorize example.com port 80", "write 05020001000000000000"}, status: 2,
		},
		{
			name: "denied", sent: hello + byName, setup: func(s *conversing) { s.authorizeErr = denied },
			want: []string{"write 0500", "authorize example.com port 80", "write 05020001000000000000"}, status: 2,
		},
		{
			name: "a user would be needed", sent: hello + byName, setup: func(s *conversing) { s.authorizeErr = challenge },
			want: []string{"write 0500", "authorize example.com port 80", "write 05020001000000000000"}, status: 2,
		},
		{
			name: "nobody listens", sent: hello + byName, setup: func(s *conversing) { s.dialed = refused },
			want: append(success("example.com")[:4:4], "write 05050001000000000000"), status: 5,
		},
		{name: "an unknown command", sent: hello + "\x05\xf0\x00\x03\x01a\x00\x00", want: []string{"write 0500", "write 05070001000000000000"}, status: 7, reason: requestError},
		{name: "an unknown address type", sent: hello + "\x05\x01\x00\x02", want: []string{"write 0500", "write 05080001000000000000"}, status: 8, reason: requestError},
		{name: "port 0", sent: hello + "\x05\x01\x00\x01\xc6\x33\x64\x07\x00\x00", want: []string{"write 0500", "write 05040001000000000000"}, status: 4, reason: requestError},
		{name: "a name that cannot exist", sent: hello + "\x05\x01\x00\x03\x04a..b\x00P", want: []string{"write 0500", "write 05040001000000000000"}, status: 4, reason: requestError},
		{name: "a name with NUL", sent: hello + "\x05\x01\x00\x03\x03a\x00b\x00P", want: []string{"write 0500"}, reason: requestError},
		{name: "a name with a line end", sent: hello + "\x05\x01\x00\x03\x03a\r\n\x00P", want: []string{"write 0500"}, reason: requestError},
		{name: "a name of length zero", sent: hello + "\x05\x01\x00\x03\x00\x00P", want: []string{"write 0500"}, reason: requestError},
		{name: "no method at all", sent: "\x05\x00", want: nil, reason: requestError},
		{name: "a request of version 4", sent: hello + "\x04\x01", want: []string{"write 0500"}, reason: requestError},
		{name: "credentials of version 5", sent: helloUser + "\x05\x01\x00", setup: users, want: []string{"write 0502"}, reason: requestError},
		{name: "a user name with NUL", sent: helloUser + "\x01\x01\x00\x01p", setup: users, want: []string{"write 0502"}, reason: requestError},
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
				if ok := s.relayed != nil; ok != (err == nil) || s.status != tt.status || s.reason != tt.reason || s.version != "SOCKS5" {
					t.Errorf("relayed %v, error %v, status %d, reason %q, version %q, want status %d, reason %q",
						ok, err, s.status, s.reason, s.version, tt.status, tt.reason)
				}
			})
		}
	}
}

// users makes the session one that requires a user.
func users(s *conversing) { s.anonymous, s.password = false, true }

// deliveries are the ways in which a client's octets can reach the handler.
var deliveries = map[string]func(sent string) (r io.Reader, prefix string){
	"in one piece":       func(s string) (io.Reader, string) { return strings.NewReader(s), "" },
	"byte by byte":       func(s string) (io.Reader, string) { return iotest.OneByteReader(strings.NewReader(s)), "" },
	"two octets sniffed": func(s string) (io.Reader, string) { return strings.NewReader(s[2:]), s[:2] },
	"all of it sniffed":  func(s string) (io.Reader, string) { return strings.NewReader(""), s },
}

func TestServeKeepsDataSentAhead(t *testing.T) {
	data := strings.Repeat("SSH-2.0-OpenSSH_9.2\r\n", 200) + "end" // more than the handler's buffer
	for how, pieces := range deliveries {
		t.Run(how, func(t *testing.T) {
			s := converse(pieces(helloUser + userPass + byName + data))
			users(s)
			if _, err := s.serve(); err != nil || s.relayed != s.target {
				t.Fatalf("serve = %v, relayed %v", err, s.relayed)
			}
			if got := s.unread(); got != data {
				t.Errorf("the tunnel finds %d octets, want %d", len(got), len(data))
			}
			if s.credentials != (auth.Credentials{User: "alice", Password: "secret"}) {
				t.Errorf("authenticated user %q, want alice", s.credentials.User)
			}
		})
	}
}

func TestServeCutAtEveryLength(t *testing.T) {
	sent := helloUser + userPass + byName
	for i := range len(sent) {
		s := converse(strings.NewReader(sent[:i]), "")
		users(s)
		events, err := s.serve()
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d octets: %v, want an end of file", i, err)
		}
		if s.relayed != nil || s.reason != closedEarly {
			t.Errorf("cut after %d octets: relayed %v, reason %q, events %q", i, s.relayed, s.reason, events)
		}
	}
}

func TestServeErrorsSayWhatToDoAndNoSecret(t *testing.T) {
	for _, tt := range []struct {
		name, sent string
		setup      func(*conversing)
		want       string
	}{
		{"no user", hello, users, "give the SOCKS5 client a user name and a password"},
		{"no users", helloOnly, func(*conversing) {}, "leave the user name out, or write [auth]"},
		{"an unknown command", hello + "\x05\xf0\x00\x01\x00\x00\x00\x00\x00\x00", func(*conversing) {}, "only CONNECT, BIND and UDP ASSOCIATE are served"},
		{"no UDP", hello + udpAnything, func(s *conversing) { s.associateErr = udprelay.ErrUnsupported }, "the client asked for UDP ASSOCIATE: UDP is not served on this listener"},
		{"too many", hello + udpAnything, func(s *conversing) { s.associateErr = udprelay.ErrTooMany }, "[udp] associations says how many there may be"},
		{"another user's", hello + udpAnything, func(s *conversing) { s.associateErr = udprelay.ErrAmbiguous }, "give each association a port of its own with [udp] ports"},
		{"wrong password", helloUser + userPass, func(s *conversing) { users(s); s.authErr = auth.ErrBadCredentials }, auth.ErrBadCredentials.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := converse(strings.NewReader(tt.sent), "")
			tt.setup(s)
			_, err := s.serve()
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("serve = %v, want it to say %q and not the password", err, tt.want)
			}
		})
	}
}

func TestServeWriteFails(t *testing.T) {
	for _, tt := range []struct{ name, sent string }{
		{"the method selection", hello},
		{"the refusal", helloKerb},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := converse(strings.NewReader(tt.sent), "")
			s.client.writeErr = io.ErrClosedPipe
			if _, err := s.serve(); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("serve = %v, want %v", err, io.ErrClosedPipe)
			}
		})
	}
}

func TestSucceedFailsToWrite(t *testing.T) {
	// The client goes away while the target is dialled: nobody relays, so the handler closes the target.
	s := converse(strings.NewReader(hello+byName), "")
	dialing := &failWrites{conversing: s}
	if err := serve(t.Context(), dialing); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("serve = %v, want %v", err, io.ErrClosedPipe)
	}
	if !s.target.closed || s.relayed != nil {
		t.Errorf("target closed %v, relayed %v, want it closed and not relayed", s.target.closed, s.relayed)
	}
}

// failWrites is a session whose client can no longer be written to once Established.
type failWrites struct{ *conversing }

func (f *failWrites) Established() { f.client.writeErr = io.ErrClosedPipe }

func TestAnswerHasADeadlineOfItsOwn(t *testing.T) {
	s := converse(strings.NewReader(hello+byName), "")
	s.client.deadline = time.Unix(1, 0) // the handshake's has passed
	if _, err := s.serve(); err != nil {
		t.Fatal(err)
	}
	if !s.client.deadline.After(time.Now()) {
		t.Errorf("the reply was written under the deadline %v, which has passed", s.client.deadline)
	}
}

func TestRefusalKeepsItsCause(t *testing.T) {
	cause := &egress.Error{Reason: egress.ConnectionRefused, Err: io.ErrUnexpectedEOF}
	err := error(refuseWith(socks.ConnectionRefused, "", cause))
	var e *egress.Error
	if !errors.As(err, &e) || e != cause {
		t.Errorf("the cause of %v is lost", err)
	}
}
