package resolve

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

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
	serveListener(t, l, handler)
	activate(t, &dns.Server{PacketConn: pc, Handler: handler})
	return s
}

// serveListener answers queries on l until the test ends.
func serveListener(t *testing.T, l net.Listener, h dns.Handler) {
	t.Helper()
	activate(t, &dns.Server{Listener: l, Handler: h})
}

func activate(t *testing.T, srv *dns.Server) {
	t.Helper()
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
