package httpproxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"polyport/acl"
	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/exit"
	"polyport/internal/reactor"
	"polyport/internal/session"
	"polyport/internal/upstream"
	"polyport/mux"
	"polyport/protocols/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds everything that a test waits for and that should come at once.
const patience = 20 * time.Second

// names is a resolver with a fixed list.
type names map[string][]string

var errNoName = errors.New("no such name")

type slowName struct{}

func (slowName) Error() string { return "no answer" }
func (slowName) Timeout() bool { return true }

func (n names) Lookup(_ context.Context, _ netip.Addr, host string) ([]netip.Addr, error) {
	switch host {
	case "slow.test":
		return nil, slowName{}
	case "nxdomain.test":
		return nil, fmt.Errorf("look up: %w", answered{"NXDOMAIN", -1})
	case "blocked.test":
		return nil, fmt.Errorf("look up: %w", answered{"REFUSED", 15})
	}
	var out []netip.Addr
	for _, a := range n[host] {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		return nil, errNoName
	}
	return out, nil
}

// users knows alice, says that bob is locked out and that carol has to wait.
type users struct{ until time.Time }

func (u users) Authenticate(_ context.Context, _ netip.Addr, c auth.Credentials) (auth.Identity, error) {
	switch {
	case c.User == "bob":
		return auth.Identity{}, &auth.LockedOutError{Until: u.until}
	case c.User == "carol":
		return auth.Identity{}, auth.ErrBusy
	case c == auth.Credentials{User: "alice", Password: "pässword"}:
		return auth.Identity{Name: "alice"}, nil
	case c == auth.Credentials{User: "al", Password: "x"}:
		return auth.Identity{Name: "al"}, nil
	}
	return auth.Identity{}, auth.ErrBadCredentials
}

// setup of a gateway under test. The zero value lets everybody reach loopback.
type gatewayOptions struct {
	rules       []acl.Rule
	names       names
	users       auth.Authenticator
	requireUser bool
	anonymity   string
	rows        map[string]bool
	public      bool // not a loopback listener
	noHelp      bool
	address     string
	secureName  string
	timeouts    session.Timeouts
	own         func(netip.AddrPort) bool
	https       bool           // fetch https URIs
	roots       *x509.CertPool // whom to trust then
	loops       *reactor.Group // nil: goroutines alone
	ways        egress.Ways
	parameters  exit.Parameters // of user names
	sites       []spec.Site
	backends    map[string]*upstream.Backend
}

// gateway is the handler behind a real session manager.
type gateway struct {
	*session.Manager
	t       *testing.T
	o       gatewayOptions
	handler *handler
	records chan session.Record
	log     lockedBuffer
}

func (g *gateway) SessionStarted(session.Record)   {}
func (g *gateway) SessionEnded(rec session.Record) { g.records <- rec }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newGateway(t *testing.T, o gatewayOptions) *gateway {
	t.Helper()
	g := &gateway{t: t, o: o, records: make(chan session.Record, 1000)}
	rt := g.runtime()
	g.Manager = session.NewManager(rt, session.Options{
		Observers: []session.Observer{g},
		Log:       slog.New(slog.NewJSONHandler(&g.log, nil)),
		Loops:     o.loops,
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // end what is left at once
		g.Drain(ctx)
		for _, h := range g.Runtime().Handlers {
			if r, ok := h.(session.Retirer); ok {
				r.Retire()
			}
		}
		if s := g.log.String(); strings.Contains(s, "panic") {
			t.Errorf("the log tells of a panic: %s", s)
		}
	})
	return g
}

// runtime makes a Runtime with a handler of its own, as a reload does.
func (g *gateway) runtime() *session.Runtime {
	g.t.Helper()
	o := g.o
	if o.rules == nil {
		o.rules = []acl.Rule{{Name: "loopback", Action: acl.Allow, Target: []string{"127.0.0.0/8", "::1/128"}, Anonymous: true}}
	}
	policy, err := acl.New(acl.Options{HasUsers: o.users != nil, Rules: o.rules})
	if err != nil {
		g.t.Fatal(err)
	}
	rows, err := New(spec.Env{
		SecureName: o.secureName, HTTP: spec.HTTP{Anonymity: o.anonymity, ForwardHTTPS: o.https},
		Sites: o.sites, Backend: func(name string) (*upstream.Backend, bool) { b, ok := o.backends[name]; return b, ok },
	}, func(any) error { return nil })
	if err != nil {
		g.t.Fatal(err)
	}
	handlers, onLoop := map[string]session.Handler{}, map[string]bool{}
	for _, r := range rows {
		handlers[r.Name] = r.Handler
		onLoop[r.Name] = o.loops != nil && r.OnLoop
		if h, ok := r.Handler.(*handler); ok {
			g.handler = h
		}
		if o.https {
			g.handler.tls.RootCAs = o.roots
		}
	}
	if o.timeouts == (session.Timeouts{}) {
		o.timeouts = session.Timeouts{Handshake: patience, Idle: patience, KeepAlive: patience}
	}
	return &session.Runtime{
		Policy:         policy,
		Auth:           o.users,
		Egress:         egress.New(egress.Options{Policy: policy, Resolver: o.names, ConnectTimeout: patience, Own: o.own, Ways: o.ways}),
		UserParameters: o.parameters,
		Handlers:       handlers,
		OnLoop:         onLoop,
		Listeners: map[string]session.Listener{"main": {
			Loopback: !o.public, HelpPage: !o.noHelp, Rows: o.rows, RequireUser: o.requireUser, PublicAddress: o.address,
		}},
		Timeouts: o.timeouts,
	}
}

// record returns the record of the next session that ends.
func (g *gateway) record() session.Record {
	g.t.Helper()
	select {
	case rec := <-g.records:
		return rec
	case <-time.After(patience):
		g.t.Fatal("no session ended")
	}
	return session.Record{}
}

// peer is one end of a connection, in a test's hand.
type peer struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

func newPeer(t testing.TB, c *net.TCPConn) *peer {
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return &peer{TCPConn: c, t: t, r: bufio.NewReader(c)}
}

// connect returns the client's end of a connection to the gateway.
func (g *gateway) connect() *peer {
	g.t.Helper()
	client, server := tcpPair(g.t)
	go g.Serve(mux.NewConn(server, "main", rowHTTP, nil))
	return newPeer(g.t, client)
}

func tcpPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// send writes bytes as they are.
func (p *peer) send(format string, args ...any) {
	p.t.Helper()
	s := format
	if len(args) > 0 {
		s = fmt.Sprintf(format, args...)
	}
	if _, err := io.WriteString(p.TCPConn, s); err != nil {
		p.t.Errorf("send %.60q: %v", s, err)
	}
}

// head reads up to and with the next empty line.
func (p *peer) head() string {
	p.t.Helper()
	var b strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			p.t.Errorf("read a head: %v, behind %q", err, b.String())
			return b.String()
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

// bytes reads n bytes.
func (p *peer) bytes(n int) string {
	p.t.Helper()
	b := make([]byte, n)
	if m, err := io.ReadFull(p.r, b); err != nil {
		p.t.Errorf("read %d bytes: %v, behind %q", n, err, b[:m])
	}
	return string(b)
}

// rest reads to the end of the stream and returns how that came.
func (p *peer) rest() (string, error) {
	b, err := io.ReadAll(p.r)
	return string(b), err
}

// response reads one response with net/http, which is not what is under test.
func (p *peer) response(method string) (*http.Response, string) {
	p.t.Helper()
	resp, err := http.ReadResponse(p.r, &http.Request{Method: method})
	if err != nil {
		p.t.Fatalf("read the response to %s: %v", method, err)
	}
	checkProxyStatus(p.t, resp)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("read the body of the response to %s: %v", method, err)
	}
	return resp, string(body)
}

// scripted is an origin server that does as a test tells it.
type scripted struct {
	t        *testing.T
	ln       *net.TCPListener
	accepted atomic.Int32
	done     sync.WaitGroup
	conns    sync.Map // *net.TCPConn, to end them with the test
}

// newScripted makes an origin that serves each connection with script.
func newScripted(t *testing.T, script func(p *peer)) *scripted {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{t: t, ln: ln}
	s.done.Add(1)
	go s.accept(script)
	t.Cleanup(func() {
		ln.Close()
		s.conns.Range(func(c, _ any) bool { c.(*net.TCPConn).Close(); return true })
		s.done.Wait()
	})
	return s
}

func (s *scripted) accept(script func(p *peer)) {
	defer s.done.Done()
	for {
		c, err := s.ln.AcceptTCP()
		if err != nil {
			return
		}
		s.accepted.Add(1)
		s.done.Add(1)
		s.conns.Store(c, nil)
		go func() {
			defer s.done.Done()
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			script(&peer{TCPConn: c, t: s.t, r: bufio.NewReader(c)})
		}()
	}
}

// addr is the origin's "host:port".
func (s *scripted) addr() string { return s.ln.Addr().String() }

// port is the origin's port.
func (s *scripted) port() int { return s.ln.Addr().(*net.TCPAddr).Port }

// replies makes an origin that reads request heads and answers each with the
// same bytes; what it has read goes to the channel.
func replies(t *testing.T, answer string) (*scripted, chan string) {
	t.Helper()
	heads := make(chan string, 1000)
	return newScripted(t, func(p *peer) {
		for {
			if _, err := p.r.Peek(1); err != nil {
				return
			}
			heads <- p.head()
			p.send("%s", answer)
		}
	}), heads
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// once wraps a script that has nothing left to do but to wait until the gateway closes.
func untilClosed(p *peer) { _, _ = io.Copy(io.Discard, p.r) }

// want compares two texts.
func want(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}
