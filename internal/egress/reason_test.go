package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"polyport/acl"
	"polyport/internal/target"
)

func TestConnectReason(t *testing.T) {
	wrapped := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
	}
	tests := []struct {
		name string
		err  error
		want Reason
	}{
		{"refused", wrapped(syscall.ECONNREFUSED), ConnectionRefused},
		{"timed out", wrapped(syscall.ETIMEDOUT), ConnectionTimeout},
		{"reset", wrapped(syscall.ECONNRESET), ConnectionTerminated},
		{"no route to the net", wrapped(syscall.ENETUNREACH), DestinationUnroutable},
		{"no route to the host", wrapped(syscall.EHOSTUNREACH), DestinationUnroutable},
		{"no such family", wrapped(syscall.EAFNOSUPPORT), DestinationUnroutable},
		{"no address of that family", wrapped(syscall.EADDRNOTAVAIL), DestinationUnroutable},
		{"link-local without a zone", wrapped(syscall.EINVAL), DestinationUnroutable},
		{"broadcast, or a firewall", wrapped(syscall.EACCES), DestinationUnroutable},
		{"a firewall", wrapped(syscall.EPERM), DestinationUnroutable},
		{"no descriptors in the process", wrapped(syscall.EMFILE), LimitReached},
		{"no descriptors in the system", wrapped(syscall.ENFILE), LimitReached},
		{"no buffers", wrapped(syscall.ENOBUFS), LimitReached},
		{"some other errno", wrapped(syscall.EIO), DestinationUnavailable},
		{"deadline of the socket", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, ConnectionTimeout},
		{"deadline of the context", context.DeadlineExceeded, ConnectionTimeout},
		{"some other timeout", &net.DNSError{IsTimeout: true}, ConnectionTimeout},
		{"cancelled", context.Canceled, ConnectionTerminated},
		{"not pinned", &net.OpError{Op: "dial", Err: errNotPinned}, DestinationProhibited},
		{"unknown", errors.New("boom"), DestinationUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := connectReason(tt.err); got != tt.want {
				t.Errorf("connectReason(%v) = %s, want %s", tt.err, got, tt.want)
			}
		})
	}
}

func TestDNSReason(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want Reason
	}{
		{"timeout", &net.DNSError{IsTimeout: true}, DNSTimeout},
		{"deadline", fmt.Errorf("look up: %w", context.DeadlineExceeded), DNSTimeout},
		{"not found", &net.DNSError{IsNotFound: true}, DNSError},
		{"cancelled", context.Canceled, ConnectionTerminated},
		{"unknown", errors.New("boom"), DNSError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := dnsReason(tt.err); got != tt.want {
				t.Errorf("dnsReason(%v) = %s, want %s", tt.err, got, tt.want)
			}
		})
	}
}

func TestErrorSentences(t *testing.T) {
	a := to(t, "a.example:443").Target
	literal := to(t, "8.8.8.8:443").Target
	tests := []struct {
		name string
		err  *Error
		want string
	}{
		{"no rule", refusal(a, acl.Decision{Reason: acl.ReasonNoRule}), "not allowed to reach a.example:443: no rule allows it"},
		{"a rule", refusal(a, acl.Decision{Rule: "r", Reason: acl.ReasonRule}), "not allowed to reach a.example:443: the rules forbid it (rule r)"},
		{"challenge", refusal(a, acl.Decision{Action: acl.Challenge, Rule: "r", Reason: acl.ReasonNeedsUser}), "a user is required to reach a.example:443: it is not open to sessions without a user (rule r)"},
		{"challenge that nobody can answer", refusal(a, acl.Decision{Rule: "r", Reason: acl.ReasonNeedsUser}), "not allowed to reach a.example:443: it is not open to sessions without a user, and there are no users (rule r)"},
		{
			"guard", Verdict{Address: netip.MustParseAddrPort("10.0.0.1:443"), Decision: acl.Decision{Rule: "r", Reason: acl.ReasonGuard}}.err(a),
			"not allowed to reach a.example:443 at 10.0.0.1:443: its address is for private use (RFC 1918); only an allow rule whose target is a prefix inside that range opens it",
		},
		{
			"loop", Verdict{Own: true, Address: netip.MustParseAddrPort("8.8.8.8:443"), Decision: acl.Decision{Rule: "r", Reason: acl.ReasonGuard}}.err(literal),
			"not allowed to reach 8.8.8.8:443: it is one of this gateway's own sockets",
		},
		{"no target", &Error{Reason: InternalError, Err: errNoTarget}, "the request names no target"},
		{"a server by itself", &Error{Reason: DNSError, Err: errors.New("upstream http://a:1 requires a user")}, "upstream http://a:1 requires a user"},
		{"no cause", &Error{Reason: ConnectionTimeout, Target: a}, "cannot connect to a.example:443: connection_timeout"},
		{"a row", &Error{Reason: ConnectionRefused, Target: target.Name("ssh"), Backend: "b", Address: netip.MustParseAddrPort("127.0.0.1:22"), Err: syscall.ECONNREFUSED}, "cannot connect to backend b for ssh at 127.0.0.1:22: connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("Error says\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// answered is a name server's answer as package resolve wraps it.
type answered struct{ info int }

func (answered) Error() string          { return "no" }
func (a answered) RCode() (string, int) { return "NXDOMAIN", a.info }

func TestRCode(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   *Error
		rcode string
		info  int
		ok    bool
	}{
		{"known", &Error{Reason: DNSError, Err: fmt.Errorf("look up: %w", answered{-1})}, "NXDOMAIN", -1, true},
		{"with more", &Error{Reason: DNSError, Err: fmt.Errorf("look up: %w", answered{15})}, "NXDOMAIN", 15, true},
		{"unknown", &Error{Reason: DNSError, Err: errNoAddress}, "", 0, false},
		{"no cause", &Error{Reason: DNSError}, "", 0, false},
		{"not a matter of names", &Error{Reason: ConnectionRefused, Err: answered{-1}}, "", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if rcode, info, ok := tt.err.RCode(); rcode != tt.rcode || info != tt.info || ok != tt.ok {
				t.Errorf("RCode() = %q, %d, %v; want %q, %d, %v", rcode, info, ok, tt.rcode, tt.info, tt.ok)
			}
		})
	}
}
