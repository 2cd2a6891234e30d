package httpproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/http1"
	"polyport/internal/target"
)

func mustTarget(t testing.TB, hostport string) target.Target {
	t.Helper()
	to, err := target.Parse(hostport)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func TestForEgress(t *testing.T) {
	to := mustTarget(t, "example.com:80")
	tests := []struct {
		name   string
		err    error
		status int
		reason token
	}{
		{"rule", &egress.Error{Reason: egress.RequestDenied, Target: to, Err: egress.ErrDenied}, 403, "http_request_denied"},
		{"guard", &egress.Error{Reason: egress.DestinationProhibited, Target: to, Err: egress.ErrDenied}, 403, "destination_ip_prohibited"},
		{"loop", &egress.Error{Reason: egress.LoopDetected, Target: to, Err: egress.ErrDenied}, 502, "proxy_loop_detected"},
		{
			"challenge", &egress.Error{Reason: egress.RequestDenied, Target: to, Decision: acl.Decision{Action: acl.Challenge}, Err: egress.ErrChallenge},
			407, "http_request_denied",
		},
		{"wrapped", fmt.Errorf("authorize: %w", &egress.Error{Reason: egress.DNSError, Target: to, Err: io.EOF}), 502, "dns_error"},
		{"dns timeout", &egress.Error{Reason: egress.DNSTimeout, Target: to, Err: io.EOF}, 504, "dns_timeout"},
		{"refused", &egress.Error{Reason: egress.ConnectionRefused, Target: to, Err: io.EOF}, 502, "connection_refused"},
		{"terminated", &egress.Error{Reason: egress.ConnectionTerminated, Target: to, Err: io.EOF}, 502, "connection_terminated"},
		{"timeout", &egress.Error{Reason: egress.ConnectionTimeout, Target: to, Err: io.EOF}, 504, "connection_timeout"},
		{"no route", &egress.Error{Reason: egress.DestinationUnroutable, Target: to, Err: io.EOF}, 502, "destination_ip_unroutable"},
		{"unavailable", &egress.Error{Reason: egress.DestinationUnavailable, Target: to, Err: io.EOF}, 503, "destination_unavailable"},
		{"limit", &egress.Error{Reason: egress.LimitReached, Target: to, Err: io.EOF}, 503, "connection_limit_reached"},
		{"fault of ours", &egress.Error{Reason: egress.InternalError, Target: to, Err: io.EOF}, 500, "proxy_internal_error"},
		{"a reason that is new", &egress.Error{Reason: "http_upgrade_failed", Target: to, Err: io.EOF}, 502, "http_upgrade_failed"},
		{"something else", io.EOF, 500, "proxy_internal_error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := forEgress(tt.err)
			if r.status != tt.status || r.reason != tt.reason || r.says == "" || !errors.Is(r, tt.err) {
				t.Errorf("forEgress(%v) = %d %s %q", tt.err, r.status, r.reason, r.says)
			}
		})
	}
}

func TestForAuth(t *testing.T) {
	at := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name   string
		err    error
		status int
		retry  time.Duration
	}{
		{"wrong", auth.ErrBadCredentials, 407, 0},
		{"wrapped", fmt.Errorf("check: %w", auth.ErrBadCredentials), 407, 0},
		{"locked out", &auth.LockedOutError{Until: at.Add(90 * time.Second)}, 429, 90 * time.Second},
		{"locked out until just now", &auth.LockedOutError{Until: at.Add(-time.Second)}, 429, time.Second},
		{"locked out, nobody knows until when", auth.ErrLockedOut, 429, time.Minute},
		{"busy", auth.ErrBusy, 503, time.Second},
		{"cancelled", context.Canceled, 503, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if r := forAuth(tt.err, at); r.status != tt.status || r.retryAfter != tt.retry {
				t.Errorf("forAuth(%v) = %d, Retry-After %v; want %d, %v", tt.err, r.status, r.retryAfter, tt.status, tt.retry)
			}
		})
	}
}

func TestOriginRefusal(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		status int
		reason token
	}{
		{"malformed", &http1.ParseError{Status: 502, Reason: "bad"}, 502, "http_protocol_error"},
		{"407", errProxyChallenge, 502, "http_protocol_error"},
		{"101", errSwitched, 502, "http_upgrade_failed"},
		{"no 101", errNotSwitched, 502, "http_upgrade_failed"},
		{"silent", os.ErrDeadlineExceeded, 504, "http_response_timeout"},
		{"cut short", fmt.Errorf("head: %w", io.ErrUnexpectedEOF), 502, "http_response_incomplete"},
		{"closed", io.EOF, 502, "connection_terminated"},
		{"reset", &os.SyscallError{Syscall: "read", Err: syscall.ECONNRESET}, 502, "connection_terminated"},
		{"killed", context.Canceled, 503, "connection_terminated"},
		{"fault of ours", http1.ErrInvalidHead, 500, "proxy_internal_error"},
		{"reset behind a failed write", errors.Join(fmt.Errorf("read: %w", io.EOF), &http1.WriteError{Err: syscall.EPIPE}), 502, "connection_terminated"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if r := originRefusal(tt.err); r.status != tt.status || r.reason != tt.reason || r.says == "" {
				t.Errorf("originRefusal(%v) = %d %s %q", tt.err, r.status, r.reason, r.says)
			}
		})
	}
}

func TestRuleFor(t *testing.T) {
	tests := []struct {
		name string
		err  *egress.Error
		want string
	}{
		{"by name", &egress.Error{Reason: egress.RequestDenied, Target: mustTarget(t, "example.com:8080")}, `target = ["example.com"]` + "\n" + `port   = ["8080"]`},
		{"address that no rule allows", &egress.Error{Reason: egress.RequestDenied, Target: mustTarget(t, "10.1.2.3:80")}, `target = ["10.1.2.3/32"]`},
		{"address", &egress.Error{Reason: egress.DestinationProhibited, Target: mustTarget(t, "10.1.2.3:80")}, `target = ["10.1.2.3/32"]`},
		{
			"name that lies in a special range",
			&egress.Error{Reason: egress.DestinationProhibited, Target: mustTarget(t, "inner.example:80"), Address: netip.MustParseAddrPort("[fd00::1]:80")},
			`target = ["fd00::1/128"]`,
		},
		{"several addresses", &egress.Error{Reason: egress.DestinationProhibited, Target: mustTarget(t, "inner.example:80")}, ""},
		{"loop", &egress.Error{Reason: egress.LoopDetected, Target: mustTarget(t, "127.0.0.1:80")}, ""},
		{"not a matter of rules", &egress.Error{Reason: egress.ConnectionRefused, Target: mustTarget(t, "127.0.0.1:80")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ruleFor(tt.err); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
				t.Errorf("ruleFor = %q, want %q in it", got, tt.want)
			}
		})
	}
}

// FuzzPage: whatever a refusal says, the HTML page has no markup but its own and
// the text no control characters.
func FuzzPage(f *testing.F) {
	f.Add("The name <b> is odd & \"quoted\".", "id<1>")
	f.Add("\x1b[31mred\r\n\x00\u202eback", "x")
	f.Fuzz(func(t *testing.T, says, id string) {
		p := page{refusal: &refusal{status: 403, says: says}, id: id}
		empty := page{refusal: &refusal{status: 403}}
		if got, want := strings.Count(string(p.html()), "<"), strings.Count(string(empty.html()), "<"); got != want {
			t.Errorf("%q brings markup into the page: %d tags, want %d", says, got, want)
		}
		for _, c := range string(p.text()) {
			if c < ' ' && c != '\n' || c == 0x7f || c == '\u202e' {
				t.Errorf("%q brings %q into the text", says, c)
			}
		}
		if got, want := strings.Count(string(p.text()), "\n"), strings.Count(string(empty.text()), "\n"); got != want {
			t.Errorf("%q brings line ends into the text", says)
		}
	})
}
