package session

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/target"
)

// faulty is a resolver with a fault.
type faulty struct{}

func (faulty) Lookup(context.Context, netip.Addr, string) ([]netip.Addr, error) { panic("boom") }

// TestPanickingQuestion: a panic beneath the question for a datagram's target, which no handler asks, is that target's refusal.
func TestPanickingQuestion(t *testing.T) {
	hn := newHarness(t, nil, func(rt *Runtime) {
		rt.Egress = egress.New(egress.Options{Policy: rt.Policy, Resolver: faulty{}})
	})
	s := &Session{manager: hn.Manager, runtime: hn.Runtime()}
	p := &packets{session: s, request: acl.Request{Client: netip.MustParseAddr("127.0.0.1"), Identity: "alice"}}
	to, err := target.New("faulty.test", 53)
	if err != nil {
		t.Fatal(err)
	}
	permit, err := p.AuthorizePacket(t.Context(), to)
	e := (*egress.Error)(nil)
	if permit != nil || !errors.As(err, &e) || e.Reason != egress.InternalError || e.Target != to {
		t.Errorf("AuthorizePacket = %v, %v, want an internal error", permit, err)
	}
	if got := hn.log.String(); !strings.Contains(got, "boom") || !strings.Contains(got, "faulty.test:53") {
		t.Errorf("the log says %s", got)
	}
}
