package session

import (
	"context"
	"errors"
	"testing"

	"polyport/acl"
	"polyport/internal/auth"
	"polyport/internal/egress"
)

// TestSameQuestionAgain: an exchange is given the permit of the one before only if nothing is different that rules
// can tell apart.
func TestSameQuestionAgain(t *testing.T) {
	here := mustTarget(t, "127.0.0.1:80")
	ask := func(t *testing.T, s *Session) *egress.Permit {
		t.Helper()
		p, err := s.Authorize(t.Context(), here)
		if err != nil {
			t.Fatal(err)
		}
		if r := s.record; r.Rule != "loopback" || r.Target != "127.0.0.1:80" {
			t.Errorf("the record has the rule %q and the target %q", r.Rule, r.Target)
		}
		return p
	}
	tests := []struct {
		name   string
		change func(t *testing.T, s *Session)
		same   bool
	}{
		{"nothing", func(*testing.T, *Session) {}, true},
		{"the method", func(_ *testing.T, s *Session) { s.SetMethod("POST") }, false},
		{"the protocol", func(_ *testing.T, s *Session) { s.SetProtocol("connect") }, false},
		{"the user", func(t *testing.T, s *Session) {
			if _, err := s.Authenticate(t.Context(), auth.Credentials{User: "alice", Password: "right"}); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"the way that he wishes for", func(_ *testing.T, s *Session) { s.wish.Session = "k3j" }, false},
		{"the user's groups", func(_ *testing.T, s *Session) { s.identity.Groups = []string{"guests"} }, false},
		{"the listener's rule", func(_ *testing.T, s *Session) { s.listener.RequireUser = !s.listener.RequireUser }, false},
		{"the rules", func(_ *testing.T, s *Session) { rt := *s.runtime; s.runtime = &rt }, false},
		{"the time, a little", func(_ *testing.T, s *Session) { s.record.Start = s.record.Start.Add(grantTime / 2) }, true},
		{"the time", func(_ *testing.T, s *Session) { s.record.Start = s.record.Start.Add(grantTime) }, false},
		{"another target between", func(t *testing.T, s *Session) {
			if _, err := s.Authorize(t.Context(), mustTarget(t, "127.0.0.1:81")); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"a refusal between", func(t *testing.T, s *Session) {
			for range 2 {
				if _, err := s.Authorize(t.Context(), mustTarget(t, "127.0.0.1:23")); !errors.Is(err, egress.ErrDenied) {
					t.Fatalf("telnet: %v, want a denial", err)
				}
			}
			s.record.Reason = ""
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
				s.SetMethod("GET")
				first := ask(t, s)
				s.Next(nil)
				s.SetMethod("GET")
				second := ask(t, s)
				if first == second {
					t.Error("the first exchange, which most connections end with, has kept its permit")
				}
				s.Next(nil)
				s.SetMethod("GET")
				tt.change(t, s)
				p, err := s.Authorize(t.Context(), here)
				if err != nil && tt.same || (p == second) != tt.same {
					t.Errorf("the next exchange got %p, %v, after %p; want the same: %v", p, err, second, tt.same)
				}
				return nil
			}), nil)
			h.connect(t, "").CloseWrite()
			for range 3 {
				<-h.records.ended
			}
		})
	}
}

// TestRulesThatLookAtTheTimeAreAlwaysAsked: their answer to the same question changes.
func TestRulesThatLookAtTheTimeAreAlwaysAsked(t *testing.T) {
	policy, err := acl.New(acl.Options{Rules: []acl.Rule{
		{Action: acl.Allow, Target: []string{"127.0.0.0/8"}, Time: "Mon-Sun 00:00-24:00 UTC"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		var last *egress.Permit
		for range 3 {
			p, err := s.Authorize(t.Context(), mustTarget(t, "127.0.0.1:80"))
			if err != nil || p == last {
				t.Errorf("Authorize = %p, %v, after %p; want another permit each time", p, err, last)
			}
			last = p
			s.Next(nil)
		}
		return nil
	}), func(rt *Runtime) { rt.Policy, rt.Egress = policy, egress.New(egress.Options{Policy: policy}) })
	h.connect(t, "").CloseWrite()
	for range 4 {
		<-h.records.ended
	}
}
