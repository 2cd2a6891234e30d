package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// checkLookup compares what Lookup gave with what was wanted.
func checkLookup(t *testing.T, got []netip.Addr, err error, want []string, kind error, says string) {
	t.Helper()
	if want != nil {
		var s []string
		for _, a := range got {
			s = append(s, a.String())
		}
		slices.Sort(s)
		if err != nil || !slices.Equal(s, want) {
			t.Errorf("Lookup = %v, %v, want %v", s, err, want)
		}
		return
	}
	if err == nil {
		t.Fatalf("Lookup = %v, want %v", got, kind)
	}
	e, ok := err.(*Error)
	if !ok || e.Kind != kind || !strings.Contains(err.Error(), says) || e.Timeout() != (kind == ErrTimeout) {
		t.Errorf("Lookup fails with %v, want a %q that says %q", err, kind, says)
	}
}

func TestServers(t *testing.T) {
	for _, tt := range behaviours {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, tt.h)
			timeout := 30 * time.Second
			if tt.kind == ErrTimeout {
				timeout = 600 * time.Millisecond
			}
			r := New(Options{Servers: overUDPFirst(s.addr), Timeout: timeout})
			defer r.Close()
			got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
			checkLookup(t, got, err, tt.want, tt.kind, tt.says)
		})
	}
}

// A server that is asked over TCP alone gets no datagram, and needs none to answer long.
func TestServersOverTCP(t *testing.T) {
	s := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeSuccess, many(100)...) })
	r := New(Options{Servers: []Server{{Network: TCP, Addrs: []netip.AddrPort{s.addr}}}})
	defer r.Close()
	got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
	if err != nil || len(got) != maxAddrs {
		t.Errorf("Lookup = %v, %v; want %d addresses", got, err, maxAddrs)
	}
	if got, want := strings.Join(s.asked(), ", "), "tcp A a.example., tcp AAAA a.example."; got != want {
		t.Errorf("the server was asked %q, want %q", got, want)
	}
}

// overUDPFirst makes servers that are asked over UDP, and over TCP when it must be.
func overUDPFirst(addrs ...netip.AddrPort) []Server {
	list := make([]Server, len(addrs))
	for i, a := range addrs {
		list[i].Addrs = []netip.AddrPort{a}
	}
	return list
}

func TestServersAreTriedInTurn(t *testing.T) {
	good := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1") })
	bad := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeServerFailure) })
	l, pc := listenBoth(t)
	gone := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	pc.Close()

	r := New(Options{Servers: overUDPFirst(gone, bad.addr, good.addr)})
	defer r.Close()
	for _, host := range []string{"a.example", "b.example"} {
		got, err := r.Lookup(t.Context(), netip.Addr{}, host)
		checkLookup(t, got, err, []string{"192.0.2.1"}, nil, "")
	}
	// The second name went to the good one at once.
	for _, q := range bad.asked() {
		if strings.HasSuffix(q, " b.example.") {
			t.Errorf("the bad server was asked %q after the good one had answered", q)
		}
	}
	if got := len(good.asked()); got != 4 {
		t.Errorf("the good server got %d queries, want 4", got)
	}
}

func TestALostDatagramIsSentAgain(t *testing.T) {
	var mu sync.Mutex
	seen := map[uint16]bool{}
	s := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		first := !seen[q.Question[0].Qtype]
		seen[q.Question[0].Qtype] = true
		mu.Unlock()
		if !first {
			reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
		}
	})
	r := New(Options{Servers: overUDPFirst(s.addr), Timeout: 2 * time.Second})
	defer r.Close()
	got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
	checkLookup(t, got, err, []string{"192.0.2.1"}, nil, "")
}

func TestCloseInterruptsAQuery(t *testing.T) {
	asked := make(chan struct{}, 10)
	s := startServer(t, func(dns.ResponseWriter, *dns.Msg) { asked <- struct{}{} })
	r := New(Options{Servers: overUDPFirst(s.addr), Timeout: time.Hour})
	done := make(chan error)
	go func() {
		_, err := r.Lookup(context.Background(), netip.Addr{}, "a.example")
		done <- err
	}()
	<-asked
	r.Close()
	checkLookup(t, nil, <-done, nil, ErrClosed, "closed")
}

func TestNamesThatNoServerIsAsked(t *testing.T) {
	s := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.66") })
	sys := newSystem(Any)
	sys.dns.Dial = s.dial
	for name, r := range map[string]*Resolver{
		"servers": New(Options{Servers: overUDPFirst(s.addr)}),
		"system":  withSource(t, Options{}, sys.lookup),
	} {
		defer r.Close()
		t.Run(name, func(t *testing.T) {
			got, err := r.Lookup(t.Context(), netip.Addr{}, "xyz.localhost")
			checkLookup(t, got, err, []string{"127.0.0.1", "::1"}, nil, "")
			got, err = r.Lookup(t.Context(), netip.Addr{}, "localhost") // perhaps from the hosts file
			if err != nil || slices.ContainsFunc(got, func(a netip.Addr) bool { return !a.IsLoopback() }) {
				t.Errorf("Lookup(localhost) = %v, %v, want loopback addresses", got, err)
			}
			got, err = r.Lookup(t.Context(), netip.Addr{}, "abc.onion")
			checkLookup(t, got, err, nil, ErrNotFound, "onion")
			_, err = r.Lookup(t.Context(), netip.Addr{}, "a..b")
			checkLookup(t, nil, err, nil, ErrName, "empty label")
		})
	}
	if got := s.asked(); len(got) != 0 {
		t.Errorf("the server was asked %q, want nothing", got)
	}
}

// dial connects the system's resolver to the test's server in place of its own.
func (s *nameServer) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return dialImpatient(ctx, network, s.addr.String())
}

func TestSystem(t *testing.T) {
	for _, tt := range behaviours {
		switch tt.name {
		case "alias", "both families", "IPv4 only", "NXDOMAIN", "nothing", "IPv6 hangs", "SERVFAIL", "too large for UDP", "hundreds of addresses":
		default:
			continue // how Go's resolver takes liars is its own affair
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, tt.h)
			sys := newSystem(Any)
			sys.dns.Dial = s.dial
			r := withSource(t, Options{}, sys.lookup)
			start := time.Now()
			got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
			if took := time.Since(start); took >= tryTimeout {
				t.Errorf("Lookup took %v: it waited for a query that was lost", took)
			}
			if tt.want != nil && len(got) == maxAddrs { // which ones is up to its sorting
				return
			}
			checkLookup(t, got, err, tt.want, tt.kind, "")
		})
	}
}

func TestSystemTimesOut(t *testing.T) {
	s := startServer(t, func(dns.ResponseWriter, *dns.Msg) {})
	sys := newSystem(Any)
	sys.dns.Dial = s.dial
	r := withSource(t, Options{Timeout: 100 * time.Millisecond}, sys.lookup)
	_, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
	checkLookup(t, nil, err, nil, ErrTimeout, "")
}

func TestSystemAsksForTheNameAsItStands(t *testing.T) {
	s := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeNameError) })
	sys := newSystem(Any)
	sys.dns.Dial = s.dial
	r := withSource(t, Options{}, sys.lookup)
	for _, host := range []string{"intranet", "a.example"} {
		_, err := r.Lookup(t.Context(), netip.Addr{}, host)
		checkLookup(t, nil, err, nil, ErrNotFound, "")
	}
	want := []string{"udp A a.example.", "udp A intranet.", "udp AAAA a.example.", "udp AAAA intranet."}
	if got := s.asked(); !slices.Equal(got, want) {
		t.Errorf("the server was asked %q, want %q: no search domains", got, want)
	}
}

func TestImpatientDeadline(t *testing.T) {
	_, pc := listenBoth(t)
	defer pc.Close()
	c, err := dialImpatient(t.Context(), "udp4", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	c.SetDeadline(start.Add(20 * time.Millisecond)) // a nearer one is kept
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("Read of silence returned")
	}
	if took := time.Since(start); took >= tryTimeout {
		t.Errorf("Read took %v, want 20ms", took)
	}
}

// TestWhatTheServerSaid reaches the caller: the RCODE, and the INFO-CODE where there is one.
func TestWhatTheServerSaid(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rcode int
		ede   bool
		want  string
		info  int
	}{
		{"no such name", dns.RcodeNameError, false, "NXDOMAIN", -1},
		{"no address", dns.RcodeSuccess, false, "NOERROR", -1},
		{"failed", dns.RcodeServerFailure, false, "SERVFAIL", -1},
		{"blocked", dns.RcodeNameError, true, "NXDOMAIN", 15},
		{"refused, with a reason", dns.RcodeRefused, true, "REFUSED", 15},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) {
				m := message(q, tt.rcode)
				if tt.ede {
					m.SetEdns0(udpSize, false)
					m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked})
				}
				_ = w.WriteMsg(m)
			})
			r := New(Options{Servers: overUDPFirst(s.addr), Timeout: 30 * time.Second})
			defer r.Close()
			for range 2 { // the second comes from the cache
				_, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
				var said interface{ RCode() (string, int) }
				if !errors.As(err, &said) {
					t.Fatalf("Lookup fails with %v, which has no RCODE", err)
				}
				if rcode, info := said.RCode(); rcode != tt.want || info != tt.info {
					t.Errorf("RCODE %s, INFO-CODE %d; want %s, %d", rcode, info, tt.want, tt.info)
				}
			}
		})
	}
}
