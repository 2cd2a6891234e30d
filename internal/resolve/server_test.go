package resolve

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// nameServer is a real name server on a loopback address, over UDP and TCP.
type nameServer struct {
	addr netip.AddrPort

	mu      sync.Mutex
	queries []string // "udp A a.example."
}

// startServer serves h on 127.0.0.1 until the test ends.
func startServer(t *testing.T, h func(w dns.ResponseWriter, q *dns.Msg)) *nameServer {
	t.Helper()
	s := &nameServer{}
	l, pc := listenBoth(t)
	s.addr = l.Addr().(*net.TCPAddr).AddrPort()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		s.mu.Lock()
		s.queries = append(s.queries, w.LocalAddr().Network()+" "+dns.TypeToString[q.Question[0].Qtype]+" "+q.Question[0].Name)
		s.mu.Unlock()
		h(w, q)
	})
	for _, srv := range []*dns.Server{{Listener: l, Handler: handler}, {PacketConn: pc, Handler: handler}} {
		up, down := make(chan struct{}), make(chan struct{})
		srv.NotifyStartedFunc = func() { close(up) }
		go func() {
			defer close(down)
			srv.ActivateAndServe()
		}()
		<-up
		t.Cleanup(func() {
			srv.Shutdown()
			<-down
		})
	}
	return s
}

// listenBoth listens on one port number for TCP and UDP.
func listenBoth(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp4", l.Addr().String())
		if err == nil {
			return l, pc
		}
		l.Close()
	}
	t.Fatal("no port is free for both TCP and UDP")
	return nil, nil
}

// asked returns the queries so far, sorted.
func (s *nameServer) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.queries))
}

// reply answers q with records in zone file form, "%" standing for the name asked for.
func reply(w dns.ResponseWriter, q *dns.Msg, rcode int, records ...string) {
	w.WriteMsg(message(q, rcode, records...))
}

// message makes a response that holds those of the records that fit the type
// asked for; aliases always do.
func message(q *dns.Msg, rcode int, records ...string) *dns.Msg {
	m := new(dns.Msg).SetRcode(q, rcode)
	m.Compress, m.RecursionAvailable = true, true
	for _, s := range records {
		rr, err := dns.NewRR(strings.ReplaceAll(s, "%", q.Question[0].Name))
		if err != nil {
			panic(err)
		}
		if t := rr.Header().Rrtype; t == q.Question[0].Qtype || t == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

// many makes n address records of each family.
func many(n int) (records []string) {
	for i := range n {
		records = append(records, "% 60 A 192.0.2."+strconv.Itoa(i), "% 60 AAAA 2001:db8::"+strconv.Itoa(i))
	}
	return records
}

func overTCPOnly(w dns.ResponseWriter) bool { return w.LocalAddr().Network() == "tcp" }

// behaviours are servers good and bad, with what a client gets from them.
var behaviours = []struct {
	name string
	h    func(w dns.ResponseWriter, q *dns.Msg)
	want []string // sorted addresses; nil: an error
	kind error
	says string // part of the error
}{
	{name: "both families", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1", "% 60 AAAA 2001:db8::1")
	}, want: []string{"192.0.2.1", "2001:db8::1"}},
	{name: "IPv4 only", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "IPv6 fails", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Qtype == dns.TypeAAAA {
			reply(w, q, dns.RcodeServerFailure)
			return
		}
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "IPv6 hangs", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Qtype != dns.TypeAAAA {
			reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
		}
	}, want: []string{"192.0.2.1"}},
	{name: "alias", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 CNAME B.example.", "b.example. 60 CNAME c.example.", "C.example. 60 A 192.0.2.3")
	}, want: []string{"192.0.2.3"}},
	{name: "alias without addresses", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 CNAME b.example.")
	}, kind: ErrNotFound},
	{name: "aliases in a circle", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 CNAME b.example.", "b.example. 60 CNAME %")
	}, kind: ErrServer, says: "circle"},
	{name: "a lie: addresses of another name", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "other.example. 60 A 192.0.2.66")
	}, kind: ErrNotFound},
	{name: "a lie beside the truth", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "other.example. 60 A 192.0.2.66", "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "IPv4 in IPv6", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess, "% 60 AAAA ::ffff:10.0.0.1")
	}, want: []string{"10.0.0.1"}},
	{name: "nothing", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeSuccess)
	}, kind: ErrNotFound},
	{name: "NXDOMAIN", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeNameError)
	}, kind: ErrNotFound, says: "NXDOMAIN"},
	{name: "SERVFAIL", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeServerFailure)
	}, kind: ErrServer, says: "SERVFAIL"},
	{name: "REFUSED", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeRefused)
	}, kind: ErrServer, says: "REFUSED"},
	{name: "silence", h: func(dns.ResponseWriter, *dns.Msg) {}, kind: ErrTimeout, says: "silent"},
	{name: "too large for UDP", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if !overTCPOnly(w) {
			m := message(q, dns.RcodeSuccess)
			m.Truncated = true
			w.WriteMsg(m)
			return
		}
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "truncated without a question", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if !overTCPOnly(w) {
			m := message(q, dns.RcodeSuccess)
			m.Truncated, m.Question = true, nil
			w.WriteMsg(m)
			return
		}
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "truncated, and TCP is closed", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if overTCPOnly(w) {
			w.Close()
			return
		}
		m := message(q, dns.RcodeSuccess)
		m.Truncated = true
		w.WriteMsg(m)
	}, kind: ErrServer, says: "read the length"},
	{name: "hundreds of addresses", h: func(w dns.ResponseWriter, q *dns.Msg) {
		m := message(q, dns.RcodeSuccess, many(250)...)
		if !overTCPOnly(w) {
			m.Answer, m.Truncated = nil, true
		}
		w.WriteMsg(m)
	}, want: []string{
		"192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7",
		"2001:db8::", "2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5", "2001:db8::6", "2001:db8::7",
	}},
	{name: "forged answers first", h: func(w dns.ResponseWriter, q *dns.Msg) {
		forged := message(q, dns.RcodeSuccess, "% 60 A 192.0.2.66", "% 60 AAAA 2001:db8::66")
		forged.Id++ // the ID was guessed wrongly
		w.WriteMsg(forged)
		forged = message(q, dns.RcodeSuccess, "% 60 A 192.0.2.66", "% 60 AAAA 2001:db8::66")
		forged.Question[0].Name = "other.example." // the question was
		w.WriteMsg(forged)
		query := q.Copy() // not even an answer
		w.WriteMsg(query)
		w.Write([]byte{1})
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "forged answers only", h: func(w dns.ResponseWriter, q *dns.Msg) {
		forged := message(q, dns.RcodeSuccess, "% 60 A 192.0.2.66")
		forged.Id++
		w.WriteMsg(forged)
	}, kind: ErrTimeout, says: "silent"},
	{name: "another question over TCP", h: func(w dns.ResponseWriter, q *dns.Msg) {
		m := message(q, dns.RcodeSuccess)
		m.Truncated = true
		if overTCPOnly(w) {
			m.Question[0].Name = "other.example."
		}
		w.WriteMsg(m)
	}, kind: ErrServer, says: "another question"},
	{name: "garbage", h: func(w dns.ResponseWriter, q *dns.Msg) {
		m := message(q, dns.RcodeSuccess, "% 60 A 192.0.2.1", "% 60 AAAA 2001:db8::1")
		wire, err := m.Pack()
		if err != nil {
			panic(err)
		}
		binary.BigEndian.PutUint16(wire[6:], 9) // claims 9 records
		w.Write(wire[:len(wire)-5])
	}, kind: ErrServer, says: "unreadable"},
	{name: "a server that does not know EDNS", h: func(w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() != nil {
			m := new(dns.Msg).SetRcodeFormatError(q)
			m.Question = nil
			w.WriteMsg(m)
			return
		}
		reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
	}, want: []string{"192.0.2.1"}},
	{name: "FORMERR whatever is asked", h: func(w dns.ResponseWriter, q *dns.Msg) {
		reply(w, q, dns.RcodeFormatError)
	}, kind: ErrServer, says: "FORMERR"},
}

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
			r := New(Options{Servers: []netip.AddrPort{s.addr}, Timeout: 600 * time.Millisecond})
			defer r.Close()
			got, err := r.Lookup(t.Context(), "a.example")
			checkLookup(t, got, err, tt.want, tt.kind, tt.says)
		})
	}
}

func TestServersAreTriedInTurn(t *testing.T) {
	good := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.1") })
	bad := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeServerFailure) })
	l, pc := listenBoth(t)
	gone := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	pc.Close()

	r := New(Options{Servers: []netip.AddrPort{gone, bad.addr, good.addr}})
	defer r.Close()
	for _, host := range []string{"a.example", "b.example"} {
		got, err := r.Lookup(t.Context(), host)
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
	r := New(Options{Servers: []netip.AddrPort{s.addr}, Timeout: time.Second})
	defer r.Close()
	got, err := r.Lookup(t.Context(), "a.example")
	checkLookup(t, got, err, []string{"192.0.2.1"}, nil, "")
}

func TestCloseInterruptsAQuery(t *testing.T) {
	asked := make(chan struct{}, 10)
	s := startServer(t, func(dns.ResponseWriter, *dns.Msg) { asked <- struct{}{} })
	r := New(Options{Servers: []netip.AddrPort{s.addr}, Timeout: time.Hour})
	done := make(chan error)
	go func() {
		_, err := r.Lookup(context.Background(), "a.example")
		done <- err
	}()
	<-asked
	r.Close()
	checkLookup(t, nil, <-done, nil, ErrClosed, "closed")
}

func TestNamesThatNoServerIsAsked(t *testing.T) {
	s := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeSuccess, "% 60 A 192.0.2.66") })
	sys := newSystem()
	sys.dns.Dial = s.dial
	for name, r := range map[string]*Resolver{
		"servers": New(Options{Servers: []netip.AddrPort{s.addr}}),
		"system":  withSource(t, Options{}, sys.lookup),
	} {
		defer r.Close()
		t.Run(name, func(t *testing.T) {
			got, err := r.Lookup(t.Context(), "xyz.localhost")
			checkLookup(t, got, err, []string{"127.0.0.1", "::1"}, nil, "")
			got, err = r.Lookup(t.Context(), "localhost") // perhaps from the hosts file
			if err != nil || slices.ContainsFunc(got, func(a netip.Addr) bool { return !a.IsLoopback() }) {
				t.Errorf("Lookup(localhost) = %v, %v, want loopback addresses", got, err)
			}
			got, err = r.Lookup(t.Context(), "abc.onion")
			checkLookup(t, got, err, nil, ErrNotFound, "onion")
			_, err = r.Lookup(t.Context(), "a..b")
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
		case "alias", "both families", "IPv4 only", "NXDOMAIN", "nothing", "SERVFAIL", "too large for UDP", "hundreds of addresses":
		default:
			continue // how Go's resolver takes liars is its own affair
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, tt.h)
			sys := newSystem()
			sys.dns.Dial = s.dial
			r := withSource(t, Options{}, sys.lookup)
			got, err := r.Lookup(t.Context(), "a.example")
			if tt.want != nil && len(got) == maxAddrs { // which ones is up to its sorting
				return
			}
			checkLookup(t, got, err, tt.want, tt.kind, "")
		})
	}
}

func TestSystemTimesOut(t *testing.T) {
	s := startServer(t, func(dns.ResponseWriter, *dns.Msg) {})
	sys := newSystem()
	sys.dns.Dial = s.dial
	r := withSource(t, Options{Timeout: 100 * time.Millisecond}, sys.lookup)
	_, err := r.Lookup(t.Context(), "a.example")
	checkLookup(t, nil, err, nil, ErrTimeout, "")
}

func TestSystemAsksForTheNameAsItStands(t *testing.T) {
	s := startServer(t, func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, dns.RcodeNameError) })
	sys := newSystem()
	sys.dns.Dial = s.dial
	r := withSource(t, Options{}, sys.lookup)
	for _, host := range []string{"intranet", "a.example"} {
		_, err := r.Lookup(t.Context(), host)
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
