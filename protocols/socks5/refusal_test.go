package socks5

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"polyport/internal/egress"
	"polyport/internal/socks"
)

func TestCodeFor(t *testing.T) {
	because := func(r egress.Reason, cause error) error { return &egress.Error{Reason: r, Err: cause} }
	for _, tt := range []struct {
		name string
		err  error
		want socks.Code5
	}{
		{"denied by a rule", because(egress.RequestDenied, egress.ErrDenied), socks.NotAllowed},
		{"denied by the guard", because(egress.DestinationProhibited, egress.ErrDenied), socks.NotAllowed},
		{"ourselves", because(egress.LoopDetected, egress.ErrDenied), socks.NotAllowed},
		{"denied, wrapped", fmt.Errorf("authorize: %w", because(egress.RequestDenied, egress.ErrDenied)), socks.NotAllowed},
		{"no such name", because(egress.DNSError, nil), socks.HostUnreachable},
		{"name server silent", because(egress.DNSTimeout, nil), socks.HostUnreachable},
		{"unavailable", because(egress.DestinationUnavailable, nil), socks.HostUnreachable},
		{"no route to the network", because(egress.DestinationUnroutable, syscall.ENETUNREACH), socks.NetworkUnreachable},
		{"no route to the host", because(egress.DestinationUnroutable, os.NewSyscallError("connect", syscall.EHOSTUNREACH)), socks.HostUnreachable},
		{"refused", because(egress.ConnectionRefused, syscall.ECONNREFUSED), socks.ConnectionRefused},
		{"timed out", because(egress.ConnectionTimeout, context.DeadlineExceeded), socks.TTLExpired},
		{"reset", because(egress.ConnectionTerminated, syscall.ECONNRESET), socks.GeneralFailure},
		{"out of descriptors", because(egress.LimitReached, syscall.EMFILE), socks.GeneralFailure},
		{"BIND without ports", because(egress.ConfigurationError, egress.ErrNoBind), socks.CommandNotSupported},
		{"a fault of ours", because(egress.InternalError, nil), socks.GeneralFailure},
		{"any other error", io.ErrClosedPipe, socks.GeneralFailure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := codeFor(tt.err); got != tt.want {
				t.Errorf("codeFor(%v) = %d (%v), want %d (%v)", tt.err, got, got, tt.want, tt.want)
			}
			want := tt.want
			if want == socks.CommandNotSupported {
				want = socks.GeneralFailure
			}
			if got := connectCodeFor(tt.err); got != want {
				t.Errorf("connectCodeFor(%v) = %d (%v), want %d (%v)", tt.err, got, got, want, want)
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
