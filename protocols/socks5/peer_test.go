package socks5

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/proxy"

	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/mux"
)

// TestIndependentClient lets the SOCKS5 client of golang.org/x/net talk to the handler.
func TestIndependentClient(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, tt := range []struct {
		name    string
		user    *proxy.Auth
		address string
		setup   func(*conversing)
		fails   string // what the client's error says; "" for a success
	}{
		{name: "a name", address: "example.com:80"},
		{name: "IPv4", address: "198.51.100.7:80"},
		{name: "IPv6", address: "[2001:db8::1]:80"},
		{name: "a user", user: &proxy.Auth{User: "alice", Password: "secret"}, address: "example.com:80", setup: users},
		{
			name: "a wrong password", user: &proxy.Auth{User: "alice", Password: "wrong"}, address: "example.com:80", fails: "authentication failed",
			setup: func(s *conversing) { users(s); s.authErr = auth.ErrBadCredentials },
		},
		{name: "no user", address: "example.com:80", setup: users, fails: "no acceptable authentication methods"},
		{
			name: "denied", address: "example.com:80", fails: "connection not allowed by ruleset",
			setup: func(s *conversing) {
				s.authorizeErr = &egress.Error{Reason: egress.RequestDenied, Err: egress.ErrDenied}
			},
		},
		{
			name: "refused", address: "example.com:80", fails: "connection refused",
			setup: func(s *conversing) { s.dialed = &egress.Error{Reason: egress.ConnectionRefused, Err: io.EOF} },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			s := converse(nil, "")
			s.conn = mux.NewConn(ours, "main", "socks5", nil)
			if tt.setup != nil {
				tt.setup(s)
			}
			served := make(chan error, 1)
			go func() { // ends with the handler, which ends with the pipe
				err := serve(context.Background(), s)
				if err == nil {
					_, err = io.Copy(ours, s.conn) // an echo in the target's place
				}
				ours.Close()
				served <- err
			}()
			err := talk(theirs, tt.user, tt.address)
			theirs.Close()
			handlerErr := <-served
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) || handlerErr == nil {
					t.Errorf("the client says %v and the handler %v, want the client to say %q", err, handlerErr, tt.fails)
				}
				return
			}
			if err != nil || s.relayed == nil {
				t.Errorf("the client says %v, relayed %v; the handler says %v", err, s.relayed, handlerErr)
			}
		})
	}
}

// talk opens a tunnel over c and expects an echo.
func talk(c net.Conn, user *proxy.Auth, address string) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	d, err := proxy.SOCKS5("tcp", "proxy.invalid:7659", user, single{c})
	if err != nil {
		return err
	}
	tunnel, err := d.Dial("tcp", address)
	if err != nil {
		return err
	}
	if _, err := tunnel.Write([]byte("ping")); err != nil {
		return err
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(tunnel, answer); err != nil {
		return err
	}
	if string(answer) != "ping" {
		return errors.New("the echo is " + string(answer))
	}
	return nil
}

// single is a dialer that has one connection to give.
type single struct{ net.Conn }

func (s single) Dial(string, string) (net.Conn, error) { return s.Conn, nil }
