package resolve

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// streamServer serves connections by hand.
type streamServer struct {
	addr  netip.AddrPort
	conns atomic.Int32 // accepted
	reads atomic.Int32 // queries
}

// startStreams serves each connection, with TLS if config is not nil, by serve until the
// test ends. n counts connections from 1.
func startStreams(t *testing.T, config *tls.Config, serve func(s *streamServer, n int, c net.Conn)) *streamServer {
	t.Helper()
	l, addr := listen(t)
	s := &streamServer{addr: addr}
	var running sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if config != nil {
				c = tls.Server(c, config)
			}
			n := int(s.conns.Add(1))
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			running.Go(func() {
				defer c.Close()
				serve(s, n, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.SetDeadline(time.Unix(1, 0))
		}
		mu.Unlock()
		running.Wait()
	})
	return s
}

// query reads the next query; nil at the end of the connection.
func (s *streamServer) query(c net.Conn) *dns.Msg {
	wire, err := readFrame(c)
	if err != nil {
		return nil
	}
	q := new(dns.Msg)
	if q.Unpack(wire) != nil {
		return nil
	}
	s.reads.Add(1)
	return q
}

// good answers a query with an address of each family.
func good(c net.Conn, q *dns.Msg) {
	wire, err := message(q, dns.RcodeSuccess, "% 60 A 192.0.2.1", "% 60 AAAA 2001:db8::1").Pack()
	if err != nil {
		panic(err)
	}
	c.Write(frame(wire))
}

// goodToAll answers every query at once.
func goodToAll(s *streamServer, _ int, c net.Conn) {
	for q := s.query(c); q != nil; q = s.query(c) {
		good(c, q)
	}
}

var goodAddrs = []string{"192.0.2.1", "2001:db8::1"}

// overTLS makes the Options to ask one server over TLS.
func overTLS(name string, roots *x509.CertPool, addrs ...netip.AddrPort) Options {
	return Options{Servers: []Server{{Network: TLS, Addrs: addrs, Name: name}}, RootCAs: roots, Timeout: 30 * time.Second}
}

// The same liars as over UDP, on one connection for all queries.
func TestServersOverStreams(t *testing.T) {
	cert, roots := authority(t, time.Now().Add(time.Hour), "dns.example")
	for _, network := range []string{TCP, TLS} {
		for _, tt := range behaviours {
			if tt.name == "another question over TCP" { // it is ignored
				tt.kind, tt.says = ErrTimeout, "silent"
			}
			t.Run(network+", "+tt.name, func(t *testing.T) {
				t.Parallel()
				l, addr := listen(t)
				if network == TLS {
					l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
				}
				serveListener(t, l, dns.HandlerFunc(tt.h))
				o := Options{
					Servers: []Server{{Network: network, Addrs: []netip.AddrPort{addr}, Name: "dns.example"}},
					RootCAs: roots, Timeout: 30 * time.Second,
				}
				if tt.kind == ErrTimeout {
					o.Timeout = 600 * time.Millisecond
				}
				r := New(o)
				defer r.Close()
				got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
				checkLookup(t, got, err, tt.want, tt.kind, tt.says)
			})
		}
	}
}

// A server is believed only with a certificate of its name, or of its address.
func TestCertificates(t *testing.T) {
	now := time.Now()
	cert, roots := authority(t, now.Add(time.Hour), "dns.example", "127.0.0.1")
	_, others := authority(t, now.Add(time.Hour), "dns.example", "127.0.0.1")
	old, oldRoots := authority(t, now.Add(-time.Hour), "dns.example")
	for _, tt := range []struct {
		name  string
		host  string
		cert  tls.Certificate
		roots *x509.CertPool
		says  string // "": it is believed
	}{
		{"its name", "dns.example", cert, roots, ""},
		{"its name with a dot", "dns.example.", cert, roots, ""},
		{"its address", "", cert, roots, ""},
		{"another name", "dns.example.net", cert, roots, "not dns.example.net"},
		{"no certificate of its address", "", old, oldRoots, "certificate"},
		{"of an unknown authority", "dns.example", cert, others, "certificate signed by unknown authority"},
		{"of nobody the system knows", "dns.example", cert, nil, "certificate signed by unknown authority"},
		{"expired", "dns.example", old, oldRoots, "expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startStreams(t, &tls.Config{Certificates: []tls.Certificate{tt.cert}}, goodToAll)
			r := New(overTLS(tt.host, tt.roots, s.addr))
			defer r.Close()
			got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
			if tt.says == "" {
				checkLookup(t, got, err, goodAddrs, nil, "")
				return
			}
			checkLookup(t, got, err, nil, ErrServer, tt.says)
			if n := s.reads.Load(); n != 0 {
				t.Errorf("the server read %d queries, want none: the names are nobody else's affair", n)
			}
		})
	}
}

// A TCP server that is silent, or speaks no TLS, has no look-up hang.
func TestNoTLS(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(*streamServer, int, net.Conn)
		kind  error
	}{
		{"silence", func(_ *streamServer, _ int, c net.Conn) { readToEnd(c) }, ErrTimeout},
		{"plain DNS", func(_ *streamServer, _ int, c net.Conn) {
			c.Write([]byte("\x00\x0c\x00\x00\x81\x80\x00\x00\x00\x00\x00\x00\x00\x00"))
			readToEnd(c)
		}, ErrServer},
		{"closed at once", func(*streamServer, int, net.Conn) {}, ErrServer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := overTLS("dns.example", nil, startStreams(t, nil, tt.serve).addr)
			o.Timeout = 600 * time.Millisecond
			r := New(o)
			defer r.Close()
			_, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
			checkLookup(t, nil, err, nil, tt.kind, "dns.example:")
		})
	}
}

func readToEnd(c net.Conn) {
	for buf := make([]byte, 512); ; {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// All queries share one connection, and a late answer holds up no other.
func TestQueriesShareAConnection(t *testing.T) {
	cert, roots := authority(t, time.Now().Add(time.Hour), "dns.example")
	const names = 50
	s := startStreams(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(s *streamServer, _ int, c net.Conn) {
		var held []*dns.Msg // until all have come, then the last is answered first
		for q := s.query(c); q != nil; q = s.query(c) {
			if held = append(held, q); len(held) < 2*names {
				continue
			}
			for _, q := range slices.Backward(held) {
				good(c, q)
			}
		}
	})
	r := New(overTLS("dns.example", roots, s.addr))
	defer r.Close()
	var wg sync.WaitGroup
	for i := range names {
		wg.Go(func() {
			asker := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			got, err := r.Lookup(t.Context(), asker, fmt.Sprintf("n%d.example", i))
			checkLookup(t, got, err, goodAddrs, nil, "")
		})
	}
	wg.Wait()
	if got := s.conns.Load(); got != 1 {
		t.Errorf("%d look-ups took %d connections, want 1", names, got)
	}
}

// A server that closes after each answer costs connections, but no look-up.
func TestServerClosesAfterEachAnswer(t *testing.T) {
	cert, roots := authority(t, time.Now().Add(time.Hour), "dns.example")
	for name, end := range map[string]func(net.Conn){
		"properly": func(c net.Conn) {
			c.(*tls.Conn).CloseWrite()
			readToEnd(c)
		},
		"with queries unread": func(net.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			s := startStreams(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(s *streamServer, _ int, c net.Conn) {
				if q := s.query(c); q != nil {
					good(c, q)
					end(c)
				}
			})
			o := overTLS("dns.example", roots, s.addr)
			o.Family = OnlyIPv4 // one query for each name
			r := New(o)
			defer r.Close()
			const names = 40
			var wg sync.WaitGroup
			for i := range names {
				wg.Go(func() {
					asker := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
					got, err := r.Lookup(t.Context(), asker, fmt.Sprintf("n%d.example", i))
					checkLookup(t, got, err, goodAddrs[:1], nil, "")
				})
			}
			wg.Wait()
			if got := s.conns.Load(); got > names+2 {
				t.Errorf("%d names took %d connections, want about as many", names, got)
			}
		})
	}
}

// A connection that was kept and has died meanwhile costs no look-up.
func TestKeptConnectionDied(t *testing.T) {
	cert, roots := authority(t, time.Now().Add(time.Hour), "dns.example")
	for _, tt := range []struct {
		name string
		die  func(c net.Conn)
	}{
		{"closed", func(c net.Conn) { c.Close() }},
		{"reset", func(c net.Conn) {
			c.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
			c.(*tls.Conn).NetConn().Close()
		}},
		{"half a message", func(c net.Conn) { c.Write([]byte{0, 40, 1, 2, 3}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startStreams(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(s *streamServer, n int, c net.Conn) {
				for i := 1; ; i++ {
					q := s.query(c)
					if q == nil {
						return
					}
					if n == 1 && i == 3 { // of the second name
						tt.die(c)
						return
					}
					good(c, q)
				}
			})
			r := New(overTLS("dns.example", roots, s.addr))
			defer r.Close()
			for _, host := range []string{"a.example", "b.example", "c.example"} {
				got, err := r.Lookup(t.Context(), netip.Addr{}, host)
				checkLookup(t, got, err, goodAddrs, nil, "")
			}
			if got := s.conns.Load(); got != 2 {
				t.Errorf("%d connections, want 2", got)
			}
		})
	}
}

// The next address is tried when one is dead, and stays the first.
func TestAddressesAreTriedInTurn(t *testing.T) {
	cert, roots := authority(t, time.Now().Add(time.Hour), "dns.example")
	_, gone := listen(t)
	silent := startStreams(t, nil, func(_ *streamServer, _ int, c net.Conn) { readToEnd(c) })
	s := startStreams(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(s *streamServer, _ int, c net.Conn) {
		if q := s.query(c); q != nil { // once, so that the next name needs a connection
			good(c, q)
		}
	})
	o := overTLS("dns.example", roots, netip.AddrPortFrom(gone.Addr(), 1), silent.addr, s.addr)
	o.Family, o.Timeout = OnlyIPv4, 3*time.Second
	r := New(o)
	defer r.Close()
	for _, host := range []string{"a.example", "b.example", "c.example"} {
		got, err := r.Lookup(t.Context(), netip.Addr{}, host)
		checkLookup(t, got, err, goodAddrs[:1], nil, "")
	}
	if got := silent.conns.Load(); got != 1 {
		t.Errorf("the silent address got %d connections, want 1", got)
	}
}
