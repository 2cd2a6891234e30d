package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/freeport"
	"polyport/internal/target"
	"polyport/mux"
)

// binder is a harness whose handler serves BIND and writes where it listens.
type binder struct {
	*harness
	port uint16
	host string        // who is awaited
	told chan struct{} // gets one for each BIND that listens
	tell error         // what telling the client comes to
	at   netip.AddrPort
}

// newBinder makes one with a single port.
func newBinder(t *testing.T, change func(*egress.BindOptions)) *binder {
	t.Helper()
	b := &binder{host: "127.0.0.1", told: make(chan struct{}, 8)}
	host := netip.MustParseAddr(b.host)
	var err error
	if b.port, err = freeport.Find(host, 1); err != nil {
		t.Fatal(err)
	}
	b.at = netip.AddrPortFrom(host, b.port)
	policy, err := acl.New(acl.Options{HasUsers: true, Rules: []acl.Rule{
		{Name: "ftp", Action: acl.Allow, Target: []string{"127.0.0.0/8"}, Method: []string{"BIND"}, Port: []acl.PortRange{{First: 20, Last: 20}}},
		{Name: "users", Action: acl.Allow, Target: []string{"127.0.0.0/8"}, Method: []string{"BIND"}, User: []string{"*"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	o := egress.BindOptions{First: b.port, Last: b.port, Binds: egress.NewBinds(mux.ClientKey, nil, nil)}
	if change != nil {
		change(&o)
	}
	b.harness = newHarness(t, handlerFunc(b.serve), func(rt *Runtime) {
		rt.Policy, rt.Egress = policy, egress.New(egress.Options{Policy: policy, Bind: o})
	})
	return b
}

func (b *binder) serve(ctx context.Context, s *Session) error {
	s.SetMethod("BIND")
	var asked [1]byte
	if _, err := io.ReadFull(s.Conn(), asked[:]); err != nil {
		return err
	}
	port := uint16(20)
	if asked[0] == 'u' { // for what only users may
		port = 21
	}
	t, err := target.NewPeer(b.host, port)
	if err != nil {
		return err
	}
	c, err := s.Bind(ctx, t, true, func(bound netip.AddrPort) error {
		b.told <- struct{}{}
		if bound != b.at {
			return errors.New("it listens on " + bound.String())
		}
		return b.tell
	})
	if err != nil {
		return err
	}
	s.Relay(c)
	return nil
}

// knock connects to where the gateway listens.
func (b *binder) knock(t *testing.T, from string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp4", &net.TCPAddr{IP: net.ParseIP(from)}, net.TCPAddrFromAddrPort(b.at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// checkFree fails unless the port can be listened on.
func (b *binder) checkFree(t *testing.T) {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(b.at))
	if err != nil {
		t.Errorf("the port is still in use: %v", err)
		return
	}
	ln.Close()
}

func TestBind(t *testing.T) {
	for _, tt := range []struct{ name, host, from string }{
		{"who was named", "127.0.0.1", "127.0.0.1"},
		{"nobody in particular", "0.0.0.0", "127.0.0.2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBinder(t, nil)
			b.host = tt.host
			c := b.connect(t, "b")
			<-b.told
			_, _ = io.WriteString(c, "early ")
			peer := b.knock(t, tt.from)
			if _, err := io.ReadFull(peer, make([]byte, 6)); err != nil {
				t.Fatalf("what the client said before its peer came is lost: %v", err)
			}
			b.checkFree(t)
			_, _ = io.WriteString(c, "late")
			_ = c.CloseWrite()
			if got, err := io.ReadAll(peer); err != nil || string(got) != "late" {
				t.Errorf("the peer reads %q, %v; want late", got, err)
			}
			_, _ = io.WriteString(peer, "answer")
			_ = peer.CloseWrite()
			if got, err := io.ReadAll(c); err != nil || string(got) != "answer" {
				t.Errorf("the client reads %q, %v; want answer", got, err)
			}
			r := <-b.records.ended
			want := peer.LocalAddr().String()
			if r.Err != nil || r.Reason != "" || r.Rule != "ftp" || r.Address.String() != want || r.Target != tt.host+":20" || r.Method != "BIND" || r.BytesFromClient != 10 || r.BytesFromTarget != 6 {
				t.Errorf("record = %+v, want address %s and rule ftp", r, want)
			}
			b.Drain(t.Context())
		})
	}
}

// A client that sends ahead loses nothing, and is held back at some point.
func TestBindBoundsWhatIsSentAhead(t *testing.T) {
	b := newBinder(t, nil)
	c := b.connect(t, "b")
	<-b.told
	sent := bytes.Repeat([]byte("0123456789abcdef"), 8*maxEarly/16)
	wrote := make(chan error, 1)
	go func() { // ends when all is read, or the connection is closed
		_, err := c.Write(sent)
		wrote <- err
		_ = c.CloseWrite()
	}()
	peer := b.knock(t, "127.0.0.1")
	got, err := io.ReadAll(peer)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("the peer reads %d octets, %v; want %d", len(got), err, len(sent))
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	peer.Close()
	<-b.records.ended
	b.Drain(t.Context())
}

func TestWatchIsBounded(t *testing.T) {
	b := newBinder(t, nil)
	got := make(chan int, 1)
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		w := &clientWatch{conn: s.Conn(), ended: make(chan struct{})}
		go w.watch(func(error) {})
		<-w.ended // although the client has more to say, and stays
		got <- len(w.early)
		return w.stop()
	}), nil)
	c := h.connect(t, "")
	go func() { _, _ = c.Write(make([]byte, 4*maxEarly)) }() // ends with the connection
	if n := <-got; n != maxEarly {
		t.Errorf("%d octets were taken, want %d", n, maxEarly)
	}
	if r := <-h.records.ended; r.Err != nil {
		t.Errorf("record = %+v", r)
	}
	h.Drain(t.Context())
	b.Drain(t.Context())
}

func TestBindEnds(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		ask    string
		change func(*egress.BindOptions)
		setup  func(*binder)
		end    func(t *testing.T, b *binder, c *net.TCPConn)
		reason string
		err    error
	}{
		{name: "the client goes away", end: func(_ *testing.T, b *binder, c *net.TCPConn) { <-b.told; c.Close() }, reason: reasonClientClosed, err: io.EOF},
		{name: "the client breaks off", end: func(_ *testing.T, b *binder, c *net.TCPConn) { <-b.told; _ = c.SetLinger(0); c.Close() }, reason: reasonClientClosed, err: errClientGone},
		{name: "nobody comes", change: func(o *egress.BindOptions) { o.Timeout = 20 * time.Millisecond }, reason: "connection_timeout"},
		{
			name: "only strangers come", reason: "http_request_denied", err: egress.ErrDenied,
			end: func(_ *testing.T, b *binder, _ *net.TCPConn) {
				<-b.told
				for range 17 {
					d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
					if c, err := d.Dial("tcp4", b.at.String()); err == nil { // else it was reset already
						_, _ = c.Read(make([]byte, 1))
						c.Close()
					}
				}
			},
		},
		{name: "shutdown", end: func(t *testing.T, b *binder, _ *net.TCPConn) {
			<-b.told
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			b.Drain(ctx)
		}, reason: "shutting_down"},
		{name: "the client cannot be told", setup: func(b *binder) { b.tell = broken }, err: broken},
		{name: "no permission", ask: "u", reason: acl.ReasonNeedsUser, err: egress.ErrChallenge},
		{name: "no ports", change: func(o *egress.BindOptions) { o.First = 0 }, reason: "proxy_configuration_error", err: egress.ErrNoBind},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBinder(t, tt.change)
			if tt.setup != nil {
				tt.setup(b)
			}
			if tt.ask == "" {
				tt.ask = "b"
			}
			c := b.connect(t, tt.ask)
			if tt.end != nil {
				tt.end(t, b, c)
			}
			r := <-b.records.ended
			if r.Err == nil || r.Reason != tt.reason || tt.err != nil && !errors.Is(r.Err, tt.err) {
				t.Errorf("record = %+v, want reason %q and %v", r, tt.reason, tt.err)
			}
			b.checkFree(t)
			c.Close()
			b.Drain(t.Context())
		})
	}
}

// A client that goes away frees its port for the next one.
func TestBindAgainAfterTheClientWent(t *testing.T) {
	b := newBinder(t, func(o *egress.BindOptions) { o.PerClient = 1 })
	for range 3 {
		c := b.connect(t, "b")
		<-b.told
		c.Close()
		if r := <-b.records.ended; !errors.Is(r.Err, errClientGone) {
			t.Fatalf("record = %+v", r)
		}
	}
	b.Drain(t.Context())
}
