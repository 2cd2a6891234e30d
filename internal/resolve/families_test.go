package resolve

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The IPv4 addresses of a name are not given up because the IPv6 ones came first: this machine may have no way to those. IPv6 that
// is late is given up soon, and then half an answer is not kept as a whole one would be.
func TestLateFamily(t *testing.T) {
	const four, six = "192.0.2.1", "2001:db8::1"
	for _, tt := range []struct {
		name string
		late uint16
		want []string
		life time.Duration
	}{
		{"IPv4", dns.TypeA, []string{four, six}, time.Minute},
		{"IPv6", dns.TypeAAAA, []string{four}, failureTTL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) {
				if q.Question[0].Qtype == tt.late {
					time.Sleep(2 * resolutionDelay)
				}
				reply(w, q, dns.RcodeSuccess, "% 1 A "+four, "% 1 AAAA "+six)
			})
			o := Options{Servers: overUDPFirst(s.addr), MinimumTTL: time.Minute, Timeout: 30 * time.Second}
			sys := newSystem(Any)
			sys.dns.Dial = s.dial
			for name, r := range map[string]*Resolver{"servers": New(o), "system": withSource(t, o, sys.lookup)} {
				defer r.Close()
				got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
				checkLookup(t, got, err, tt.want, nil, "")
				if e, _ := r.cache.get("a.example", time.Now()); e == nil || e.life != tt.life {
					t.Errorf("the cache of the %s has %+v, want a life of %v", name, e, tt.life)
				}
			}
		})
	}
}
