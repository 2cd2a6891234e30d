package tls

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"polyport/acl"
	"polyport/internal/clienthello"
	"polyport/internal/egress"
	"polyport/mux"
)

// early stands behind every hello of these tests, as 0-RTT data would.
const early = "early data"

// hello returns what a crypto/tls client with this name and these protocols sends first.
func hello(t testing.TB, name string, alpn ...string) string {
	t.Helper()
	client, gateway := net.Pipe()
	defer gateway.Close()
	go func() {
		defer client.Close()
		_ = tls.Client(client, &tls.Config{ServerName: name, NextProtos: alpn, InsecureSkipVerify: true}).Handshake()
	}()
	_, raw, err := clienthello.Read(gateway)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// renamed puts another name of the same length into a hello.
func renamed(hello, from, to string) string {
	if len(from) != len(to) || strings.Count(hello, from) != 1 {
		panic("not a renaming")
	}
	return strings.Replace(hello, from, to, 1)
}

var routed = Options{Route: map[string]Route{
	"git":      {Backend: "one", SNI: []string{"git.example.com"}},
	"web":      {Backend: "two", SNI: []string{"*.example.com"}, ALPN: []string{"h2"}},
	"nameless": {Backend: "three", SNI: []string{""}},
}}

func TestServe(t *testing.T) {
	denied := &egress.Error{Reason: egress.RequestDenied, Decision: acl.Decision{Reason: acl.ReasonRule}, Err: egress.ErrDenied}
	needsUser := &egress.Error{Reason: egress.RequestDenied, Decision: acl.Decision{Action: acl.Challenge}, Err: egress.ErrChallenge}
	refused := &egress.Error{Reason: egress.ConnectionRefused, Err: errors.New("connection refused")}
	unresolved := &egress.Error{Reason: egress.DNSError, Err: errors.New("no such host")}
	git := hello(t, "git.example.com")
	tests := []struct {
		name    string
		options Options
		sends   string
		fake    fake
		asked   string
		alert   clienthello.Alert // 0 is none
		reason  string
	}{
		{name: "route", options: routed, sends: git, asked: "git.example.com:443 -> one"},
		{name: "upper case", options: routed, sends: renamed(git, "git.example.com", "GIT.Example.COM"), asked: "git.example.com:443 -> one"},
		{name: "trailing dot", options: routed, sends: renamed(hello(t, "git.example.comx"), "comx", "com."), asked: "git.example.com:443 -> one"},
		{name: "route by protocol", options: routed, sends: hello(t, "www.example.com", "h2"), asked: "www.example.com:443 -> two"},
		{name: "protocol not offered", options: routed, sends: hello(t, "www.example.com", "http/1.1"), alert: 112, reason: "no_route"},
		{name: "no route", options: routed, sends: hello(t, "else.where"), alert: 112, reason: "no_route"},
		{name: "no route, no options", sends: git, alert: 112, reason: "no_route"},
		{name: "dial_sni", options: Options{DialSNI: true}, sends: git, asked: "git.example.com:443"},
		{name: "dial_sni beside a route", options: Options{DialSNI: true, Route: routed.Route}, sends: git, asked: "git.example.com:443 -> one"},
		{name: "no name", options: routed, sends: hello(t, ""), asked: "no-sni -> three"},
		{name: "no name, dial_sni", options: Options{DialSNI: true}, sends: hello(t, ""), alert: 109, reason: "no_sni"},
		{
			name: "address as a name", options: Options{DialSNI: true},
			sends: renamed(hello(t, "abc.0.0.x"), "abc.0.0.x", "127.0.0.1"), alert: 47, reason: "invalid_sni",
		},
		{
			name: "address in hexadecimal", options: Options{DialSNI: true},
			sends: renamed(hello(t, "xx.example"), "xx.example", "0x7f000001"), alert: 47, reason: "invalid_sni",
		},
		{
			name: "IPv6 as a name", options: Options{DialSNI: true},
			sends: renamed(hello(t, "a.b"), "a.b", "::1"), alert: 47, reason: "invalid_sni",
		},
		{
			name: "control bytes in the name", options: Options{DialSNI: true},
			sends: renamed(git, "git.example.com", "git\nexample.com"), alert: 47, reason: "invalid_sni",
		},
		{name: "denied", options: routed, sends: git, fake: fake{authorizeErr: denied}, asked: "git.example.com:443 -> one", alert: 49},
		{name: "denied, dial_sni", options: Options{DialSNI: true}, sends: git, fake: fake{authorizeErr: denied}, asked: "git.example.com:443", alert: 49},
		{name: "needs a user", options: routed, sends: git, fake: fake{authorizeErr: needsUser}, asked: "git.example.com:443 -> one", alert: 49},
		{name: "unresolved", options: Options{DialSNI: true}, sends: git, fake: fake{authorizeErr: unresolved}, asked: "git.example.com:443", alert: 80},
		{name: "unreachable", options: routed, sends: git, fake: fake{dialErr: refused}, asked: "git.example.com:443 -> one", alert: 80},
		{name: "malformed", options: routed, sends: "\x16\x03\x01\x00\x04\x01\x00\x00\x00", alert: 50, reason: "malformed_client_hello"},
		{name: "no handshake", options: routed, sends: "\x16\x03\x01\x00\x04\x02\x00\x00\x00", alert: 10, reason: "malformed_client_hello"},
		{name: "record too long", options: routed, sends: "\x16\x03\x01\xff\xff", alert: 22, reason: "malformed_client_hello"},
	}
	for _, tt := range tests {
		for _, sniffed := range []int{0, 1, 2, 9, len(tt.sends) - 1, len(tt.sends), len(tt.sends) + 3} {
			t.Run(fmt.Sprintf("%s/%d sniffed", tt.name, sniffed), func(t *testing.T) {
				f, w := tt.fake, &wire{}
				all := tt.sends + early
				sniffed = min(sniffed, len(all))
				w.in = strings.NewReader(all[sniffed:])
				f.conn = mux.NewConn(w, "main", Name, []byte(all[:sniffed]))
				err := newHandler(t, tt.options).serve(context.Background(), &f)
				if f.asked != tt.asked || f.reason != tt.reason {
					t.Errorf("asked for %q with reason %q, want %q, %q", f.asked, f.reason, tt.asked, tt.reason)
				}
				if tt.alert == 0 {
					checkPassed(t, &f, w, all, err)
				} else {
					checkRefused(t, &f, w, tt.alert, err)
				}
			})
		}
	}
}

// A backend is told of the protocol in the tunnel only where there is no doubt about it.
func TestALPNForBackends(t *testing.T) {
	for want, offered := range map[string][]string{"h2": {"h2"}, "": {"http/1.1", "h2"}} {
		f, w := fake{}, &wire{in: strings.NewReader(hello(t, "git.example.com", offered...))}
		f.conn = mux.NewConn(w, "main", Name, nil)
		if err := newHandler(t, routed).serve(context.Background(), &f); err != nil || f.alpn != want {
			t.Errorf("a client that offers %q: %v, ALPN %q, want %q", offered, err, f.alpn, want)
		}
	}
}

// checkPassed checks that the server gets every byte, and the client none of ours.
func checkPassed(t *testing.T, f *fake, w *wire, want string, err error) {
	t.Helper()
	if err != nil || f.relayed != server {
		t.Fatalf("serve: %v, relayed %v", err, f.relayed)
	}
	got, err := io.ReadAll(f.conn)
	if err != nil || string(got) != want {
		t.Errorf("the server gets %d bytes (%v), want the client's %d", len(got), err, len(want))
	}
	if w.out.Len() > 0 {
		t.Errorf("the client got %x", w.out.Bytes())
	}
	if f.version != "TLSv1.3" {
		t.Errorf("version %q, want TLSv1.3", f.version)
	}
}

// checkRefused checks that the client gets the alert and nothing is relayed.
func checkRefused(t *testing.T, f *fake, w *wire, alert clienthello.Alert, err error) {
	t.Helper()
	if err == nil || f.relayed != nil {
		t.Fatalf("serve: %v, relayed %v", err, f.relayed)
	}
	if !bytes.Equal(w.out.Bytes(), alert.Record()) {
		t.Errorf("the client got %x, want %v", w.out.Bytes(), alert)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error can forge a line of a log: %q", err)
	}
}

func TestServeInterrupted(t *testing.T) {
	git := hello(t, "git.example.com")
	tests := []struct {
		name   string
		rest   io.Reader
		reason string
		want   error
	}{
		{"client hangs up", strings.NewReader(""), "client_closed", io.ErrUnexpectedEOF},
		{"client is reset", iotest.ErrReader(net.ErrClosed), "client_closed", net.ErrClosed},
		{"client is slow", iotest.ErrReader(os.ErrDeadlineExceeded), "handshake_timeout", os.ErrDeadlineExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := &wire{in: io.MultiReader(strings.NewReader(git[6:100]), tt.rest)}
			f := &fake{conn: mux.NewConn(w, "main", Name, []byte(git[:6]))}
			err := newHandler(t, routed).serve(context.Background(), f)
			if !errors.Is(err, tt.want) || f.reason != tt.reason {
				t.Errorf("serve: %v, reason %q, want %v, %q", err, f.reason, tt.want, tt.reason)
			}
			if w.out.Len() > 0 {
				t.Errorf("the client got %x", w.out.Bytes())
			}
		})
	}
}

// A client that has gone before the alert leaves both causes.
func TestAlertCannotBeSent(t *testing.T) {
	w := &deaf{}
	w.in = strings.NewReader("")
	f := &fake{conn: mux.NewConn(w, "main", Name, []byte("\x16\x03\x01\xff\xff"))}
	err := newHandler(t, routed).serve(context.Background(), f)
	if !errors.Is(err, clienthello.ErrOverflow) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve: %v, want both causes", err)
	}
}

// deaf is a client that cannot be written to.
type deaf struct{ wire }

func (*deaf) Write([]byte) (int, error) { return 0, net.ErrClosed }

func BenchmarkServe(b *testing.B) {
	rows, err := New(backends("one", "two", "three"), decoded(routed))
	if err != nil {
		b.Fatal(err)
	}
	h := rows[0].Handler.(*handler)
	first := []byte(hello(b, "git.example.com", "h2", "http/1.1"))
	w := &wire{in: strings.NewReader("")}
	b.ReportAllocs()
	for b.Loop() {
		f := fake{conn: mux.NewConn(w, "main", Name, first)}
		if err := h.serve(context.Background(), &f); err != nil {
			b.Fatal(err)
		}
	}
}
