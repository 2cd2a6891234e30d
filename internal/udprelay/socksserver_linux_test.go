package udprelay

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/pool"
	"polyport/internal/socks"
	"polyport/internal/target"
	"polyport/internal/upstream"
)

// socksServer is a SOCKS5 server that serves UDP ASSOCIATE alone (RFC 1928), on 127.0.0.20.
type socksServer struct {
	t  testing.TB
	ln net.Listener
	// gate, if there is one, holds up each reply until something comes or it is closed.
	gate chan struct{}
	// reply is REP; anything but 0 is a refusal.
	reply byte
	// answer sends what is to be sent for a datagram; nil relays it.
	answer func(a *served, h socks.Header, payload []byte)

	running  sync.WaitGroup
	mu       sync.Mutex
	closing  bool
	controls []net.Conn
	opened   int      // associations
	asked    []string // the targets of datagrams, as the header has them
}

// served is one association of a socksServer.
type served struct {
	udp    *net.UDPConn // for the client
	client netip.AddrPort
}

// says sends bytes to the client as they are.
func (a *served) says(b []byte) { _, _ = a.udp.WriteToUDPAddrPort(b, a.client) } // who has gone need not hear it

func newSocksServer(t testing.TB) *socksServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.20:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &socksServer{t: t, ln: ln}
	t.Cleanup(s.close)
	return s
}

// serve begins to serve.
func (s *socksServer) serve() *socksServer {
	s.running.Go(func() {
		for {
			c, err := s.ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.controls = append(s.controls, c)
			if s.closing {
				_ = c.Close()
			}
			s.mu.Unlock()
			s.running.Go(func() { s.control(c) })
		}
	})
	return s
}

// close ends it. It may be called more than once.
func (s *socksServer) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	_ = s.ln.Close()
	s.hangUp()
	s.running.Wait()
}

// hangUp ends all associations.
func (s *socksServer) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.controls {
		_ = c.Close()
	}
}

// control serves a control connection until it ends.
func (s *socksServer) control(c net.Conn) {
	defer c.Close()
	b := make([]byte, 13) // greeting and request; the client waits for the answer to the first
	if _, err := io.ReadFull(c, b[:3]); err != nil {
		return
	}
	_, _ = c.Write([]byte{5, 0})
	if _, err := io.ReadFull(c, b[3:]); err != nil || b[4] != 3 {
		return
	}
	if s.gate != nil {
		<-s.gate
	}
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 20)})
	if err != nil {
		return
	}
	defer udp.Close()
	at := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	s.mu.Lock()
	s.opened++
	s.mu.Unlock()
	_, _ = c.Write(binary.BigEndian.AppendUint16([]byte{5, s.reply, 0, 1, 0, 0, 0, 0}, at.Port()))
	if s.reply != 0 {
		return
	}
	s.running.Go(func() { s.relay(udp) })
	_, _ = io.Copy(io.Discard, c)
}

// relay serves the datagrams of an association until its socket is closed.
func (s *socksServer) relay(udp *net.UDPConn) {
	a := &served{udp: udp}
	var out *net.UDPConn
	defer func() {
		if out != nil {
			_ = out.Close()
		}
	}()
	b := make([]byte, 1<<16)
	for {
		n, from, err := udp.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		h, length, err := socks.ParseHeader(b[:n])
		if err != nil {
			s.t.Errorf("the relay gets % x: %v", b[:min(n, 32)], err)
			continue
		}
		a.client = from
		s.mu.Lock()
		s.asked = append(s.asked, nameOf(h))
		s.mu.Unlock()
		if s.answer != nil {
			s.answer(a, h, b[length:n])
			continue
		}
		if out == nil {
			if out, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 20)}); err != nil {
				return
			}
			s.running.Go(func() { answers(out, a.udp, from) })
		}
		_, _ = out.WriteToUDPAddrPort(b[length:n], netip.AddrPortFrom(h.IP, h.Port)) // as lost as on any network
	}
}

// answers passes what targets send on to the client.
func answers(out, udp *net.UDPConn, client netip.AddrPort) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := out.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		_, _ = udp.WriteToUDPAddrPort(append(socks.AppendHeader(nil, from), b[:n]...), client)
	}
}

// nameOf returns the target of a header.
func nameOf(h socks.Header) string {
	if h.IP.IsValid() {
		return netip.AddrPortFrom(h.IP, h.Port).String()
	}
	return string(h.Name)
}

// targets returns what has been sent to.
func (s *socksServer) targets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

func (s *socksServer) associations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

// url is that of an [upstream.NAME] with the server.
func (s *socksServer) url() string { return "socks5://" + s.ln.Addr().String() }

// upstreamOf makes one.
func upstreamOf(t testing.TB, name string, byName bool, urls ...string) *upstream.Upstream {
	t.Helper()
	o := upstream.Options{Pool: pool.Options{Name: name, Servers: make([]pool.Server, len(urls))}, ResolvesNames: byName}
	for _, url := range urls {
		p, err := upstream.NewProxy(upstream.ProxyOptions{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		o.Proxies = append(o.Proxies, p)
	}
	for i := range o.Pool.Servers {
		o.Pool.Servers[i].Weight = 1
	}
	u, err := upstream.New(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// sentThrough is a session whose datagrams to 127.0.0.0/8, and to names, leave through an upstream, but those to 127.0.0.8.
func sentThrough(t testing.TB, n names, u *upstream.Upstream) *asker {
	t.Helper()
	s := newAsker(t, n)
	policy := policyOf(t, acl.Rule{Name: "near", Action: acl.Allow, Target: []string{"127.0.0.8/32"}, Upstream: egress.Direct},
		acl.Rule{Name: "far", Action: acl.Allow, Target: []string{"127.0.0.0/8", "*.test"}, Upstream: u.Name()})
	s.dialer = egress.New(egress.Options{Policy: policy, Resolver: n, Ways: egress.Ways{Upstreams: map[string]*upstream.Upstream{u.Name(): u}}})
	return s
}

// byName is a script that answers for names alone.
func (s *asker) byName(ctx context.Context, t target.Target) (*egress.Permit, error) {
	if _, literal := t.Addr(); literal {
		return nil, nil
	}
	r := acl.Request{Client: netip.MustParseAddr("127.0.0.1"), Target: t}
	return s.dialer.AuthorizePacket(ctx, r)
}

// destinationOf makes one of an address of this machine.
func destinationOf(t testing.TB, a netip.AddrPort) egress.Destination {
	t.Helper()
	p, err := newAsker(t, nil).dialer.AuthorizePacket(context.Background(), acl.Request{Target: target.FromAddrPort(a)})
	if err != nil {
		t.Fatal(err)
	}
	d, _ := p.Destination()
	return d
}
