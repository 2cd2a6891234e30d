package integration

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// liar is a name server of the test's own, over UDP and TCP, that says what each name is told to say.
type liar struct {
	addr string

	mu    sync.Mutex
	asked []string // "udp A name.example."
}

// answerer answers one query, or does not.
type answerer func(w dns.ResponseWriter, q *dns.Msg)

// newLiar serves names, each ending in a dot; any other does not exist.
func newLiar(t *testing.T, names map[string]answerer) *liar {
	t.Helper()
	ln, pc := listenTwice(t)
	return serveLies(t, ln, pc, names)
}

// newLiarAt is newLiar at an address of the test's own network.
func newLiarAt(t *testing.T, addr string, names map[string]answerer) *liar {
	t.Helper()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return serveLies(t, listenAt(t, addr), pc, names)
}

func serveLies(t *testing.T, ln net.Listener, pc net.PacketConn, names map[string]answerer) *liar {
	t.Helper()
	l := &liar{addr: ln.Addr().String()}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		name := strings.ToLower(q.Question[0].Name)
		l.mu.Lock()
		l.asked = append(l.asked, w.LocalAddr().Network()+" "+dns.TypeToString[q.Question[0].Qtype]+" "+name)
		l.mu.Unlock()
		if a := names[name]; a != nil {
			a(w, q)
			return
		}
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError))
	})
	for _, s := range []*dns.Server{{Listener: ln, Handler: handler}, {PacketConn: pc, Handler: handler}} {
		up, down := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { defer close(down); _ = s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown(); <-down })
	}
	return l
}

// listenTwice listens on one port for TCP and UDP.
func listenTwice(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if pc, err := net.ListenPacket("udp4", ln.Addr().String()); err == nil {
			return ln, pc
		}
		ln.Close()
	}
	t.Fatal("no port is free for both TCP and UDP")
	return nil, nil
}

// queries returns what was asked of a name so far.
func (l *liar) queries(name string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, q := range l.asked {
		if strings.HasSuffix(q, " "+name) {
			all = append(all, q)
		}
	}
	slices.Sort(all)
	return all
}

// records answers with those records, in zone file form without the name, that fit the question.
func records(list ...string) answerer {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, s := range list {
			rr, err := dns.NewRR(q.Question[0].Name + " " + s)
			if err != nil {
				panic(err)
			}
			if t := rr.Header().Rrtype; t == q.Question[0].Qtype || t == dns.TypeCNAME {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m)
	}
}

// chain answers with a chain of CNAME records and what stands at its end.
func chain(list ...string) answerer {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, s := range list {
			rr, err := dns.NewRR(s)
			if err != nil {
				panic(err)
			}
			if t := rr.Header().Rrtype; t == q.Question[0].Qtype || t == dns.TypeCNAME {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m)
	}
}

func rcode(code int) answerer {
	return func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, code)) }
}

func silence(dns.ResponseWriter, *dns.Msg) {}
