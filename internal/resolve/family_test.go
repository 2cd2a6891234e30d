package resolve

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func TestFamily(t *testing.T) {
	for _, tt := range []struct {
		family     Family
		want       []string
		asked      string
		host, only []string // of Hosts "both", and of "six"
	}{
		{
			PreferIPv4,
			[]string{"192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"},
			"udp A, udp AAAA",
			[]string{"192.0.2.9", "2001:db8::9"},
			[]string{"2001:db8::6"},
		},
		{
			PreferIPv6,
			[]string{"2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"},
			"udp A, udp AAAA",
			[]string{"2001:db8::9", "192.0.2.9"},
			[]string{"2001:db8::6"},
		},
		{OnlyIPv4, []string{"192.0.2.1", "192.0.2.2"}, "udp A", []string{"192.0.2.9"}, nil},
		{OnlyIPv6, []string{"2001:db8::1", "2001:db8::2"}, "udp AAAA", []string{"2001:db8::9"}, []string{"2001:db8::6"}},
	} {
		s := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) {
			reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1", "% 60 A 192.0.2.2", "% 60 AAAA 2001:db8::1", "% 60 AAAA 2001:db8::2")
		})
		sys := newSystem(tt.family)
		sys.dns.Dial = s.dial
		for name, r := range map[string]*Resolver{
			"servers": New(Options{
				Servers: overUDPFirst(s.addr), Family: tt.family, Timeout: 30 * time.Second,
				Hosts: map[string][]netip.Addr{
					"both.example": addrs("192.0.2.9", "2001:db8::9"), "six.example": addrs("2001:db8::6"),
				},
			}),
			"system": withSource(t, Options{Family: tt.family}, sys.lookup),
		} {
			defer r.Close()
			before := len(s.asked())
			got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
			if want := addrs(tt.want...); err != nil || len(got) != len(want) || !sameFamilies(got, want) {
				t.Errorf("family %d of the %s: Lookup = %v, %v, want %v", tt.family, name, got, err, want)
			}
			asked := strings.ReplaceAll(strings.Join(s.asked()[before:], ", "), " a.example.", "")
			if before == 0 && asked != tt.asked {
				t.Errorf("family %d of the %s asks for %s, want %s", tt.family, name, asked, tt.asked)
			}
			if name == "system" {
				continue
			}
			got, err = r.Lookup(t.Context(), netip.Addr{}, "both.example")
			if err != nil || !slices.Equal(got, addrs(tt.host...)) {
				t.Errorf("family %d of a host: Lookup = %v, %v, want %v", tt.family, got, err, tt.host)
			}
			got, err = r.Lookup(t.Context(), netip.Addr{}, "six.example")
			if !slices.Equal(got, addrs(tt.only...)) || (err == nil) != (tt.only != nil) || err != nil && !errors.Is(err, ErrNotFound) {
				t.Errorf("family %d of a host with IPv6 only: Lookup = %v, %v, want %v", tt.family, got, err, tt.only)
			}
		}
	}
}

// sameFamilies compares the families in two lists; within one the system may sort.
func sameFamilies(a, b []netip.Addr) bool {
	return slices.EqualFunc(a, b, func(a, b netip.Addr) bool { return a.Is4() == b.Is4() })
}

// A mapped address is IPv4, whatever record it came in.
func TestArrange(t *testing.T) {
	in := addrs("2001:db8::1", "::ffff:192.0.2.1", "2001:db8::2", "192.0.2.2")
	for f, want := range map[Family][]netip.Addr{
		Any:        in,
		PreferIPv4: addrs("::ffff:192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"),
		PreferIPv6: addrs("2001:db8::1", "2001:db8::2", "::ffff:192.0.2.1", "192.0.2.2"),
		OnlyIPv4:   addrs("::ffff:192.0.2.1", "192.0.2.2"),
		OnlyIPv6:   addrs("2001:db8::1", "2001:db8::2"),
	} {
		if got := f.arrange(in); !slices.Equal(got, want) {
			t.Errorf("arrange by %d = %v, want %v", f, got, want)
		}
	}
}

func TestHosts(t *testing.T) {
	s := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.66") })
	r := New(Options{Servers: overUDPFirst(s.addr), Hosts: map[string][]netip.Addr{
		"Intranet.example.": addrs("::ffff:10.0.0.5", "10.0.0.5", "10.0.0.6"),
		"localhost":         addrs("10.0.0.7"),
		"a.onion":           addrs("10.0.0.8"),
		"none.example":      nil,
		"not a name":        addrs("10.0.0.9"),
	}})
	defer r.Close()
	for host, want := range map[string][]string{
		"intranet.example": {"10.0.0.5", "10.0.0.6"}, "INTRANET.example.": {"10.0.0.5", "10.0.0.6"},
		"localhost": {"10.0.0.7"}, "a.onion": {"10.0.0.8"}, "none.example": nil,
	} {
		got, err := r.Lookup(t.Context(), netip.Addr{}, host)
		checkLookup(t, got, err, want, ErrNotFound, "configuration")
	}
	if got := s.asked(); len(got) != 0 {
		t.Errorf("the server was asked %q, want nothing", got)
	}
	got, err := r.Lookup(t.Context(), netip.Addr{}, "b.intranet.example") // not below a host
	checkLookup(t, got, err, []string{"192.0.2.66"}, nil, "")
}

type handlers = []func(dns.ResponseWriter, *dns.Msg)

func TestParallel(t *testing.T) {
	good := func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1") }
	rcode := func(rcode int) func(dns.ResponseWriter, *dns.Msg) {
		return func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, rcode) }
	}
	silent := func(dns.ResponseWriter, *dns.Msg) {}
	// bad answers both of its rounds before late answers.
	pair := func(code int) handlers {
		var bad sync.Map // of *sync.WaitGroup, by type
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			wg := new(sync.WaitGroup)
			wg.Add(rounds)
			bad.Store(qtype, wg)
		}
		of := func(q *dns.Msg) *sync.WaitGroup {
			wg, _ := bad.Load(q.Question[0].Qtype)
			return wg.(*sync.WaitGroup)
		}
		return handlers{
			func(w dns.ResponseWriter, q *dns.Msg) {
				reply(w, q, code)
				of(q).Done()
			},
			func(w dns.ResponseWriter, q *dns.Msg) {
				of(q).Wait()
				good(w, q)
			},
		}
	}
	for _, tt := range []struct {
		name    string
		servers handlers
		want    []string
		kind    error
		says    string
	}{
		{"one is silent", handlers{silent, good}, []string{"192.0.2.1"}, nil, ""},
		{"SERVFAIL comes first", pair(dns.RcodeServerFailure), []string{"192.0.2.1"}, nil, ""},
		{"REFUSED comes first", pair(dns.RcodeRefused), []string{"192.0.2.1"}, nil, ""},
		{"NXDOMAIN counts", handlers{silent, rcode(dns.RcodeNameError)}, nil, ErrNotFound, "NXDOMAIN"},
		{"all fail", handlers{rcode(dns.RcodeServerFailure), rcode(dns.RcodeServerFailure)}, nil, ErrServer, "SERVFAIL"},
		{"one fails, one is silent", handlers{rcode(dns.RcodeServerFailure), silent}, nil, ErrServer, "SERVFAIL"},
		{"all are silent", handlers{silent, silent}, nil, ErrTimeout, "silent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var list []Server
			for _, h := range tt.servers {
				list = append(list, overUDPFirst(startServer(t, h).addr)...)
			}
			timeout := 30 * time.Second
			if tt.kind == ErrTimeout || tt.kind == ErrServer {
				timeout = 600 * time.Millisecond
			}
			r := New(Options{Servers: list, Mode: Parallel, Timeout: timeout})
			defer r.Close()
			start := time.Now()
			got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
			checkLookup(t, got, err, tt.want, tt.kind, tt.says)
			if took := time.Since(start); tt.kind != ErrTimeout && took > tryTimeout {
				t.Errorf("Lookup took %v: it waited for a silent server", took)
			}
		})
	}
}

// Of an answer that there is nothing, the SOA record says how long it is true.
func TestNegativeLife(t *testing.T) {
	const soa = "example. 300 IN SOA ns.example. host.example. 1 2 3 4 "
	for _, tt := range []struct {
		name    string
		records []string // of the authority section
		options Options
		want    time.Duration
	}{
		{"MINIMUM", []string{soa + "3"}, Options{}, 3 * time.Second},
		{"the TTL of the SOA", []string{strings.Replace(soa, "300", "2", 1) + "600"}, Options{}, 2 * time.Second},
		{"at most 5 s", []string{soa + "600"}, Options{}, 5 * time.Second},
		{"at most NegativeTTL", []string{soa + "600"}, Options{NegativeTTL: time.Minute}, time.Minute},
		{"at least the minimum", []string{soa + "0"}, Options{}, time.Second},
		{"not at all", []string{soa + "600"}, Options{NegativeTTL: -1}, 0},
		{"no SOA", nil, Options{NegativeTTL: time.Minute}, time.Second},
		{"no SOA, but others", []string{"example. 300 IN NS ns.example."}, Options{NegativeTTL: time.Minute}, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
			m := message(q, dns.RcodeNameError)
			for _, s := range tt.records {
				rr, err := dns.NewRR(s)
				if err != nil {
					t.Fatal(err)
				}
				m.Ns = append(m.Ns, rr)
			}
			synctest.Test(t, func(t *testing.T) {
				s := &script{}
				_, err := readAnswer(m, "a.example", dns.TypeA)
				s.set(0, answer{}, err)
				r := withSource(t, tt.options, s.lookup)
				steps := []step{{0, "", ErrNotFound, 0, 1}}
				if tt.want > 0 {
					steps = append(steps, step{tt.want - 1, "", ErrNotFound, 0, 1})
				}
				play(t, r, s, append(steps, step{tt.want, "", ErrNotFound, 0, 2}))
			})
		})
	}
}

// Of two families without addresses, the shorter life counts.
func TestMergeOfNothing(t *testing.T) {
	none := func(life time.Duration) half {
		return half{err: &Error{Kind: ErrNotFound, life: life, lives: true}}
	}
	for _, pair := range [][2]half{{none(time.Second), none(time.Minute)}, {none(time.Minute), none(time.Second)}} {
		_, err := merge(pair[0], pair[1])
		var e *Error
		if !errors.As(err, &e) || e.life != time.Second {
			t.Errorf("merge = %v, want one that lives 1s", err)
		}
	}
}

// An answer without life is for those who waited for it, if the configuration lets it.
func TestZeroTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{a: answer{addrs: oldAnswer.addrs}, takes: time.Second}
		r := withSource(t, Options{MinimumTTL: -1}, s.lookup)
		play(t, r, s, []step{{0, "192.0.2.1", nil, time.Second, 1}, {time.Second, "192.0.2.1", nil, time.Second, 2}})
		if got := r.Stats().Cached; got != 0 {
			t.Errorf("%d names are kept, want none", got)
		}
	})
}

// Encrypted queries have a length that does not tell the name.
func TestPad(t *testing.T) {
	for n := range 60 {
		q := new(dns.Msg).SetQuestion(strings.Repeat("a", n+1)+".example.", dns.TypeA)
		q.SetEdns0(udpSize, false)
		pad(q)
		wire, err := q.Pack()
		if err != nil || len(wire)%padding != 0 {
			t.Errorf("a query for a name of %d is %d bytes long, %v, want a multiple of %d", n, len(wire), err, padding)
		}
	}
}

func TestServerString(t *testing.T) {
	for want, s := range map[string]Server{
		"192.0.2.53:53":         {Addrs: addrPorts("192.0.2.53:53")},
		"tcp://[2001:db8::1]:5": {Network: TCP, Addrs: addrPorts("[2001:db8::1]:5")},
		"tls://dns.example:853": {Network: TLS, Name: "dns.example", Addrs: addrPorts("192.0.2.53:853")},
		"https://dns.example":   {Network: HTTPS, Name: "dns.example"},
		"tls://":                {Network: TLS},
	} {
		if got := s.String(); got != want {
			t.Errorf("String of %#v = %s, want %s", s, got, want)
		}
	}
}

// A server without an address is a failure, not a panic.
func TestServerWithoutAddress(t *testing.T) {
	for _, network := range []string{UDP, TCP, TLS, HTTPS} {
		r := New(Options{Servers: []Server{{Network: network, Name: "dns.example"}}})
		defer r.Close()
		_, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
		checkLookup(t, nil, err, nil, ErrServer, "has no address")
	}
}

// A server by an unknown network is not asked by a known one.
func TestUnknownNetwork(t *testing.T) {
	s := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1") })
	r := New(Options{Servers: []Server{{Network: "quic", Addrs: []netip.AddrPort{s.addr}}}})
	defer r.Close()
	_, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
	checkLookup(t, nil, err, nil, ErrServer, `no network "quic"`)
	if got := s.asked(); len(got) != 0 {
		t.Errorf("the server was asked %q, want nothing", got)
	}
}
