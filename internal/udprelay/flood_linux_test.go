package udprelay

import (
	"net/netip"
	"slices"
	"testing"
)

// TestNothingIsAskedOverTheLimit: a flood of targets costs the rules nothing once there are as many as may be.
func TestNothingIsAskedOverTheLimit(t *testing.T) {
	target := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{Targets: 1})
	s := newAsker(t, nil)
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	c.send(a.Bound(), to(target, "x"))
	c.wants(target, "x")
	for _, other := range []string{"127.0.0.10:53", "127.0.0.66:53"} { // the rules deny the second one
		c.send(a.Bound(), to(netip.MustParseAddrPort(other), "x"))
	}
	eventually(t, "both are over the limit", func() bool { return a.now().Limited == 2 })
	if got, want := s.questions(), []string{target.String()}; !slices.Equal(got, want) {
		t.Errorf("the rules were asked for %q, want %q", got, want)
	}
}
