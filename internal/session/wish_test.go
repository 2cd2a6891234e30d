package session

import (
	"context"
	"errors"
	"testing"

	"polyport/acl"
	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/exit"
	"polyport/mux"
)

// TestWishes: a user name says who it is and which way out is wished for; what cannot be had is no failed log-in.
func TestWishes(t *testing.T) {
	all := exit.Parameters{Exit: true, Country: true, Session: true, TTL: true}
	tests := []struct {
		name       string
		parameters exit.Parameters
		user       string
		password   string
		err        error // of Authenticate
		wish       exit.Wish
		denied     error  // of Authorize then
		exit       string // that a permit leaves by
		reason     string
		failed     bool // it is in the log as a failed log-in
	}{
		{name: "nothing", parameters: all, user: "alice", password: "right", exit: "eu"},
		{name: "an exit", parameters: all, user: "alice+exit-us", password: "right", wish: exit.Wish{Exit: "us"}, exit: "us"},
		{name: "a session", parameters: all, user: "alice+session-k3j", password: "right", wish: exit.Wish{Session: "k3j"}, exit: "eu"},
		{name: "an exit that the rules do not name", parameters: all, user: "alice+exit-jp", password: "right", wish: exit.Wish{Exit: "jp"}, denied: egress.ErrWish, reason: "bad_user_parameters"},
		{name: "an exit that there is not", parameters: all, user: "alice+exit-gone", password: "right", err: ErrWish, reason: "bad_user_parameters"},
		{name: "a country that no server is in", parameters: all, user: "alice+country-de", password: "right", err: ErrWish, reason: "bad_user_parameters"},
		{name: "what is malformed", parameters: all, user: "alice+exit", password: "right", err: ErrWish, reason: "bad_user_parameters"},
		{name: "strangers do not hear which exits there are", parameters: all, user: "alice+exit-gone", password: "wrong", err: auth.ErrBadCredentials, reason: "bad_credentials", failed: true},
		{name: "nor what is allowed to be said", parameters: exit.Parameters{Session: true}, user: "alice+exit-us", password: "wrong", err: auth.ErrBadCredentials, reason: "bad_credentials", failed: true},
		{name: "nor what is malformed", parameters: all, user: "alice+exit", password: "wrong", err: auth.ErrBadCredentials, reason: "bad_credentials", failed: true},
		{name: "nor that a name is missing", parameters: all, user: "+exit-us", password: "right", err: auth.ErrBadCredentials, reason: "bad_credentials", failed: true},
		{name: "what is not allowed", parameters: exit.Parameters{Session: true}, user: "alice+exit-us", password: "right", err: ErrWish, reason: "bad_user_parameters"},
		{name: "a letter like any other", user: "alice+exit-us", password: "right", err: auth.ErrBadCredentials, reason: "bad_credentials", failed: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, handlerFunc(func(ctx context.Context, s *Session) error {
				_, err := s.Authenticate(ctx, auth.Credentials{User: tt.user, Password: tt.password})
				if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Errorf("Authenticate = %v, want %v", err, tt.err)
				}
				if err != nil {
					if s.Identity().Name != "" || s.wish != (exit.Wish{}) {
						t.Errorf("the session is that of %+v with %+v all the same", s.Identity(), s.wish)
					}
					return nil
				}
				if s.Identity().Name != "alice" || s.wish != tt.wish {
					t.Errorf("it is %q with %+v, want alice with %+v", s.Identity().Name, s.wish, tt.wish)
				}
				p, err := s.Authorize(ctx, mustTarget(t, "127.0.0.1:80"))
				if !errors.Is(err, tt.denied) || (err == nil) != (tt.denied == nil) {
					t.Errorf("Authorize = %v, want %v", err, tt.denied)
				}
				if err == nil && p.Route().Exit != tt.exit {
					t.Errorf("it leaves by exit %q, want %q", p.Route().Exit, tt.exit)
				}
				return nil
			}), func(rt *Runtime) {
				policy, err := acl.New(acl.Options{HasUsers: true, Rules: []acl.Rule{
					{Name: "loopback", Action: acl.Allow, Target: []string{"127.0.0.0/8"}, User: []string{"alice"}, Exit: []string{"eu", "us"}},
				}})
				if err != nil {
					t.Fatal(err)
				}
				leaves := func(mark uint32) *egress.Exit { return &egress.Exit{Source: &exit.Source{Mark: mark}} }
				rt.Policy, rt.UserParameters = policy, tt.parameters
				rt.Egress = egress.New(egress.Options{Policy: policy, Ways: egress.Ways{Exits: map[string]*egress.Exit{"eu": leaves(1), "us": leaves(2), "jp": leaves(3)}}})
			})
			_, server := tcpPair(t)
			h.Serve(mux.NewConn(server, "main", "test", nil))
			who := "alice"
			if tt.failed {
				who = ""
			}
			if r := <-h.records.ended; r.Reason != tt.reason || r.Identity != who {
				t.Errorf("the record is %q of %q, want %q of %q", r.Reason, r.Identity, tt.reason, who)
			}
			if failed := h.log.Len() > 0; failed != tt.failed {
				t.Errorf("a failed log-in is in the log: %v, want %v", failed, tt.failed)
			}
		})
	}
}

// TestAWishEndsWithItsExchange: the next exchange is without the user, and without what he wished for.
func TestAWishEndsWithItsExchange(t *testing.T) {
	h := newHarness(t, handlerFunc(func(ctx context.Context, s *Session) error {
		if _, err := s.Authenticate(ctx, auth.Credentials{User: "alice+session-a", Password: "right"}); err != nil {
			t.Error(err)
		}
		if s = s.Next(nil); s.wish != (exit.Wish{}) || s.Identity().Name != "" {
			t.Errorf("the next exchange begins with %+v of %+v", s.wish, s.Identity())
		}
		return nil
	}), func(rt *Runtime) { rt.UserParameters.Session = true })
	_, server := tcpPair(t)
	h.Serve(mux.NewConn(server, "main", "test", nil))
}
