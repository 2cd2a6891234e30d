package socks4

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/socks"
)

func TestCodeFor(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want socks.Code4
	}{
		{"denied by a rule", &egress.Error{Reason: egress.RequestDenied, Err: egress.ErrDenied}, socks.Rejected},
		{"denied by the guard", &egress.Error{Reason: egress.DestinationProhibited, Err: egress.ErrDenied}, socks.Rejected},
		{"credentials might help", fmt.Errorf("authorize: %w", &egress.Error{Decision: acl.Decision{Action: acl.Challenge}}), socks.WrongIdentity},
		{"a user is required", &egress.Error{Decision: acl.Decision{Reason: acl.ReasonNeedsUser}}, socks.WrongIdentity},
		{"refused", &egress.Error{Reason: egress.ConnectionRefused}, socks.Rejected},
		{"any other error", io.ErrClosedPipe, socks.Rejected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := codeFor(tt.err); got != tt.want {
				t.Errorf("codeFor(%v) = %d, want %d", tt.err, got, tt.want)
			}
		})
	}
}

func TestReasonFor(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("read: %w", socks.ErrMalformed), "http_request_error"},
		{fmt.Errorf("read: %w", os.ErrDeadlineExceeded), "handshake_timeout"},
		{io.EOF, "closed_before_request"},
		{fmt.Errorf("read: %w", io.ErrUnexpectedEOF), "closed_before_request"},
		{errors.New("reset"), "connection_terminated"},
	} {
		if got := reasonFor(tt.err); got != tt.want {
			t.Errorf("reasonFor(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestRefusalKeepsItsCause(t *testing.T) {
	cause := &egress.Error{Reason: egress.ConnectionRefused, Err: io.ErrUnexpectedEOF}
	var e *egress.Error
	if err := error(&refusal{socks.Rejected, "", cause}); !errors.As(err, &e) || e != cause {
		t.Errorf("the cause of %v is lost", err)
	}
}
